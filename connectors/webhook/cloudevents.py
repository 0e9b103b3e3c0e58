"""CloudEvents 1.0 over HTTP: attributes in headers (binary), in the body (structured), many in one (batched).

Specification: cloudevents/spec, http-protocol-binding.md and formats/json-format.md, 1.0.2.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import msgspec

from connectors.webhook.content import decode_body
from eventflow.errors import Undecodable
from eventflow.event import JSON, decode_json

STRUCTURED = "application/cloudevents"
BATCHED = "application/cloudevents-batch"
BINARY = "ce-specversion"
"""The header that says that a request is an event in binary mode."""

_KNOWN = frozenset(
    {"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"}
)
_EXTENSION = re.compile(r"[a-z0-9]+")
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")
_LEAP = re.compile(r"(T\d\d:\d\d):60")
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_MARKS = re.compile(rb'\\.|["\[\]{},]', re.DOTALL)
_TAKEN_APART = 256 << 10
"""Bytes of the largest broken batch whose good events are looked for, which is slow."""


class Attributes(msgspec.Struct, frozen=True, gc=False):
    """The attributes that a sender gave."""

    id: str
    source: str
    type: str
    subject: str | None
    time: datetime | None
    datacontenttype: str | None
    dataschema: str | None
    extensions: Mapping[str, str | int | bool]


def from_headers(headers: Mapping[str, str]) -> Attributes:
    """Of a request in binary mode; header names in lower case, values as latin-1. Raises `Undecodable`."""
    given: dict[str, JSON] = {
        name[3:]: _unescaped(name, value) for name, value in headers.items() if name.startswith("ce-")
    }
    given["datacontenttype"] = headers.get("content-type")
    return _attributes(given)


def from_body(raw: bytes) -> tuple[Attributes, JSON]:
    """Attributes and data of one event in JSON. Raises `Undecodable`."""
    value = decode_json(raw)
    if not isinstance(value, dict):
        raise Undecodable("a CloudEvent in JSON must be an object")
    members = cast("dict[str, Any]", value)
    given = {name: one for name, one in members.items() if name not in ("data", "data_base64")}
    attributes = _attributes(given)
    return attributes, _data(members, attributes.datacontenttype)


def split(raw: bytes) -> Sequence[bytes]:
    """The events of a batch, each as its own bytes. One that is no JSON harms only itself.

    Raises `Undecodable` where it cannot be told where they begin and end.
    """
    try:
        return [bytes(one) for one in _decode_array(raw)]
    except (ValueError, RecursionError):
        parts = _take_apart(raw) if len(raw) <= _TAKEN_APART else None
    if parts is None:
        decode_json(raw)  # says what is wrong, and where
        raise Undecodable("a batch of CloudEvents must be an array")
    return parts


_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


def _take_apart(raw: bytes) -> list[bytes] | None:
    """Members of an array whose brackets match, whatever stands between them; None where they do not."""
    text = raw.strip(b" \t\r\n")
    if text[:1] != b"[" or text[-1:] != b"]":
        return None
    parts, depth, begin, in_text = list[bytes](), 0, 1, False
    for found in _MARKS.finditer(text):
        mark = found[0]
        if mark == b'"':
            in_text = not in_text
        elif in_text or mark[:1] == b"\\":
            continue
        elif mark in b"[{":
            depth += 1
        elif mark in b"]}":
            depth -= 1
            if depth <= 0 and found.end() != len(text):
                return None
        elif depth == 1:
            parts.append(text[begin : found.start()].strip())
            begin = found.end()
    return None if depth or in_text else [*parts, text[begin:-1].strip()]


def _attributes(given: Mapping[str, JSON]) -> Attributes:
    """Checked. What is null counts as absent."""
    texts: dict[str, str | None] = {}
    for name in _KNOWN:
        value = given.get(name)
        if value is not None and (not isinstance(value, str) or _NO_TEXT.search(value)):
            raise Undecodable(f"the CloudEvent's {name} is no text")
        texts[name] = value
    if texts["specversion"] != "1.0":
        raise Undecodable(
            f"CloudEvents version {str(texts['specversion'])[:20]!r} is not supported, only '1.0'"
        )
    return Attributes(
        id=_required(texts, "id"),
        source=_required(texts, "source"),
        type=_required(texts, "type"),
        subject=texts["subject"],
        time=_time(texts["time"]),
        datacontenttype=texts["datacontenttype"],
        dataschema=texts["dataschema"],
        extensions=_extensions(given),
    )


def _required(texts: Mapping[str, str | None], name: str) -> str:
    value = texts[name]
    if not value:
        raise Undecodable(f"the CloudEvent has no {name}")
    return value


def _time(text: str | None) -> datetime | None:
    """In UTC; a leap second is the one after it."""
    if text is None:
        return None
    try:
        written, leap = _LEAP.subn(r"\1:59", text.upper())
        moment = datetime.fromisoformat(written) + timedelta(seconds=leap)
        if moment.tzinfo is None:
            raise Undecodable("the CloudEvent's time has no offset")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Undecodable("the CloudEvent's time is no RFC 3339 time") from None


def _extensions(given: Mapping[str, JSON]) -> Mapping[str, str | int | bool]:
    extensions: dict[str, str | int | bool] = {}
    for name, value in given.items():
        if name in _KNOWN or value is None:
            continue
        if name == "data" or not _EXTENSION.fullmatch(name):
            raise Undecodable(f"the CloudEvent has an attribute {name[:40]!r}: only a-z and 0-9 are allowed")
        if not isinstance(value, str | int) or (isinstance(value, str) and _NO_TEXT.search(value)):
            raise Undecodable(f"the CloudEvent's extension {name[:40]} is no text, integer or boolean")
        extensions[name] = value
    return extensions


def _data(members: Mapping[str, JSON], content_type: str | None) -> JSON:
    encoded = members.get("data_base64")
    if encoded is None:
        return members.get("data")
    if members.get("data") is not None:
        raise Undecodable("the CloudEvent has both data and data_base64")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise Undecodable("the CloudEvent's data_base64 is no base64") from None
    return decode_body(raw, content_type or "application/octet-stream") if raw else None


def _unescaped(name: str, value: str) -> str:
    """Quotes first, then one round of percent-decoding (section 3.1.3.2)."""
    raw = value.encode("latin-1")
    if len(raw) > 1 and raw.startswith(b'"') and raw.endswith(b'"'):
        raw = _ESCAPED.sub(rb"\1", raw[1:-1])
    try:
        return unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise Undecodable(f"the header {name[:40]} is not UTF-8") from None
