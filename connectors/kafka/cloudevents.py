"""CloudEvents in Kafka records: structured mode (the value is the event) and binary mode (`ce_` headers).

Specification: CloudEvents 1.0.2, its JSON event format and its Kafka protocol binding. That binding has no
batches. What the sender did not set is as for any record; nothing is added to what it did set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

from connectors.kafka.formats import (
    Content,
    content_type,
    decode_by_type,
    decode_value,
    is_json,
)
from eventflow.cloudevents import DATA, encoded_data, read_attributes
from eventflow.content import base64_text, media_type
from eventflow.errors import Undecodable
from eventflow.event import JSON

_PREFIX: Final = "ce_"
_FAMILY: Final = "application/cloudevents"
_STRUCTURED: Final = "application/cloudevents+json"
_OPTIONAL_TEXT: Final = ("subject", "datacontenttype", "dataschema")
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
    return _content({name: held for name, held in attributes.items() if name not in DATA}, data)


def _data_of(attributes: Attributes) -> JSON:
    """JSON format, section 3.1.2: `data` as it stands there, `data_base64` as its bytes read."""
    raw = encoded_data(attributes)
    if raw is None:
        return attributes.get("data")
    kind = attributes.get("datacontenttype")
    if not isinstance(kind, str) or not kind:
        return base64_text(raw)  # nothing says what the bytes are
    return decode_by_type(raw, kind) if raw or not is_json(kind) else None


def _content(attributes: Attributes, data: JSON) -> Content:
    given = read_attributes(attributes, _time)
    for name in _OPTIONAL_TEXT:
        if attributes.get(name) == "":
            raise Undecodable(f"the CloudEvent's {name} is empty text")
    return Content(
        data,
        type=given.type,
        subject=given.subject,
        time=given.time,
        sender=given.source,
        datacontenttype=given.datacontenttype,
        dataschema=given.dataschema,
        extensions=given.extensions,
        sent={name: value for name, value in attributes.items() if value is not None},  # null: not set
        meta={"sender_id": given.id},
    )


def _time(text: str) -> datetime:
    """RFC 3339, in UTC; a leap second is the one after it."""
    found = _RFC_3339.fullmatch(text)
    if found is None:
        raise Undecodable("the CloudEvent's time is no RFC 3339 time with an offset")
    written = text.upper()
    leap = found["second"] == "60"
    if leap:
        at = found.start("second")
        written = f"{written[:at]}59{written[at + 2 :]}"
    try:
        moment = datetime.fromisoformat(written).astimezone(UTC)
        return datetime.fromtimestamp(moment.timestamp() // 1 + 1, UTC) if leap else moment
    except (ValueError, OverflowError, OSError):
        raise Undecodable("the CloudEvent's time is no time there is") from None
