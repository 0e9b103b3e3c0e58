"""A body as data, by its content type.

    application/json, */*+json, none     strict JSON; an empty body without a content type is null
    application/x-www-form-urlencoded    a map of text; a name given twice has a list. A body that begins with
                                         { or [ is read as JSON: curl sends this type when told nothing
    text/*, */xml, */*+xml               text
    anything else                        base64 text of the bytes

JSON is UTF-8 whatever `charset` says (RFC 8259, section 8.1).
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from eventflow.content import decode_plain, media_type
from eventflow.errors import Undecodable
from eventflow.event import JSON, decode_json

MAX_FIELDS = 1000
"""Fields of a form or query string."""


def decode_body(body: bytes, content_type: str | None) -> JSON:
    """The data in `body`. Raises `Undecodable`."""
    if content_type == "application/json":  # nearly every request
        return decode_json(body)
    if content_type is None:
        return decode_json(body) if body else None
    kind = media_type(content_type)
    if kind.endswith(("/json", "+json")):
        return decode_json(body)
    if kind == "application/x-www-form-urlencoded":
        return decode_json(body) if body.lstrip()[:1] in (b"{", b"[") else _form(body)
    return decode_plain(body, content_type)


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
