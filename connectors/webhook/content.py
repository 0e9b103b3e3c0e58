"""A body as data, by its content type.

    application/json, */*+json, none     strict JSON; an empty body without a content type is null
    application/x-www-form-urlencoded    a map of text; a name given twice has a list. A body that begins with
                                         { or [ is read as JSON: curl sends this type when told nothing
    text/*, */xml, */*+xml               text
    anything else                        base64 text of the bytes

JSON is UTF-8 whatever `charset` says (RFC 8259, section 8.1).
"""

from __future__ import annotations

import base64
import re
from urllib.parse import parse_qsl

from eventflow.errors import Undecodable
from eventflow.event import JSON, decode_json

MAX_FIELDS = 1000
"""Fields of a form or query string."""

_CHARSET = re.compile(r""";\s*charset\s*=\s*["']?([^"';\s]*)""", re.IGNORECASE)

_CHARSETS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
    "latin1": "latin-1",
    "windows-1252": "cp1252",
    "utf-16": "utf-16",
}
"""The encodings of text. A list, because some of Python's codecs take quadratic time and some are none."""


def decode_body(body: bytes, content_type: str | None) -> JSON:
    """The data in `body`. Raises `Undecodable`."""
    if content_type == "application/json":  # nearly every request
        return decode_json(body)
    if content_type is None:
        return decode_json(body) if body else None
    kind = content_type.partition(";")[0].strip().lower()
    if kind.endswith(("/json", "+json")):
        return decode_json(body)
    if kind == "application/x-www-form-urlencoded":
        return decode_json(body) if body.lstrip()[:1] in (b"{", b"[") else _form(body)
    if kind.startswith("text/") or kind.endswith(("/xml", "+xml")):
        return _text(body, content_type)
    return base64.b64encode(body).decode("ascii")


def parse_fields(text: str, errors: str = "replace") -> dict[str, str | list[str]]:
    """Fields of a form or query string.

    Raises ValueError for more than `MAX_FIELDS`, and UnicodeDecodeError where `errors` is strict.
    """
    fields: dict[str, str | list[str]] = {}
    for name, value in parse_qsl(text, keep_blank_values=True, errors=errors, max_num_fields=MAX_FIELDS):
        held = fields.get(name)
        if held is None:
            fields[name] = value
        elif isinstance(held, list):
            held.append(value)
        else:
            fields[name] = [held, value]
    return fields


def _form(body: bytes) -> JSON:
    try:
        fields = parse_fields(body.decode("utf-8"), errors="strict")
    except UnicodeDecodeError as error:
        raise Undecodable("the form is not UTF-8") from error
    except ValueError as error:
        raise Undecodable(f"the form has more than {MAX_FIELDS} fields") from error
    if b"%00" in body or b"\x00" in body:
        raise Undecodable("the form holds a NUL character")
    return fields


def _text(body: bytes, content_type: str) -> str:
    found = _CHARSET.search(content_type)
    named = found[1].lower() if found else "utf-8"
    charset = _CHARSETS.get(named)
    if charset is None:
        raise Undecodable(f"charset {named[:40]!r} is not supported")
    try:
        text = body.decode(charset)
    except UnicodeDecodeError as error:
        raise Undecodable(f"the text is not {named}") from error
    if "\x00" in text:
        raise Undecodable("the text holds a NUL character")
    return text
