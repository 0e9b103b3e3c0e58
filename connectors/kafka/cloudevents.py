"""CloudEvents in Kafka records: structured mode (the value is the event) and binary mode (`ce_` headers).

Specification: CloudEvents 1.0.2, its JSON event format and its Kafka protocol binding. That binding has no
batches. What the sender did not set is as for any record; nothing is added to what it did set.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

from connectors.kafka.formats import (
    Content,
    content_type,
    decode_by_type,
    decode_value,
    is_json,
    media_type,
)
from eventflow.errors import Undecodable
from eventflow.event import JSON

_PREFIX: Final = "ce_"
_FAMILY: Final = "application/cloudevents"
_STRUCTURED: Final = "application/cloudevents+json"
_CORE: Final = frozenset(
    {"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"}
)
_REQUIRED: Final = ("id", "source", "type")
_OPTIONAL_TEXT: Final = ("subject", "datacontenttype", "dataschema")
_NAME: Final = re.compile(r"[a-z0-9]+")
_RFC_3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt](?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)"
)

Attributes = dict[str, Any]


def read_cloudevent(raw: bytes, headers: Mapping[str, JSON]) -> Content:
    """The CloudEvent of a record that has a value. Raises `Undecodable`."""
    kind = content_type(headers)
    if kind is not None and kind.lower().startswith(_FAMILY):
        if media_type(kind) != _STRUCTURED:
            raise Undecodable(
                f"the event format {media_type(kind)[:80]!a} is not supported: only {_STRUCTURED}"
            )
        return _structured(raw)
    attributes = _from_headers(headers)
    if not attributes:
        return _structured(raw)  # the content type of a structured event is optional
    if kind is not None:
        attributes["datacontenttype"] = kind
    kind = attributes.get("datacontenttype")
    # SDKs write no data as no bytes, too.
    return _content(attributes, decode_by_type(raw, kind) if raw else None)


def read_without_value(headers: Mapping[str, JSON]) -> Content:
    """A record without a value: a binary CloudEvent without data, or no CloudEvent at all: a tombstone."""
    attributes = _from_headers(headers)
    if not attributes:
        return Content(None, vague=True)
    if (kind := content_type(headers)) is not None:
        attributes["datacontenttype"] = kind
    return _content(attributes, None)


def _from_headers(headers: Mapping[str, JSON]) -> Attributes:
    return {name.lower()[len(_PREFIX) :]: _header_text(name, value) for name, value in headers.items()
            if name.lower().startswith(_PREFIX)}  # fmt: skip


def _header_text(name: str, value: JSON) -> str | None:
    """Headers of a CloudEvent are UTF-8 text and come once (section 3.2.3)."""
    if value is None or isinstance(value, str):
        return value
    what = "comes twice" if isinstance(value, list) else "is no text"
    raise Undecodable(f"the CloudEvents header {name[:80]!a} {what}")


def _structured(raw: bytes) -> Content:
    value = decode_value(raw)
    if not isinstance(value, dict):
        batch = isinstance(value, list) and "; Kafka's binding knows no batches"
        raise Undecodable(f"no CloudEvent: neither `ce_` headers nor a JSON object{batch or ''}")
    attributes = cast("Attributes", value)
    if "specversion" not in attributes:
        raise Undecodable("no CloudEvent: neither `ce_` headers nor a `specversion` in the value")
    data = _data_of(attributes)
    return _content(
        {name: held for name, held in attributes.items() if name not in ("data", "data_base64")}, data
    )


def _data_of(attributes: Attributes) -> JSON:
    """JSON format, section 3.1.2: `data` as it stands there, `data_base64` as its bytes read."""
    encoded = attributes.get("data_base64")
    if encoded is None:
        return attributes.get("data")
    if attributes.get("data") is not None:
        raise Undecodable("no CloudEvent: it has both `data` and `data_base64`")
    kind = attributes.get("datacontenttype")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError) as error:
        raise Undecodable("no CloudEvent: `data_base64` is no base64 text") from error
    if not isinstance(kind, str) or not kind:
        return base64.b64encode(raw).decode("ascii")  # nothing says what the bytes are
    return decode_by_type(raw, kind) if raw or not is_json(kind) else None


def _content(attributes: Attributes, data: JSON) -> Content:
    sent = {name: value for name, value in attributes.items() if value is not None}  # null: not set
    if sent.get("specversion") != "1.0":
        found = str(sent.get("specversion"))[:20]
        raise Undecodable(f"no CloudEvent of version 1.0: `specversion` is {found!a}")
    for name in _REQUIRED:
        if not isinstance(sent.get(name), str) or not sent[name]:
            raise Undecodable(f"no CloudEvent: `{name}` is {'missing' if name not in sent else 'no text'}")
    for name in _OPTIONAL_TEXT:
        if name in sent and (not isinstance(sent[name], str) or not sent[name]):
            raise Undecodable(f"no CloudEvent: `{name}` is no text")
    return Content(
        data,
        type=sent["type"],
        subject=sent.get("subject"),
        time=_time(sent["time"]) if "time" in sent else None,
        sender=sent["source"],
        datacontenttype=sent.get("datacontenttype"),
        dataschema=sent.get("dataschema"),
        extensions=dict(_extensions(sent)),
        sent=sent,
        meta={"sender_id": sent["id"]},
    )


def _extensions(sent: Attributes) -> Iterator[tuple[str, str | int | bool]]:
    for name, value in sent.items():
        if name in _CORE:
            continue
        if not _NAME.fullmatch(name) or name == "data":
            raise Undecodable(f"no CloudEvent: {name[:40]!a} is no name of an attribute")
        if not isinstance(value, str | int):
            raise Undecodable(
                f"no CloudEvent: the attribute `{name}` is neither text, nor a whole number, nor a flag"
            )
        yield name, value


def _time(text: Any) -> datetime:
    """RFC 3339, in UTC; a leap second is the one after it."""
    found = _RFC_3339.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise Undecodable("no CloudEvent: `time` is no RFC 3339 time with an offset")
    written = cast(str, text).upper()
    leap = found["second"] == "60"
    if leap:
        at = found.start("second")
        written = f"{written[:at]}59{written[at + 2 :]}"
    try:
        moment = datetime.fromisoformat(written).astimezone(UTC)
        return datetime.fromtimestamp(moment.timestamp() // 1 + 1, UTC) if leap else moment
    except (ValueError, OverflowError, OSError):
        raise Undecodable("no CloudEvent: `time` is no time there is") from None
