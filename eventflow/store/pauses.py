"""Sources that a person holds back, and lets go on: where they stood, or elsewhere.

A pause takes the partition away from its owner: the owner's next batch fails its compare-and-set, and it
lets go at its next look. Nothing is lost: the position stays, and whoever claims it later reads on. It is a
fact of the source as well (`source_pause`), so that a partition which appears later is paused from the start.

Locks are taken in one order, here and in `ownership.CLAIM`: the source's row, then its partitions by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, LiteralString

from eventflow.errors import UsageError
from eventflow.event import JSON, decode_json, encode_json
from eventflow.offers import Resumption
from eventflow.store.pool import Connection

HOLD: Final[LiteralString] = """
INSERT INTO source_pause AS s (source, since) VALUES ($1, clock_timestamp())
ON CONFLICT (source) DO UPDATE SET since = coalesce(s.since, excluded.since)
"""

# A statement of its own, after the lock: it sees what claims have made until then. A source that was never
# opened gets a row that says it, which goes when its partitions are known.
PAUSE: Final[LiteralString] = """
WITH read AS (
    SELECT source, partition FROM source_partition
    WHERE source = $1 AND partition <> 'outbox' AND state IN ('waiting', 'running')
    ORDER BY partition
    FOR NO KEY UPDATE
), paused AS (
    UPDATE source_partition AS p
    SET state = 'paused', owner = NULL, lease_until = NULL, message = 'paused by a person',
        since = clock_timestamp()
    FROM read WHERE p.source = read.source AND p.partition = read.partition
    RETURNING p.partition
), unopened AS (
    INSERT INTO source_partition (source, partition, state, message)
    SELECT $1, '', 'paused', 'paused by a person'
    WHERE NOT EXISTS (SELECT FROM source_partition WHERE source = $1 AND partition <> 'outbox')
    ON CONFLICT DO NOTHING
    RETURNING partition
)
SELECT partition FROM paused UNION ALL SELECT partition FROM unopened
"""


async def pause(conn: Connection, source: str) -> int:
    """Nobody reads the source until `resume`; how many of its partitions were neither paused nor stopped.

    Waits for batches in flight, which then count; of what is pushed, one that is under way still may. Events
    that are replayed or emitted still come in. One that has stopped stays so, and says why.
    """
    async with conn.transaction():
        await conn.execute(HOLD, source)
        return len(await conn.fetch(PAUSE, source))


LOCK: Final[LiteralString] = "SELECT FROM source_pause WHERE source = $1 FOR NO KEY UPDATE"

RESUME: Final[LiteralString] = """
WITH held AS (
    SELECT source, partition FROM source_partition
    WHERE source = $1 AND partition = coalesce($2, partition) AND partition <> 'outbox'
      AND state IN ('paused', 'stopped')
    ORDER BY partition
    FOR NO KEY UPDATE
)
UPDATE source_partition AS p
SET state = 'waiting', message = NULL, since = clock_timestamp(),
    unread = CASE WHEN p.trouble IS NOT NULL THEN p.unread END
FROM held WHERE p.source = held.source AND p.partition = held.partition
RETURNING p.partition
"""

# Where one partition of several goes on, the source stays held back: what appears is paused.
LET_GO: Final[LiteralString] = """
UPDATE source_pause SET since = NULL
WHERE source = $1 AND NOT EXISTS (
    SELECT FROM source_partition WHERE source = $1 AND partition <> 'outbox' AND state = 'paused')
"""


async def resume(conn: Connection, source: str, partition: str | None = None) -> int:
    """Any node may read the source again, from where it stood; how many partitions were paused or stopped.

    One that stopped at a gap, or because another origin stands behind it, is tried again and stops again
    unless that was mended.
    """
    async with conn.transaction():
        await conn.execute(LOCK, source)
        count = len(await conn.fetch(RESUME, source, partition))
        await conn.execute(LET_GO, source)
    return count


@dataclass(frozen=True, slots=True)
class Held:
    """A partition that is paused or stopped: its position with its version, and the range that is gone."""

    partition: str
    state: str
    cursor: JSON
    version: int
    missing: JSON


READ_HELD: Final[LiteralString] = """
SELECT partition, state, cursor, version, missing
FROM source_partition
WHERE source = $1 AND partition <> 'outbox' AND state IN ('paused', 'stopped')
  AND NOT (partition = '' AND epoch = 0)
ORDER BY partition
"""


async def held(conn: Connection, source: str) -> list[Held]:
    """The partitions of the source that a person must let go on; none that was never read."""
    return [
        Held(
            row["partition"],
            row["state"],
            None if row["cursor"] is None else decode_json(row["cursor"]),
            row["version"],
            None if row["missing"] is None else decode_json(row["missing"]),
        )
        for row in await conn.fetch(READ_HELD, source)
    ]


RESUME_AT: Final[LiteralString] = """
WITH wanted AS (
    SELECT *
    FROM unnest($2::text[], $3::bigint[], $4::bytea[], $5::bytea[]) AS t(partition, version, cursor, missing)
), before AS (
    SELECT p.partition, p.message, p.cursor
    FROM source_partition AS p JOIN wanted USING (partition, version)
    WHERE p.source = $1 AND p.state IN ('paused', 'stopped')
    ORDER BY p.partition
    FOR NO KEY UPDATE OF p
), moved AS (
    UPDATE source_partition AS p
    SET cursor = w.cursor, version = p.version + 1, epoch = p.epoch + 1, batch_id = NULL, origin = NULL,
        state = 'waiting', message = NULL, missing = NULL, since = clock_timestamp(),
        unread = CASE WHEN p.trouble IS NOT NULL THEN p.unread END
    FROM wanted AS w
    WHERE p.source = $1 AND p.partition = w.partition AND w.partition IN (SELECT partition FROM before)
), gaps AS (
    INSERT INTO gap (source, partition, reason, missing, before, after, who)
    SELECT $1, partition, b.message, w.missing, b.cursor, w.cursor, $6
    FROM before AS b JOIN wanted AS w USING (partition)
    WHERE w.missing IS NOT NULL
    ORDER BY partition
)
SELECT partition FROM before
"""


async def resume_at(
    conn: Connection, source: str, moves: Sequence[tuple[Held, Resumption]], who: str
) -> None:
    """Let partitions go on at new positions and write down what was passed over, if any: all, or none.

    One that stopped at a gap and goes back has passed over nothing, but the range it said is gone all the
    same: that is written down.
    Version and epoch rise, so that no batch of an earlier owner fits any more; the origin is forgotten:
    whoever claims next adopts the one that is there.
    Raises `UsageError` where one of them has moved or gone on meanwhile.
    """
    gaps = [held.missing if to.missing is None else to.missing for held, to in moves]
    async with conn.transaction():
        await conn.execute(LOCK, source)
        rows = await conn.fetch(
            RESUME_AT, source,
            [held.partition for held, _ in moves], [held.version for held, _ in moves],
            [encode_json(to.cursor) for _, to in moves],
            [None if gap is None else encode_json(gap) for gap in gaps], who,
        )  # fmt: skip
        if len(rows) < len(moves):
            raise UsageError(f"source '{source}' has gone on meanwhile; look again and say it again")
        await conn.execute(LET_GO, source)


COUNT_PARTITIONS: Final[LiteralString] = """
SELECT count(*) FROM source_partition WHERE source = $1 AND partition <> 'outbox'
"""


async def partitions(conn: Connection, source: str) -> int:
    """How many partitions of the source were ever opened, or could not be."""
    return int(await conn.fetchval(COUNT_PARTITIONS, source))
