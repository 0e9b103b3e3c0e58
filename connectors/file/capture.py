"""Captures: the `{name}`, `{name:int}`, `{name:float}` and `{name:%Y-%m-%d}` of a path pattern."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from eventflow.event import JSON

RESERVED = frozenset({"path", "name", "size", "modified", "sha256", "generation", "captures"})
"""What every file event's data holds already."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_INT = re.compile(r"-?[0-9]{1,100}")
_FLOAT = re.compile(r"-?[0-9]{1,100}(\.[0-9]{1,100})?([eE][-+]?[0-9]{1,3})?")
_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)

# strptime's directives: how few and how many characters each takes.
_DATE = {"Y": (4, 4), "y": (2, 2), "m": (1, 2), "d": (1, 2), "j": (1, 3), "b": (3, 3), "B": (3, 9),
         "a": (3, 3), "A": (6, 9), "G": (4, 4), "V": (1, 2), "u": (1, 1)}  # fmt: skip
_TIME = {"H": (1, 2), "I": (1, 2), "M": (1, 2), "S": (1, 2), "f": (1, 6), "p": (2, 2), "z": (1, 15)}


@dataclass(frozen=True, slots=True)
class Capture:
    """One hole of a pattern. `parse` gives the value, or None where the text is none.

    Text takes as little as it can, numbers and dates as much.
    """

    name: str
    parse: Callable[[str], JSON]
    shortest: int = 1
    longest: int = 255
    text: bool = False


def compile_capture(hole: str) -> Capture:
    """The capture written as `hole`, without its braces. Raises `ValueError`."""
    name, colon, spec = hole.partition(":")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{{{hole}}} is no capture: write {{name}} or {{name:type}}, or \\{{ for a brace")
    if name in RESERVED:
        raise ValueError(f"a capture may not be called {name!r}: data.{name} is there already")
    match spec:
        case "" if not colon:
            return Capture(name, str, text=True)
        case "int":
            return Capture(name, _parse_int, longest=101)
        case "float":
            return Capture(name, _parse_float)
        case _ if "%" in spec:
            return _dated(name, spec)
        case _:
            raise ValueError(
                f"unknown type {spec!r} in {{{hole}}}: use int, float, or a format of dates such as %Y-%m-%d"
            )


def _parse_int(text: str) -> JSON:
    return int(text) if _INT.fullmatch(text) else None


def _parse_float(text: str) -> JSON:
    if not _FLOAT.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def _dated(name: str, layout: str) -> Capture:
    """A capture of strptime's `layout`, as ISO 8601 text: a date, a time, or both."""
    directives: list[str] = _DIRECTIVE.findall(layout)
    widths = {"%": (1, 1), **_DATE, **_TIME}
    for directive in directives:
        if directive not in widths:
            raise ValueError(f"%{directive} in {{{name}:{layout}}} is not supported; known are {_known()}")
    literal = len(_DIRECTIVE.sub("", layout))
    dated = any(directive in _DATE for directive in directives)
    timed = any(directive in _TIME for directive in directives)
    if not dated and not timed:
        raise ValueError(f"{{{name}:{layout}}} captures no part of a date")
    try:
        _parse_moment(datetime(2026, 11, 23, 12, 34, 56, tzinfo=UTC).strftime(layout), layout)
    except (ValueError, re.error) as error:  # a directive that stands twice is an error of re
        raise ValueError(f"{{{name}:{layout}}} is no usable format of dates: {error}") from error

    def parse(text: str) -> JSON:
        if not text.isascii():  # strptime takes digits of any script
            return None
        try:
            moment = _parse_moment(text, layout)
        except ValueError:
            return None
        if not timed:
            return moment.date().isoformat()
        return moment.isoformat() if dated else moment.timetz().isoformat()

    shortest = literal + sum(widths[directive][0] for directive in directives)
    longest = literal + sum(widths[directive][1] for directive in directives)
    return Capture(name, parse, shortest, longest)


def _parse_moment(text: str, layout: str) -> datetime:
    """With an offset only where the text has one: a date in a name is no moment of any one zone."""
    return datetime.strptime(text, layout)  # noqa: DTZ007


def _known() -> str:
    return " ".join(f"%{directive}" for directive in sorted({**_DATE, **_TIME}))
