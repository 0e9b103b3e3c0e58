"""A record's value as data, and what else its format says: JSON, text, bytes.

The other two formats have a page each: cloudevents.py and debezium.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from eventflow.content import base64_text, decode_plain, decode_text, media_type
from eventflow.errors import Undecodable
from eventflow.event import JSON, decode_json

CONTENT_TYPE: Final = "content-type"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EXACT: Final = 1 << 42
"""Below this (the year 2109) milliseconds as seconds in a double are exact to the microsecond, and faster."""


class Content(msgspec.Struct, frozen=True, gc=False):
    """What a format makes of a value. What is None is as for any record: see record.py.

    `sent` are the CloudEvents attributes as the sender wrote them, for expressions; `meta` is what goes
    into the event's meta besides the facts of every record. `vague`: there is no value, or none of the kind
    that expressions were written for, so one that fails on it falls back to the default.
    """

    data: JSON
    type: str | None = None
    subject: str | None = None
    time: datetime | None = None
    sender: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    extensions: Mapping[str, str | int | bool] = {}
    sent: Mapping[str, JSON] = {}
    meta: Mapping[str, JSON] = {}
    vague: bool = False


Read = Callable[[bytes, Mapping[str, JSON]], Content]
"""Of a value that is there (no tombstone) and the headers as they stand in meta. Raises `Undecodable`."""


def read_json(raw: bytes, headers: Mapping[str, JSON]) -> Content:
    """Strict JSON; the header `content-type` is the event's datacontenttype."""
    return Content(decode_value(raw), datacontenttype=content_type(headers) if headers else None)


def read_text(raw: bytes, headers: Mapping[str, JSON]) -> Content:
    """UTF-8 without NUL."""
    return Content(decode_text(raw, "utf-8"), datacontenttype=content_type(headers))


def read_bytes(raw: bytes, headers: Mapping[str, JSON]) -> Content:
    """Base64 text of the bytes."""
    return Content(base64_text(raw), datacontenttype=content_type(headers))


def decode_value(raw: bytes) -> JSON:
    """Strict JSON. Raises `Undecodable`, with a hint where a schema registry's serializer wrote the value."""
    try:
        return decode_json(raw)
    except Undecodable:
        if len(raw) > 5 and raw[0] == 0:
            schema = int.from_bytes(raw[1:5], "big")
            raise Undecodable(
                f"begins with a zero byte and then {schema}, as a schema registry's serializer writes it "
                f"(schema id {schema}): registries are not supported"
            ) from None
        raise


def decode_by_type(raw: bytes, kind: str | None) -> JSON:
    """Data as its media type says: JSON (none said, too), text, else base64 text. Raises `Undecodable`."""
    if is_json(kind):
        return decode_value(raw)
    assert kind is not None
    return decode_plain(raw, kind)


def moment(milliseconds: int | None) -> datetime | None:
    """An instant in milliseconds since 1970; None for none, and for what no calendar of ours holds."""
    if milliseconds is None or milliseconds < 0:
        return None  # producers write -1 for "no timestamp"
    if milliseconds < _EXACT:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None


def is_json(kind: str | None) -> bool:
    """Whether a media type is JSON's: `*/json`, `*/*+json`, or none at all."""
    return kind is None or kind == "application/json" or media_type(kind).endswith(("/json", "+json"))


def content_type(headers: Mapping[str, JSON]) -> str | None:
    """The header `content-type`, whatever its case; of two the first. None where it is no text."""
    value = headers.get(CONTENT_TYPE)
    if value is None:
        value = next((held for name, held in headers.items() if name.lower() == CONTENT_TYPE), None)
    if isinstance(value, list):
        value = value[0]  # pyright: ignore[reportUnknownVariableType]
    return value if isinstance(value, str) and value else None
