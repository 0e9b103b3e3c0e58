"""Globs: what they match, what the index may take from them, and that none of them is dear."""

from __future__ import annotations

import time

import pytest

from eventflow.glob import GlobError, compile_glob

TABLE = [
    ("", "", True),
    ("", "a", False),
    ("a", "a", True),
    ("a", "ab", False),
    ("*", "", True),
    ("*", "abc", True),
    ("*", "a/b", False),
    ("**", "a/b/c", True),
    ("**", "", True),
    ("***", "a/b", True),
    ("?", "a", True),
    ("?", "/", False),
    ("?", "", False),
    ("?", "é", True),
    ("?", "\n", True),
    ("*.csv", ".csv", True),
    ("*.csv", "a.csv", True),
    ("*.csv", "a.csv\n", False),
    ("*.csv", "a.CSV", False),
    ("a*b*c", "abc", True),
    ("a*b*c", "axxbyybzzc", True),
    ("a*b*c", "axb/c", False),
    ("*a*b*", "aba", True),
    ("**/a*b*c/**/d", "abacac/abc/d/d", True),
    ("**/a/*b/**", "a/a/xb/c", True),
    ("landing/*/orders/**/*.parquet", "landing/eu/orders/x.parquet", True),
    ("landing/*/orders/**/*.parquet", "landing/eu/orders/2026/11/x.parquet", True),
    ("landing/*/orders/**/*.parquet", "landing/eu/x/orders/x.parquet", False),
    ("a/**/b", "a/b", True),
    ("a/**/b", "a/x/y/b", True),
    ("a/**/b", "a/xb", False),
    ("a/**/b", "ab", False),
    ("**/x", "x", True),
    ("**/x", "a/b/x", True),
    ("**/x", "ax", False),
    ("**/x", "/x", True),
    ("a/**", "a/b", True),
    ("a/**", "a/b/c", True),
    ("a/**", "a", False),
    ("a/**/**/b", "a/b", True),
    ("**/a/**/a/**", "a/a/x", True),
    ("**/a/**/a/**", "a/x", False),
    ("**/*b/**/c", "ab/x/bb/y/c", True),
    ("a**b", "a/x/b", True),
    ("a**/b", "ax/y/b", True),
    ("a**/b", "a/b", True),
    ("a**/b", "ab", False),
    ("[ab]", "[ab]", True),
    ("[ab]", "a", False),
    ("{a,b}", "{a,b}", True),
    ("{a,b}", "a", False),
    (r"\*", "*", True),
    (r"\*", "a", False),
    (r"\?\\", "?\\", True),
    (r"a\b", "ab", True),
    ("a.c", "abc", False),
    ("(a|b)+$^", "(a|b)+$^", True),
    ("dt=*/part-?????.x", "dt=2026-11-01/part-00001.x", True),
]


@pytest.mark.parametrize(("glob", "text", "answer"), TABLE)
def test_a_glob_matches_the_whole_text(glob: str, text: str, answer: bool) -> None:
    compiled = compile_glob(glob)
    assert compiled.match(text) is answer
    assert bool(compiled.search(text)) is answer
    if answer:
        assert text.startswith(compiled.prefix)
        assert text.endswith(compiled.suffix)
        assert set(compiled.segments) <= set(text.split("/"))


@pytest.mark.parametrize(
    ("glob", "prefix", "suffix", "segments"),
    [
        ("a/b/c", "a/b/c", "a/b/c", ("a", "b", "c")),
        ("landing/ds7/*.csv", "landing/ds7/", ".csv", ("landing", "ds7")),
        ("**/ds7/dt=*/part-*.x", "", ".x", ("ds7",)),
        ("a*/b/**", "a", "", ("b",)),
        ("**/a", "", "a", ("a",)),
        ("x**/a", "x", "/a", ("a",)),
        ("x**a/b", "x", "a/b", ("b",)),
    ],
)
def test_what_every_match_has_is_known(
    glob: str, prefix: str, suffix: str, segments: tuple[str, ...]
) -> None:
    compiled = compile_glob(glob)
    assert (compiled.prefix, compiled.suffix, compiled.segments) == (prefix, suffix, segments)
    assert compiled.literal is (glob == "a/b/c")


def test_a_single_backslash_at_the_end_is_an_error() -> None:
    with pytest.raises(GlobError, match="backslash"):
        compile_glob("a\\")


HOSTILE = [
    ("a*" * 30 + "b", "a" * 20_000),
    ("*a" * 30 + "*b", "a" * 20_000),
    ("a?*" * 30 + "b", "a" * 20_000),
    ("**/" + "a*" * 30 + "b", "a" * 20_000),
    ("**/" + "*a/**/" * 30 + "b", "a/" * 10_000),
    ("**/a/" * 30 + "b", "a/" * 10_000),
    ("a**" * 30 + "b", "a" * 20_000),
    ("**a*" * 20 + "/b", "a" * 20_000),
    ("**" + "a*/" * 20 + "b", "aa/" * 7_000),
    ("**/**/**/*/*/*/*x", "a/" * 10_000),
]


@pytest.mark.parametrize(("glob", "text"), HOSTILE)
def test_no_glob_takes_more_than_its_length_times_the_text(glob: str, text: str) -> None:
    started = time.process_time()
    assert not compile_glob(glob).match(text)
    assert time.process_time() - started < 1
