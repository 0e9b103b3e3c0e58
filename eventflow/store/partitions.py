"""The day partitions of the event table: made ahead of time, standalone, then attached.

No default partition stands beside them: Postgres refuses to detach concurrently next to one.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Final, LiteralString

from eventflow.store.pool import Connection

DAYS_AHEAD: Final = 7

_LOCK_PARTITIONS: Final[LiteralString] = """
SELECT set_config('lock_timeout', $1, true),
       pg_advisory_xact_lock(hashtextextended('eventflow.event partitions', 0))
"""

_MISSING_DAYS: Final[LiteralString] = """
SELECT day
FROM unnest($1::date[]) AS wanted (day)
WHERE NOT EXISTS (
    SELECT FROM pg_inherits
    WHERE inhparent = 'event'::regclass
      AND inhrelid = to_regclass('event_' || to_char(day, 'YYYYMMDD'))
)
ORDER BY day
"""

_NAME_DAYS: Final[LiteralString] = "SELECT set_config('eventflow.days', $1::date[]::text, true)"

# DDL takes no parameters: the days come through a setting and the server quotes them (%I, %L). ATTACH lets
# inserts go on, where CREATE ... PARTITION OF would stop them, and the CHECK spares it reading the table.
_ADD_DAYS: Final[LiteralString] = """
DO $$
DECLARE
    day  date;
    name text;
    low  text;
    high text;
BEGIN
    FOREACH day IN ARRAY current_setting('eventflow.days')::date[] LOOP
        name := 'event_' || to_char(day, 'YYYYMMDD');
        low := day || ' 00:00:00+00';
        high := (day + 1) || ' 00:00:00+00';
        EXECUTE format('CREATE TABLE %I (LIKE event INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
            CONSTRAINT one_day CHECK (ingested >= %L AND ingested < %L))', name, low, high);
        EXECUTE format('ALTER TABLE event ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, low, high);
        EXECUTE format('ALTER TABLE %I DROP CONSTRAINT one_day', name);
    END LOOP;
END
$$
"""


async def ensure_event_partitions(
    connection: Connection,
    first_day: date,
    days: int,
    *,
    lock_timeout: timedelta = timedelta(seconds=5),
) -> list[date]:
    """Make the partitions of `days` UTC days from `first_day` on that are not there; returns the new ones.

    All or nothing, and safe from several nodes at once. Raises asyncpg's LockNotAvailableError after
    `lock_timeout`: an ALTER that waits would make every later statement on the table wait behind it.
    """
    wanted = [first_day + timedelta(days=number) for number in range(days)]
    async with connection.transaction():
        milliseconds = int(lock_timeout / timedelta(milliseconds=1))
        # A statement of its own: the snapshot of the next one must be younger than the wait.
        await connection.execute(_LOCK_PARTITIONS, str(milliseconds))
        missing: list[date] = [row["day"] for row in await connection.fetch(_MISSING_DAYS, wanted)]
        if missing:
            await connection.execute(_NAME_DAYS, missing)
            await connection.execute(_ADD_DAYS)
        return missing
