"""Who reads which source partition: one lease row each, with an epoch.

Claiming bumps the epoch in the row that also holds the cursor, so the compare-and-set of a batch that
an earlier owner still has in flight fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from eventflow.errors import SourceStopped
from eventflow.event import JSON, decode_json
from eventflow.store.pool import Connection


@dataclass(slots=True)
class Claim:
    """A partition owned by `node`. `version` counts its committed batches and moves with each."""

    source: str
    partition: str
    node: UUID
    epoch: int
    version: int
    cursor: JSON
    batch_id: UUID | None


READ_OWNERS: Final = """
SELECT source, partition, owner, state, lease_until > clock_timestamp() AS leased
FROM source_partition
WHERE source = ANY($1::text[])
"""


@dataclass(frozen=True, slots=True)
class Holding:
    """A partition's row as ownership sees it. `leased`: its owner's lease still runs."""

    source: str
    partition: str
    owner: UUID | None
    state: str
    leased: bool


async def holdings(conn: Connection, sources: Sequence[str]) -> list[Holding]:
    """The partitions of these sources that have a row, in no order."""
    rows = await conn.fetch(READ_OWNERS, sources)
    return [Holding(r["source"], r["partition"], r["owner"], r["state"], bool(r["leased"])) for r in rows]


END_BACKENDS_OF_EXPIRED: Final = """
SELECT count(pg_terminate_backend(a.pid))
FROM source_partition AS p
JOIN pg_stat_activity AS a ON a.application_name = 'eventflow ' || p.owner::text
WHERE p.source = $1 AND p.partition = $2 AND p.owner <> $3 AND p.lease_until <= clock_timestamp()
"""

CLAIM: Final = """
INSERT INTO source_partition AS p (source, partition, owner, epoch, lease_until, origin, state)
VALUES ($1, $2, $3, 1, clock_timestamp() + $4::interval, $5, 'running')
ON CONFLICT (source, partition) DO UPDATE
SET owner = excluded.owner, epoch = p.epoch + 1, lease_until = excluded.lease_until,
    origin = coalesce(p.origin, excluded.origin), state = 'running', message = NULL
WHERE (p.owner IS NULL OR p.owner = excluded.owner OR p.lease_until <= clock_timestamp())
  AND p.state IN ('waiting', 'running')
RETURNING p.epoch, p.version, p.cursor, p.batch_id, p.origin
"""


async def claim(
    conn: Connection, source: str, partition: str, node: UUID, lease: timedelta, origin: str | None
) -> Claim | None:
    """Own the partition for `lease`; None where another node does, or a person has stopped it.

    A stopped process (SIGSTOP in mid-transaction) still holds row locks that no server timeout ends
    during COPY, so the backends of an expired owner are ended first. Raises `SourceStopped` where
    another origin stands behind the partition than the one its position belongs to.
    """
    await conn.execute(END_BACKENDS_OF_EXPIRED, source, partition, node)
    row = await conn.fetchrow(CLAIM, source, partition, node, lease, origin)
    if row is None:
        return None
    if origin is not None and row["origin"] != origin:
        raise SourceStopped(
            f"source '{source}': its position belongs to {row['origin']!r}, but {origin!r} is there now; "
            "point it back, or give the source a new name"
        )
    cursor = None if row["cursor"] is None else decode_json(row["cursor"])
    return Claim(source, partition, node, row["epoch"], row["version"], cursor, row["batch_id"])


RENEW: Final = """
UPDATE source_partition AS p SET lease_until = clock_timestamp() + $2::interval
FROM (
    SELECT source, partition FROM source_partition WHERE owner = $1 FOR NO KEY UPDATE SKIP LOCKED
) AS mine
WHERE p.source = mine.source AND p.partition = mine.partition
"""


async def renew(conn: Connection, node: UUID, lease: timedelta) -> None:
    """Renew every lease of `node`; rows that a batch has locked are renewed by that batch."""
    await conn.execute(RENEW, node, lease)


RELEASE: Final = """
UPDATE source_partition SET owner = NULL, lease_until = NULL, state = $5, message = $6
WHERE source = $1 AND partition = $2 AND owner = $3 AND epoch = $4
"""


async def release(conn: Connection, held: Claim, state: str = "waiting", message: str | None = None) -> None:
    """Let go of the partition; a claim that was lost meanwhile changes nothing."""
    await conn.execute(RELEASE, held.source, held.partition, held.node, held.epoch, state, message)


REPORT: Final = """
INSERT INTO source_partition AS p (source, partition, state, message) VALUES ($1, $2, $3, $4)
ON CONFLICT (source, partition) DO UPDATE SET state = excluded.state, message = excluded.message
WHERE p.owner IS NULL AND p.state IN ('waiting', 'running')
"""


async def report(conn: Connection, source: str, partition: str, state: str, message: str | None) -> None:
    """Say in `sources` why nobody reads the partition; says nothing over an owner."""
    await conn.execute(REPORT, source, partition, state, message)


TAKE_BACK_REPORT: Final = """
DELETE FROM source_partition
WHERE source = $1 AND partition = '' AND state = 'waiting' AND epoch = 0 AND version = 0 AND taken = 0
"""


async def take_back_report(conn: Connection, source: str) -> None:
    """The source can be opened again: forget the row that only said why it could not."""
    await conn.execute(TAKE_BACK_REPORT, source)


LET_GO: Final = """
UPDATE source_partition SET owner = NULL, lease_until = NULL, state = 'waiting'
WHERE source = $1 AND partition = $2 AND owner = $3
"""


async def let_go(conn: Connection, source: str, partition: str, node: UUID) -> None:
    """Release, without a claim at hand: for what this node owns but does not read."""
    await conn.execute(LET_GO, source, partition, node)


STOP: Final = """
UPDATE source_partition SET owner = NULL, lease_until = NULL, state = 'stopped', message = $4
WHERE source = $1 AND partition = $2 AND owner = $3
"""


async def stop(conn: Connection, source: str, partition: str, node: UUID, message: str) -> None:
    """Stop a partition that this node has claimed: it goes on only when a person says so."""
    await conn.execute(STOP, source, partition, node, message)
