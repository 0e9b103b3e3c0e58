"""The attributes and encoded data of a CloudEvent, checked. Where they stand in a message, each binding says.

Specification: CloudEvents 1.0.2 and its JSON event format.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import msgspec

from eventflow.content import NO_TEXT
from eventflow.errors import Undecodable
from eventflow.event import JSON

DATA: Final = ("data", "data_base64")
"""The members of an event in JSON that are no attributes."""

_CORE: Final = ("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema")
_EXTENSION: Final = re.compile(r"[a-z0-9]+")


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


def read_attributes(given: Mapping[str, JSON], time: Callable[[str], datetime]) -> Attributes:
    """Checked; what is null counts as absent, `time` reads the one of that name. Raises `Undecodable`."""
    texts: dict[str, str | None] = {}
    for name in _CORE:
        value = given.get(name)
        if value is not None and (not isinstance(value, str) or NO_TEXT.search(value)):
            raise Undecodable(f"the CloudEvent's {name} is no text")
        texts[name] = value
    if texts["specversion"] != "1.0":
        raise Undecodable(
            f"the CloudEvent's specversion {str(texts['specversion'])[:20]!a} is not supported, only '1.0'"
        )
    return Attributes(
        id=_required(texts, "id"),
        source=_required(texts, "source"),
        type=_required(texts, "type"),
        subject=texts["subject"],
        time=None if texts["time"] is None else time(texts["time"]),
        datacontenttype=texts["datacontenttype"],
        dataschema=texts["dataschema"],
        extensions=_extensions(given),
    )


def _required(texts: Mapping[str, str | None], name: str) -> str:
    value = texts[name]
    if not value:
        raise Undecodable(f"the CloudEvent has no {name}")
    return value


def _extensions(given: Mapping[str, JSON]) -> Mapping[str, str | int | bool]:
    extensions: dict[str, str | int | bool] = {}
    for name, value in given.items():
        if name in _CORE or value is None:
            continue
        if name == "data" or not _EXTENSION.fullmatch(name):
            raise Undecodable(f"the CloudEvent has an attribute {name[:40]!a}: only a-z and 0-9 are allowed")
        if not isinstance(value, str | int) or (isinstance(value, str) and NO_TEXT.search(value)):
            raise Undecodable(f"the CloudEvent's extension {name[:40]} is no text, integer or boolean")
        extensions[name] = value
    return extensions


def encoded_data(members: Mapping[str, JSON]) -> bytes | None:
    """The bytes in `data_base64` (JSON format, section 3.1.2); None where there are none: `data` is it then.

    Raises `Undecodable`.
    """
    encoded = members.get("data_base64")
    if encoded is None:
        return None
    if members.get("data") is not None:
        raise Undecodable("the CloudEvent has both data and data_base64")
    try:
        return base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError):
        raise Undecodable("the CloudEvent's data_base64 is no base64") from None
