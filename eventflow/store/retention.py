"""What is older than the retention goes: events by whole days, runs and firings by rows.

Never what a dead letter that is still open, a held firing or an unfinished run needs: a day that holds such
an event stays whole until it no longer does. Dead letters themselves stay.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Final, LiteralString, cast
from uuid import UUID

from eventflow.store.failures import is_lock_timeout
from eventflow.store.pool import Connection

EXPIRED_DAYS: Final[LiteralString] = """
SELECT c.relname, i.inhdetachpending AS half_detached
FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'event'::regclass AND c.relname < 'event_' || to_char($1::date, 'YYYYMMDD')
ORDER BY c.relname
"""

EMPTY_DAY: Final[LiteralString] = """
DO $$
DECLARE
    name   text := current_setting('eventflow.day');
    needed boolean;
BEGIN
    EXECUTE format('LOCK TABLE %I IN SHARE MODE', name);
    EXECUTE format('SELECT EXISTS (
        SELECT FROM %1$I AS e JOIN dead_letter AS d ON d.event_uid = e.uid WHERE d.state = ''open''
        UNION ALL SELECT FROM %1$I AS e JOIN firing AS f ON f.event_uid = e.uid WHERE f.state = ''held''
        UNION ALL SELECT FROM %1$I AS e JOIN run AS r ON r.event_uid = e.uid WHERE r.state = ''running''
    )', name)
    INTO needed;
    PERFORM set_config('eventflow.emptied', (NOT needed)::text, true);
    IF NOT needed THEN
        EXECUTE format('UPDATE source_partition AS p SET retired = p.retired + gone.n
            FROM (SELECT source, partition, count(*) AS n FROM %I GROUP BY 1, 2) AS gone
            WHERE p.source = gone.source AND p.partition = gone.partition', name);
        EXECUTE format('TRUNCATE %I', name);
    END IF;
END
$$
"""

NAME_DAY: Final[LiteralString] = """
SELECT set_config('eventflow.day', $1, true), set_config('lock_timeout', $2, true)
"""
LOCK_TIMEOUT: Final = "1s"
"""Everybody who looks an event up waits behind whoever waits to empty a day."""

EMPTIED: Final[LiteralString] = "SELECT current_setting('eventflow.emptied')::boolean"


async def expire_days(conn: Connection, before: date) -> list[str]:
    """Drop the event partitions of days before `before` that nothing needs any more; their names.

    Counted as retired in the transaction that empties them, so that `audit` still adds up; then detached
    concurrently, which no transaction may hold. A crash in between leaves an empty partition for next time,
    and so stays for next time a day that somebody reads in a long transaction.
    """
    dropped: list[str] = []
    for day in await conn.fetch(EXPIRED_DAYS, before):
        name: str = day["relname"]
        if not day["half_detached"] and not await _empty(conn, name):
            continue
        await _drop(conn, name, half_detached=day["half_detached"])
        dropped.append(name)
    return dropped


async def _empty(conn: Connection, name: str) -> bool:
    """False where something still needs it, or somebody is at it."""
    try:
        async with conn.transaction():
            await conn.execute(NAME_DAY, name, LOCK_TIMEOUT)
            await conn.execute(EMPTY_DAY)
            return bool(await conn.fetchval(EMPTIED))
    except Exception as error:
        if not is_lock_timeout(error):
            raise
        return False


SPELL_DROP: Final[LiteralString] = """
SELECT format('ALTER TABLE event DETACH PARTITION %I ', $1::text)
           || CASE WHEN $2 THEN 'FINALIZE' ELSE 'CONCURRENTLY' END,
       format('DROP TABLE %I', $1::text)
"""


async def _drop(conn: Connection, name: str, *, half_detached: bool) -> None:
    # DDL takes no parameters; the server quotes the name.
    row = await conn.fetchrow(SPELL_DROP, name, half_detached)
    assert row is not None
    for statement in row.values():
        await conn.execute(cast(LiteralString, statement))


EXPIRE_RUNS: Final[LiteralString] = """
WITH gone AS (
    DELETE FROM run
    WHERE id = ANY(ARRAY(
        SELECT id FROM run
        WHERE created < $1 AND ended < $1
          AND id NOT IN (SELECT run_id FROM dead_letter WHERE state = 'open' AND run_id IS NOT NULL)
        ORDER BY created LIMIT 5000
    ))
    RETURNING firing_id
), firings AS (
    DELETE FROM firing WHERE id IN (SELECT firing_id FROM gone)
)
SELECT count(*) FROM gone
"""


async def expire_runs(conn: Connection, before: datetime) -> None:
    """Delete the runs that ended before `before`, with their firings, task runs and logs; in portions.

    One with an open dead letter stays: replays and retries start from it.
    """
    while await conn.fetchval(EXPIRE_RUNS, before):
        pass


EXPIRE_FIRINGS: Final[LiteralString] = """
DELETE FROM firing WHERE id = ANY(ARRAY(
    SELECT id FROM firing
    WHERE event_uid < $2 AND at < $1 AND run_id IS NULL AND state <> 'held'
    LIMIT 5000
))
"""


async def expire_firings(conn: Connection, before: datetime) -> None:
    """Delete the firings before `before` that started no run; in portions.

    The uid of an event begins with its time: no other index knows which firings are old.
    """
    first_kept = UUID(int=int(before.timestamp() * 1000) << 80)
    while await conn.execute(EXPIRE_FIRINGS, before, first_kept) != "DELETE 0":
        pass


EXPIRE_KEYS: Final[LiteralString] = """
DELETE FROM dedupe WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM dedupe WHERE expires < clock_timestamp()
    ORDER BY expires LIMIT 20000 FOR UPDATE SKIP LOCKED
))
"""


async def expire_keys(conn: Connection) -> None:
    """Forget the dedupe keys whose time is over; in portions."""
    while await conn.execute(EXPIRE_KEYS) != "DELETE 0":
        pass


DATABASE_TIME: Final[LiteralString] = "SELECT clock_timestamp()"


async def cutoff(conn: Connection, retention: timedelta) -> datetime:
    """What is older than this, by the database's clock, may go."""
    return await conn.fetchval(DATABASE_TIME) - retention
