"""Values on their way into CEL and back out as plain JSON.

CEL has 64-bit integers, and this library cuts a string at its first NUL. So that neither changes what
passes through, an integer outside int64 and a string with a NUL go in as marked bytes, which JSON does
not have, and come out whole. Inside an expression they compare among themselves; arithmetic and string
functions on them end in an error rather than in a wrong answer. A condition that so ends is asked again with
such integers as doubles: then they compare with other numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, Final, cast

import msgspec

from eventflow.errors import EventflowError, UsageError
from eventflow.event import JSON, Event
from eventflow.units import duration_text

_INT64: Final = range(-(2**63), 2**63)
_SUSPICIOUS: Final = re.compile(rb"[0-9]{19}|\\u0000")
_BIG: Final = b"\xffi"
_TEXT: Final = b"\xffs"
# The library cuts bytes at a NUL as well. UTF-8 has no byte 0xFE, so it can stand for one.
_NUL: Final = b"\xfe"


class ExpressionError(UsageError):
    """An expression does not compile. `line` and `column` count from 1, within the expression's text."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        self.message = message
        self.line = line
        self.column = column
        super().__init__(message)


class EvaluationError(EventflowError):
    """An expression ended in an error: a missing field, a value of the wrong type, a bound reached."""


def event_values(event: Event, ingested: datetime | None = None) -> dict[str, object]:
    """The variable `event` of type `VarType.event`: only the attributes that the event has.

    As a map its `time` and `ingested` are RFC 3339 text; written `event.time` they are timestamps.
    """
    view: dict[str, object] = {"id": event.id, "source": event.sender or event.source, "type": event.type}
    view.update(event.extensions)
    for name in ("subject", "datacontenttype", "dataschema"):
        value = getattr(event, name)
        if value is not None:
            view[name] = value
    view["data"] = event.data
    view["meta"] = event.meta
    values: dict[str, object] = {"event": view}
    for name, at in (("time", event.time), ("ingested", ingested)):
        if at is not None:
            view[name] = time_text(at)
            values[f"event.{name}"] = at
    return values


def time_text(at: datetime) -> str:
    """RFC 3339 in UTC: `2026-01-01T06:00:00Z`, with microseconds where there are any."""
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return at.replace(tzinfo=None).isoformat() + "Z"


def encoded_size(values: object) -> tuple[int, bool]:
    """Bytes of `values` as JSON, and whether something in them may need marking.

    Raises `EvaluationError` for what is no JSON.
    """
    try:
        encoded = msgspec.json.encode(values)
    except (TypeError, ValueError, RecursionError) as error:
        raise EvaluationError(f"the values given are no JSON: {error}") from error
    return len(encoded), _SUSPICIOUS.search(encoded) is not None


def to_cel(value: Any) -> Any:
    """A copy of `value` with what CEL would spoil replaced by marked bytes."""
    match value:
        case str():
            return _TEXT + value.encode().replace(b"\0", _NUL) if "\0" in value else value
        case bool():
            return value
        case int():
            return value if value in _INT64 else _mark_integer(value)
        case dict():
            items = cast(dict[str, Any], value).items()
            return {key: to_cel(item) for key, item in items}
        case list() | tuple():
            return [to_cel(item) for item in cast(list[Any], value)]
        case _:
            return value


def as_doubles(value: Any) -> Any | None:
    """A copy with each integer outside int64 as a double, to compare with numbers; None: there is none.

    Equal integers become equal doubles, others keep their order: neighbours too close for doubles are
    moved apart, away from zero.
    """
    large = sorted(set(_large(value)), key=abs)
    if not large:
        return None
    found: dict[int, float] = {}
    last = {True: float(_INT64.start), False: float(_INT64.stop)}
    for each in large:
        below = each < 0
        edge = math.nextafter(last[below], -math.inf if below else math.inf)
        found[each] = last[below] = min(float(each), edge) if below else max(float(each), edge)
    return _replaced(value, found)


def _large(value: Any) -> Iterator[int]:
    match value:
        case bool():
            pass
        case int():
            if value not in _INT64:
                yield value
        case dict():
            yield from chain.from_iterable(map(_large, cast(dict[str, Any], value).values()))
        case list() | tuple():
            yield from chain.from_iterable(map(_large, cast(list[Any], value)))
        case _:
            pass


def _replaced(value: Any, found: Mapping[int, float]) -> Any:
    match value:
        case bool():
            return value
        case int():
            return found.get(value, value)
        case dict():
            return {key: _replaced(item, found) for key, item in cast(dict[str, Any], value).items()}
        case list() | tuple():
            return [_replaced(item, found) for item in cast(list[Any], value)]
        case _:
            return value


def from_cel(value: Any) -> JSON:
    """A result of CEL as plain JSON: times and durations as text. `EvaluationError` where there is none."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if math.isfinite(value):
                return value
            raise EvaluationError(f"the result is {value}, which JSON cannot say")
        case datetime():
            return time_text(value)
        case timedelta():
            return duration_text(value)
        case list():
            return [from_cel(item) for item in cast(list[Any], value)]
        case dict():
            # CEL's maps have no order and the library's differs from process to process: sorted, so
            # that the same event always gives the same bytes.
            pairs = cast(dict[Any, Any], value).items()
            return {key: from_cel(item) for key, item in sorted(pairs, key=_key)}
        case bytes() | bytearray():
            return _unmark(bytes(value))
        case _:
            raise EvaluationError("the result is a type, which JSON cannot say")


def _key(pair: tuple[Any, Any]) -> str:
    key = pair[0]
    if isinstance(key, str):
        return key
    raise EvaluationError(f"the result is a map with the key {key!r}; JSON has string keys only")


def _mark_integer(value: int) -> bytes:
    """Marked so that bytes sort as the integers do: sign, number of digits, digits (complement below 0)."""
    digits = str(abs(value)).encode()
    if value >= 0:
        return _BIG + b"1" + bytes([len(digits)]) + digits
    return _BIG + b"0" + bytes([255 - len(digits)]) + bytes(ord("0") + ord("9") - digit for digit in digits)


def _unmark(value: bytes) -> JSON:
    kind, body = value[:2], value[2:]
    try:
        if kind == _TEXT:
            return body.replace(_NUL, b"\0").decode()
        if kind == _BIG:
            sign, digits = body[:1], body[2:]
            if sign == b"1" and body[1] == len(digits):
                return int(digits)
            if sign == b"0" and body[1] == 255 - len(digits):
                return -int(bytes(ord("0") + ord("9") - digit for digit in digits))
    except (ValueError, IndexError):
        pass  # two marked values joined by `+`: reported below
    raise EvaluationError("the result is bytes, which JSON cannot say")
