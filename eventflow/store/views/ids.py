"""How a person names one row among many: its id, or as much of its beginning or its end as only it has.

Ids are UUIDs of version 7: their beginning is a time, which neighbours share; their end is random.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from eventflow.errors import UsageError
from eventflow.store.pool import Row

SHOWN: Final = 5
"""How many of several are named. A statement asks for one more, to know whether there are more."""

_NO_ID: Final = UUID(int=0)

Span = tuple[UUID, UUID, str | None]
"""The lowest and highest id that a name may begin, and a LIKE pattern of those that it may end.

The pattern is for ids without their dashes, and None where the name is a whole id or none at all.
"""


class UnknownName(UsageError):
    """Nothing has this name."""


def span(name: str) -> Span:
    """What ids begin or end with `name`; without four hexadecimal digits, none but the zero one."""
    digits = name.replace("-", "").lower()
    if not 4 <= len(digits) <= 32 or not set(digits) <= set("0123456789abcdef"):
        return _NO_ID, _NO_ID, None
    ending = f"%{digits}" if len(digits) < 32 else None
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f")), ending


def only(found: Sequence[Row], name: str, *, what: str, listing: str) -> UUID:
    """The `id` of the one row that was found. Raises `UsageError` for none, or several."""
    if len(found) == 1:
        return found[0]["id"]
    if not found:
        raise UnknownName(
            f"no {what} {name!r}: give its id, or the beginning or end of it; `{listing}` lists them"
        )
    some = ", ".join(str(row["id"]) for row in found[:SHOWN])
    more = ", ..." if len(found) > SHOWN else ""
    raise UsageError(
        f"{name!r} begins or ends the ids of more than one {what}: {some}{more}; give more of it, or its end"
    )
