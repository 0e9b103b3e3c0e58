"""Values of secrets in what is kept of an attempt: they are covered before anybody else sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from eventflow.event import JSON

COVER: Final = "***"


def cover(text: str, hidden: Sequence[str]) -> str:
    """`text` without the values in `hidden`; a longer one goes first, it may have another in it."""
    for value in sorted(filter(None, hidden), key=len, reverse=True):
        text = text.replace(value, COVER)
    return text


def cover_bytes(content: bytes, hidden: Sequence[str]) -> bytes:
    """The same for a piece of output, in UTF-8."""
    for value in sorted(filter(None, hidden), key=len, reverse=True):
        content = content.replace(value.encode("utf-8", "replace"), COVER.encode())
    return content


def cover_json(value: JSON, hidden: Sequence[str]) -> JSON:
    """The same for every text of a JSON value, keys included."""
    if isinstance(value, str):
        return cover(value, hidden)
    if isinstance(value, list):
        return [cover_json(item, hidden) for item in cast(list[Any], value)]
    if isinstance(value, dict):
        pairs = cast(dict[str, Any], value).items()
        return {cover(key, hidden): cover_json(item, hidden) for key, item in pairs}
    return value
