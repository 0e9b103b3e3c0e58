"""What the expressions of a block (`id`, `type`, `subject`, `time`) may give, as attributes of an event."""

from __future__ import annotations

from datetime import UTC, datetime

from eventflow.content import NO_TEXT
from eventflow.errors import Undecodable
from eventflow.event import JSON


def given_word(attribute: str, value: JSON) -> str:
    """An attribute that must be there, as text; whole numbers are fine as ids. Raises `Undecodable`."""
    word = given_optional_word(attribute, value)
    if not word:
        raise Undecodable(f"the expression for `{attribute}` gave {'empty text' if word == '' else 'null'}")
    return word


def given_optional_word(attribute: str, value: JSON) -> str | None:
    """An attribute that may be null. Raises `Undecodable`."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise Undecodable(f"the expression for `{attribute}` gave a {type(value).__name__}, not text")
    if NO_TEXT.search(value):
        raise Undecodable(f"the expression for `{attribute}` gave text with a NUL or half a character")
    return value


def given_time(value: JSON | datetime) -> datetime | None:
    """RFC 3339 text with an offset, or a CEL timestamp, in UTC. No time zone is guessed."""
    if value is None:
        return None
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise Undecodable("the expression for `time` gave a time without an offset")
        return moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise Undecodable("the expression for `time` gave no RFC 3339 time") from None
