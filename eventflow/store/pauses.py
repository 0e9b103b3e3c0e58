"""Sources that a person holds back, and lets go on: where they stood, or elsewhere.

A pause takes the partition away from its owner: the owner's next batch fails its compare-and-set, and it
lets go at its next look. Nothing is lost: the position stays, and whoever claims it later reads on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, LiteralString

from eventflow.errors import UsageError
from eventflow.event import JSON, decode_json, encode_json
from eventflow.offers import Resumption
from eventflow.store.pool import Connection

PAUSE: Final[LiteralString] = """
UPDATE source_partition
SET state = 'paused', owner = NULL, lease_until = NULL, message = 'paused by a person',
    since = clock_timestamp()
WHERE source = $1 AND partition <> 'outbox' AND state <> 'paused'
RETURNING partition
"""


async def pause(conn: Connection, source: str) -> int:
    """Nobody reads the source until `resume`; how many of its partitions were not paused already.

    Waits for batches in flight, which then count. Events that are replayed or emitted still come in.
    """
    return len(await conn.fetch(PAUSE, source))


RESUME: Final[LiteralString] = """
UPDATE source_partition
SET state = 'waiting', message = NULL, since = clock_timestamp()
WHERE source = $1 AND partition = coalesce($2, partition) AND partition <> 'outbox'
  AND state IN ('paused', 'stopped')
RETURNING partition
"""


async def resume(conn: Connection, source: str, partition: str | None = None) -> int:
    """Any node may read the source again, from where it stood; how many partitions were paused or stopped.

    One that stopped at a gap, or because another origin stands behind it, is tried again and stops again
    unless that was mended.
    """
    return len(await conn.fetch(RESUME, source, partition))


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
ORDER BY partition
"""


async def held(conn: Connection, source: str) -> list[Held]:
    """The partitions of the source that a person must let go on."""
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
        state = 'waiting', message = NULL, missing = NULL, since = clock_timestamp()
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
        rows = await conn.fetch(
            RESUME_AT, source,
            [held.partition for held, _ in moves], [held.version for held, _ in moves],
            [encode_json(to.cursor) for _, to in moves],
            [None if gap is None else encode_json(gap) for gap in gaps], who,
        )  # fmt: skip
        if len(rows) < len(moves):
            raise UsageError(f"source '{source}' has gone on meanwhile; look again and say it again")


COUNT_PARTITIONS: Final[LiteralString] = """
SELECT count(*) FROM source_partition WHERE source = $1 AND partition <> 'outbox'
"""


async def partitions(conn: Connection, source: str) -> int:
    """How many partitions of the source were ever opened."""
    return int(await conn.fetchval(COUNT_PARTITIONS, source))
