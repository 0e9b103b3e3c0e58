"""Path patterns: globs with captures, on hostile names too."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import pytest

from connectors.file.pattern import PathPattern


@pytest.mark.parametrize(
    ("pattern", "path", "captures"),
    [
        ("**", "a", {}),
        ("**", "a/b/c.csv", {}),
        ("*", "a.csv", {}),
        ("*", "a/b.csv", None),
        ("*.csv", "a.csv", {}),
        ("*.csv", "a.csv.tmp", None),
        ("*.csv", "a.CSV", None),
        ("**/*.csv", "a.csv", {}),
        ("**/*.csv", "x/y/a.csv", {}),
        ("a/**/b", "a/b", {}),
        ("a/**/b", "a/x/y/b", {}),
        ("a/**/b", "axb", None),
        ("a/**", "a/b/c", {}),
        ("a/**", "ab", None),
        ("a**b", "a/x/b", {}),
        ("a?c", "abc", {}),
        ("a?c", "a/c", None),
        ("a?c", "aéc", {}),
        ("[ab].csv", "[ab].csv", {}),
        ("[ab].csv", "a.csv", None),
        (r"a\*.csv", "a*.csv", {}),
        (r"a\*.csv", "ab.csv", None),
        (r"\{x\}.csv", "{x}.csv", {}),
        ("line\nbreak*", "line\nbreak.csv", {}),
        ("{name_}.csv", "orders.csv", {"name_": "orders"}),
        ("{name_}.csv", ".csv", None),
        ("{name_}.csv", "a/b.csv", None),
        ("{dataset}/{region}_{day:%Y-%m-%d}.csv", "sales/eu_2026-11-21.csv",
         {"dataset": "sales", "region": "eu", "day": "2026-11-21"}),
        ("{dataset}/{region}_{day:%Y-%m-%d}.csv", "sales/eu_2026-13-21.csv", None),
        ("{dataset}/{region}_{day:%Y-%m-%d}.csv", "sales/eu_north_2026-11-21.csv",
         {"dataset": "sales", "region": "eu_north", "day": "2026-11-21"}),
        ("**/{table}-{n:int}.parquet", "a/b/orders-17.parquet", {"table": "orders", "n": 17}),
        ("**/{table}-{n:int}.parquet", "orders-17-18.parquet", {"table": "orders-17", "n": 18}),
        ("{a}-{b}", "1-2-3", {"a": "1", "b": "2-3"}),
        ("{day:%Y%m%d}{rest}", "20261121x", {"day": "2026-11-21", "rest": "x"}),
    ],
)  # fmt: skip
def test_matches_the_whole_path(pattern: str, path: str, captures: Mapping[str, Any] | None) -> None:
    assert PathPattern(pattern).match(path) == captures


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("", "may not be empty"),
        ("{a", "a { has no }"),
        ("a\\", "may not end in a lone"),
        ("{a}/{a}", "{a} is captured twice"),
        ("{a/b}", "spans folders"),
        ("{day:%Y/%m/%d}", "spans folders"),
        ("{path}", "data.path is there already"),
    ],
)
def test_says_what_is_wrong_with_a_pattern(pattern: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        PathPattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("{a}_{b}_{c}_{d}_{e}_{f}.csv", "_" * 255),
        ("*_*_*_*_*_*_*_*.csv", "_" * 255),
        ("**/a/**/a/**/a/**/b", "a/" * 1000 + "c"),
        ("{a:int}{b:int}{c:int}{d:int}x", "1" * 255),
        ("{a:%Y%m%d}*{b:%Y%m%d}*{c:%Y%m%d}!", "20260101" * 31),
    ],
)
def test_a_hostile_name_costs_little(pattern: str, path: str) -> None:
    compiled = PathPattern(pattern)
    started = time.process_time()
    assert compiled.match(path) is None
    assert time.process_time() - started < 1.0
