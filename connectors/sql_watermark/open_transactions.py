"""Waiting until no transaction is open that may still commit a value below the one that was read.

Values are given out in order and committed in any: `nextval` and `now()` belong to the transaction that
asks, and whoever asked first may commit last. But it was open when the higher value was read. So: read the
highest value, *then* list every open transaction of the database, and wait until none of the list is open.
Whatever it wrote is seen by a statement that begins after that; what begins later gets higher values.

A transaction holds its virtual id from its first statement until its commit can be seen (xact.c,
CommitTransaction: ProcArrayEndTransaction comes before the locks go), and pg_locks shows it to every role.
PREPARE TRANSACTION ends the session's hold and goes on under a name in pg_prepared_xacts; therefore locks
are read first and names second, and whatever has a name when a listed transaction vanishes is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, LiteralString, Protocol

FIRST_PAUSE_SECONDS: Final = 0.01
LONGEST_PAUSE_SECONDS: Final = 0.25
SAID_AFTER_SECONDS: Final = 0.5


class Asks(Protocol):
    """What runs a statement in a transaction of its own."""

    async def rows(self, query: LiteralString, values: dict[str, Any], /) -> list[dict[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Open:
    """An open transaction. `since` is None where our role may not know."""

    id: str
    who: str
    since: datetime | None


SESSIONS: Final[LiteralString] = """
SELECT l.virtualtransaction AS id, 'process ' || l.pid AS who, a.xact_start AS since
FROM pg_locks AS l
LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
LEFT JOIN pg_database AS d ON d.oid = a.datid
WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.pid <> pg_backend_pid()
    AND (d.datname IS NULL OR d.datname = current_database())
    AND NOT (a.datid IS NOT NULL AND a.usesysid IS NULL)
"""


async def sessions(asks: Asks) -> dict[str, Open]:
    """Open transactions of sessions of this database, or of nobody knows which, by virtual id.

    Without autovacuum, which adds no rows and takes its time. What works in the database for no user is one
    of its workers, as every role may see, or is still logging in: that has got no value yet.
    """
    return {row["id"]: Open(**row) for row in await asks.rows(SESSIONS, {})}


PREPARED: Final[LiteralString] = """
SELECT transaction::text AS id, 'the prepared transaction ' || quote_literal(gid) AS who, prepared AS since
FROM pg_prepared_xacts
WHERE database = current_database()
"""


async def prepared(asks: Asks) -> dict[str, Open]:
    """Prepared transactions of this database, by transaction id."""
    return {row["id"]: Open(**row) for row in await asks.rows(PREPARED, {})}


async def any_open(asks: Asks) -> bool:
    """Whether a transaction is open now, in a session or prepared."""
    return bool(await sessions(asks)) or bool(await prepared(asks))


async def wait_for_open(asks: Asks, say: Callable[[str | None], None]) -> None:
    """Return once every transaction that is open now has ended. Holds none open itself.

    `say` hears whom it waits for once that takes half a second, and None when it is over, however it ends.
    """
    try:
        await _wait_for_open(asks, say)
    finally:
        say(None)


async def _wait_for_open(asks: Asks, say: Callable[[str | None], None]) -> None:
    held, named = await sessions(asks), await prepared(asks)
    loop = asyncio.get_running_loop()
    begun, asked, pause = datetime.now(UTC), loop.time(), FIRST_PAUSE_SECONDS
    while held or named:
        if loop.time() - asked > SAID_AFTER_SECONDS:
            say(_sentence([*held.values(), *named.values()], begun))
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        now_held, now_named = await sessions(asks), await prepared(asks)
        if not held.keys() <= now_held.keys():
            named |= now_named
        held = {id_: one for id_, one in held.items() if id_ in now_held}
        named = {id_: one for id_, one in named.items() if id_ in now_named}


def _sentence(waited_for: list[Open], begun: datetime) -> str:
    """`begun` stands in where the beginning is hidden from us: it is at least that old."""
    oldest = min(waited_for, key=lambda one: one.since or begun)
    since = (oldest.since or begun).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    more = f" and {len(waited_for) - 1} more" if len(waited_for) > 1 else ""
    return f"waits for {oldest.who}{more}, in a transaction since {since}, which may commit a lower value"
