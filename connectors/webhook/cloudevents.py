"""CloudEvents 1.0 over HTTP: attributes in headers (binary), in the body (structured), many in one (batched).

Specification: cloudevents/spec, http-protocol-binding.md and formats/json-format.md, 1.0.2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import msgspec

from connectors.webhook.content import decode_body
from eventflow.cloudevents import DATA, Attributes, encoded_data, read_attributes
from eventflow.errors import Undecodable
from eventflow.event import JSON, decode_json

STRUCTURED = "application/cloudevents"
BATCHED = "application/cloudevents-batch"
BINARY = "ce-specversion"
"""The header that says that a request is an event in binary mode."""

_LEAP = re.compile(r"(T\d\d:\d\d):60")
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_MARKS = re.compile(rb'\\.|["\[\]{},]', re.DOTALL)
MAX_MEMBERS = 10_000
"""Events of one batch."""
_MAX_COMMAS = 1_000_000
"""In a batch. It bounds what is made of one before its members can be counted."""
_TAKEN_APART = 256 << 10
"""Bytes of the largest broken batch whose good events are looked for, which is slow."""


class TooManyMembers(Exception):
    """A batch of more than `MAX_MEMBERS` events, or of more bytes than are kept of one."""


def from_headers(headers: Mapping[str, str]) -> Attributes:
    """Of a request in binary mode; header names in lower case, values as latin-1. Raises `Undecodable`."""
    given: dict[str, JSON] = {
        name[3:]: _unescaped(name, value) for name, value in headers.items() if name.startswith("ce-")
    }
    given["datacontenttype"] = headers.get("content-type")
    return read_attributes(given, _time)


def from_body(raw: bytes) -> tuple[Attributes, JSON]:
    """Attributes and data of one event in JSON. Raises `Undecodable`."""
    value = decode_json(raw)
    if not isinstance(value, dict):
        raise Undecodable("a CloudEvent in JSON must be an object")
    members = cast("dict[str, Any]", value)
    given = {name: one for name, one in members.items() if name not in DATA}
    attributes = read_attributes(given, _time)
    return attributes, _data(members, attributes.datacontenttype)


def split(raw: bytes) -> Sequence[bytes]:
    """The events of a batch, each as its own bytes. One that is no JSON harms only itself.

    Raises `Undecodable` where it cannot be told where they begin and end, `TooManyMembers`.
    """
    if raw.count(b",") > _MAX_COMMAS:
        raise TooManyMembers
    try:
        members = _decode_array(raw)
        if len(members) > MAX_MEMBERS:
            raise TooManyMembers
        return [bytes(one) for one in members]
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
            if len(parts) >= MAX_MEMBERS:
                raise TooManyMembers  # one more stands behind the comma
    return None if depth or in_text else [*parts, text[begin:-1].strip()]


def _time(text: str) -> datetime:
    """In UTC; a leap second is the one after it."""
    try:
        written, leap = _LEAP.subn(r"\1:59", text.upper())
        moment = datetime.fromisoformat(written) + timedelta(seconds=leap)
        if moment.tzinfo is None:
            raise Undecodable("the CloudEvent's time has no offset")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Undecodable("the CloudEvent's time is no RFC 3339 time") from None


def _data(members: Mapping[str, JSON], content_type: str | None) -> JSON:
    raw = encoded_data(members)
    if raw is None:
        return members.get("data")
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
