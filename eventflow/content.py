"""Bytes as text: what the parameters of a media type say, and what counts as text at all."""

from __future__ import annotations

import base64
import re
from typing import Final

from eventflow.errors import Undecodable

NO_TEXT: Final = re.compile("[\x00\ud800-\udfff]")
"""A NUL or half a character: neither Postgres nor UTF-8 can hold it."""

_CHARSET: Final = re.compile(r""";\s*charset\s*=\s*["']?([^"';\s]*)""", re.IGNORECASE)
_CHARSETS: Final = {
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


def media_type(kind: str) -> str:
    """Without parameters, in lower case."""
    return kind.partition(";")[0].strip().lower()


def decode_plain(raw: bytes, kind: str) -> str:
    """What is no JSON: `text/*`, `*/xml` and `*/*+xml` as text, else base64 text. Raises `Undecodable`."""
    media = media_type(kind)
    if media.startswith("text/") or media.endswith(("/xml", "+xml")):
        found = _CHARSET.search(kind)
        return decode_text(raw, found[1].lower() if found else "utf-8")
    return base64_text(raw)


def decode_text(raw: bytes, named: str) -> str:
    """Text without NUL in one of the encodings of `_CHARSETS`. Raises `Undecodable`."""
    charset = _CHARSETS.get(named)
    if charset is None:
        raise Undecodable(f"charset {named[:40]!a} is not supported")
    try:
        text = raw.decode(charset)
    except UnicodeDecodeError as error:
        raise Undecodable(f"the text is not {named}, from byte {error.start} on") from error
    if "\x00" in text:
        raise Undecodable("the text holds a NUL character")
    return text


def base64_text(raw: bytes) -> str:
    """As RFC 4648, section 4, with padding."""
    return base64.b64encode(raw).decode("ascii")
