"""Durations (`500ms 20s 5m 6h 7d`) and sizes (`64KiB 10MiB`), as rule files and settings write them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, WithJsonSchema

DURATION: Final = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)")
SIZE: Final = re.compile(r"([0-9]{1,12})(B|KiB|MiB|GiB)")

_MILLISECONDS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LARGEST_FIRST: Final = tuple(reversed(_MILLISECONDS.items()))
_BYTES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_LONGEST: Final = timedelta(days=36_500)


def parse_duration(text: object) -> timedelta | None:
    """`2s` as a timedelta; None where the text is no duration or longer than a hundred years."""
    found = DURATION.fullmatch(text) if isinstance(text, str) else None
    if not found:
        return None
    milliseconds = int(found[1]) * _MILLISECONDS[found[2]]
    if milliseconds > _LONGEST / timedelta(milliseconds=1):
        return None
    return timedelta(milliseconds=milliseconds)


def duration_text(span: timedelta) -> str:
    """The inverse, in the largest unit that fits exactly; what is finer than a millisecond in seconds."""
    micros = span // timedelta(microseconds=1)
    if micros == 0:
        return "0s"
    for unit, milliseconds in _LARGEST_FIRST:
        if micros % (milliseconds * 1_000) == 0:
            return f"{micros // (milliseconds * 1_000)}{unit}"
    return f"{micros / 1_000_000:.6f}s"


def parse_size(text: object) -> int | None:
    """`10MiB` in bytes; None where the text is no size."""
    found = SIZE.fullmatch(text) if isinstance(text, str) else None
    return int(found[1]) * _BYTES[found[2]] if found else None


def _duration(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    span = parse_duration(value)
    if span == timedelta(0):
        raise ValueError(f"{value!r} must be longer than nothing")
    if span is None:
        raise ValueError(
            f"{value!r} is no duration; write a number and a unit, like 500ms, 20s, 5m, 6h or 7d"
        )
    return span


def _size(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    size = parse_size(value)
    if size is None:
        raise ValueError(f"{value!r} is no size; write a number and a unit, like 64KiB or 10MiB")
    return size


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    WithJsonSchema({"type": "string", "pattern": f"^{DURATION.pattern}$", "examples": ["20s", "7d"]}),
]
"""A duration above zero in a pydantic model."""

Size = Annotated[
    int,
    BeforeValidator(_size),
    Field(gt=0),
    WithJsonSchema({"type": "string", "pattern": f"^{SIZE.pattern}$", "examples": ["1MiB"]}),
]
"""Bytes, above zero, in a pydantic model."""
