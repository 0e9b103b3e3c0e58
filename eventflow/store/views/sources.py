"""Who reads what, how far, how fast, and what was passed over. Read-only."""

from __future__ import annotations

from datetime import datetime
from typing import Final, LiteralString

from eventflow.event import decode_json
from eventflow.store.pool import Connection
from eventflow.store.views.events import View, select

# A partition whose owner's lease ran out is nobody's, whatever its row still says. Webhooks have no owner,
# and neither have the events that eventflow makes itself (partition 'outbox'): every node serves those. What
# was measured of one that is not read, or three rounds ago, says nothing about now.
SOURCES: Final[LiteralString] = """
WITH alive AS (
    SELECT string_agg(name, ', ' ORDER BY name) AS names FROM node WHERE lease_until > now()
), known AS (
    SELECT p.*, p.owner IS NOT NULL AND p.lease_until <= now() AS lapsed,
           p.owner IS NULL AND (p.state = 'running' OR p.partition = 'outbox') AS everybodys,
           extract(epoch FROM greatest(now() - p.last_event, '0'))::float8 AS silent_seconds
    FROM source_partition AS p
), seen AS (
    SELECT p.*,
           CASE WHEN p.state = 'running' AND p.lapsed OR p.everybodys AND alive.names IS NULL THEN 'waiting'
                WHEN p.everybodys THEN 'running'
                ELSE p.state END AS now_in
    FROM known AS p CROSS JOIN alive
)
SELECT p.source, p.partition, p.now_in AS state,
       CASE WHEN p.everybodys THEN alive.names
            WHEN p.lease_until > now() THEN coalesce(n.name, p.owner::text) END AS owner,
       convert_from(p.cursor, 'UTF8') AS position,
       g.lag, g.unit,
       p.last_event,
       CASE WHEN p.last_event IS NOT NULL
            THEN round((p.rate * exp(-least(50, p.silent_seconds / 60)))::numeric, 2)::float8 END AS rate,
       now() - p.last_event AS silence,
       CASE WHEN p.gaps > 0 THEN make_interval(secs => p.gaps_square / p.gaps) END AS rhythm,
       p.taken, p.duplicates,
       CASE WHEN p.trouble IN ('stalled', 'silent') THEN p.troubled END AS stalled,
       p.origin, p.missing, g.note, g.at AS measured,
       CASE WHEN p.lapsed AND (p.message IS NULL OR alive.names IS NULL)
            THEN 'node ' || coalesce(n.name, p.owner::text) || ' has not renewed its lease since '
                 || to_char(p.lease_until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
                 || CASE WHEN alive.names IS NULL THEN '; no node serves it, `eventflow serve` does'
                         ELSE '; the next node that is free takes over' END
            WHEN alive.names IS NULL AND p.state IN ('waiting', 'running')
            THEN 'no node serves it; `eventflow serve` does'
            WHEN p.message IS NOT NULL AND p.now_in <> 'running' THEN p.message
            WHEN p.trouble = 'silent' THEN p.reason END AS message
FROM seen AS p
CROSS JOIN alive
LEFT JOIN node AS n ON n.id = p.owner
LEFT JOIN progress AS g ON g.source = p.source AND g.partition = p.partition
                       AND p.now_in = 'running' AND g.at > now() - '15 seconds'::interval
WHERE ($1::timestamptz IS NULL OR p.last_event >= $1)
ORDER BY p.source, p.partition
LIMIT $2
"""


async def sources(conn: Connection, *, since: datetime | None = None, limit: int | None = None) -> View:
    """Every source partition: who reads it, how far, how fast, and what is wrong with it.

    `owner` names the node as host:pid; of what every node serves, all that are alive. `position` is the
    cursor as JSON text, `missing` any JSON. `lag` (in `unit`) and `note` are as of `measured`, which is None
    where it is not read, or was not measured for 15 seconds. `rate` is events per second over about the last
    minute, `rhythm` how long it usually is between two batches with events (None: not known yet), `stalled`
    since when it has been silent or unreadable for too long. `since` keeps those that an event came from
    since then.
    """
    return _decoded(await select(conn, SOURCES, since, limit))


GAPS: Final[LiteralString] = """
SELECT at, source, partition, reason, missing,
       convert_from(before, 'UTF8') AS before, convert_from(after, 'UTF8') AS after, who
FROM gap
WHERE ($1::text IS NULL OR source = $1) AND ($2::timestamptz IS NULL OR at >= $2)
ORDER BY id DESC
LIMIT $3
"""


async def gaps(
    conn: Connection, *, source: str | None = None, since: datetime | None = None, limit: int | None = None
) -> View:
    """What was passed over by `sources resume --from`, newest first; positions are JSON text."""
    return _decoded(await select(conn, GAPS, source, since, limit))


def _decoded(rows: View) -> View:
    return [
        row | {"missing": None if row["missing"] is None else decode_json(row["missing"])} for row in rows
    ]
