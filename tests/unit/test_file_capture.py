"""Captures of a path pattern: which text they take, and as what."""

from __future__ import annotations

import re
from typing import Any

import pytest

from connectors.file.capture import compile_capture


@pytest.mark.parametrize(
    ("hole", "text", "value"),
    [
        ("region", "eu", "eu"),
        ("region", "007", "007"),
        ("n:int", "0042", 42),
        ("n:int", "-3", -3),
        ("n:int", "9" * 100, int("9" * 100)),
        ("n:int", "9" * 101, None),
        ("n:int", "4.2", None),
        ("n:int", "4_2", None),
        ("n:int", "+4", None),
        ("n:int", "٣", None),
        ("x:float", "4.25", 4.25),
        ("x:float", "-1e3", -1000.0),
        ("x:float", "nan", None),
        ("x:float", "inf", None),
        ("x:float", "1e999", None),
        ("day:%Y-%m-%d", "2026-11-21", "2026-11-21"),
        ("day:%Y-%m-%d", "2026-02-30", None),
        ("day:%Y-%m-%d", "2026-11-21x", None),
        ("day:%Y-%m-%d", "٢٠٢٦-11-21", None),
        ("day:%Y%m%d", "20261121", "2026-11-21"),
        ("day:%d.%m.%y", "21.11.26", "2026-11-21"),
        ("at:%Y-%m-%dT%H%M%S", "2026-11-21T060507", "2026-11-21T06:05:07"),
        ("at:%Y%m%dT%H%M%S%z", "20261121T060507+0100", "2026-11-21T06:05:07+01:00"),
        ("at:%H%M", "0605", "06:05:00"),
    ],
)
def test_takes_text_as_a_value(hole: str, text: str, value: Any) -> None:
    parsed = compile_capture(hole).parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("hole", "says"),
    [
        ("", "is no capture"),
        ("1st", "is no capture"),
        ("a b", "is no capture"),
        ("größe", "is no capture"),
        ("size", "data.size is there already"),
        ("sha256", "data.sha256 is there already"),
        ("n:", "unknown type ''"),
        ("n:integer", "unknown type 'integer'"),
        ("day:%Q", "%Q in {day:%Q} is not supported"),
        ("day:%%", "captures no part of a date"),
        ("day:%", "is not supported"),
        ("day:%Y %Y", "no usable format"),
    ],
)
def test_says_what_is_wrong_with_a_capture(hole: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        compile_capture(hole)
