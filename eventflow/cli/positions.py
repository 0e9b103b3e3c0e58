"""Positions, ranges and places as a person reads them in a table; `--json` has them whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from eventflow.event import JSON, decode_json, encode_json

if TYPE_CHECKING:
    from eventflow.offers import Spelling


def position_text(factory: object, cursor: str) -> str:
    """A stored position, which is JSON, in its connector's short form; as it stands where that has none."""
    if cursor == "null" or not hasattr(factory, "spelled"):
        return cursor
    return cast("Spelling", factory).spelled(decode_json(cursor.encode()))


def range_text(missing: JSON) -> str | None:
    """What is gone: `5 to 9`, `5 to ?` where nobody knows how far, several with commas; else JSON."""
    match missing:
        case None:
            return None
        case {"from": first, "to": last}:
            return f"{_end(first)} to {_end(last)}"
        case [*ranges] if ranges:
            return ", ".join(range_text(one) or "?" for one in ranges)
        case _:
            return encode_json(missing).decode()


def _end(value: JSON) -> str:
    if value is None:
        return "?"
    return value if isinstance(value, str) else encode_json(value).decode()


def place_text(position: JSON) -> str | None:
    """Where in its source a record stood: `orders.v1/3/17` of topic, partition and offset."""
    if position is None:
        return None
    values = cast("Mapping[str, JSON]", position).values() if isinstance(position, dict) else [position]
    return "/".join(_end(value) for value in values)
