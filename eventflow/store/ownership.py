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
from eventflow.event import JSON, decode_json, encode_json
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
SELECT source, partition, owner, state, coalesce(lease_until > clock_timestamp(), false) AS leased,
       owner IS NOT NULL AND unread IS NULL AS well,
       partition = '' AND state IN ('waiting', 'paused') AND epoch = 0 AND version = 0 AND taken = 0
           AND duplicates = 0 AS report
FROM source_partition
WHERE source = ANY($1::text[])
"""


@dataclass(frozen=True, slots=True)
class Holding:
    """A partition's row as ownership sees it.

    `leased`: its owner's lease still runs; `well`: its owner can read it. `report`: of a source without
    partitions yet, a row that only says why.
    """

    source: str
    partition: str
    owner: UUID | None
    state: str
    leased: bool
    well: bool
    report: bool


async def holdings(conn: Connection, sources: Sequence[str]) -> list[Holding]:
    """The partitions of these sources that have a row, in no order."""
    rows = await conn.fetch(READ_OWNERS, sources)
    return [Holding(**dict(row.items())) for row in rows]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A partition that a node would read, and what stands behind it now (None: no such thing)."""

    source: str
    partition: str
    origin: str | None


# The update changes nothing: whoever comes second waits, and is given what the first one said.
BEGAN_WITH: Final = """
INSERT INTO source_beginning AS b (source, partitions) VALUES ($1, $2)
ON CONFLICT (source) DO UPDATE SET partitions = b.partitions
RETURNING partitions
"""


async def began_with(conn: Connection, source: str, partitions: Sequence[str]) -> frozenset[str]:
    """The partitions that the source began with: these, where nobody has said so before."""
    return frozenset(await conn.fetchval(BEGAN_WITH, source, list(partitions)))


END_BACKENDS_OF_EXPIRED: Final = """
SELECT count(pg_terminate_backend(a.pid))
FROM unnest($1::text[], $2::text[]) AS t(source, partition)
JOIN source_partition AS p USING (source, partition)
JOIN pg_stat_activity AS a ON a.application_name = 'eventflow ' || p.owner::text
WHERE p.owner <> $3 AND p.lease_until <= clock_timestamp()
"""

KNOW_SOURCES: Final = """
INSERT INTO source_pause (source) SELECT DISTINCT s FROM unnest($1::text[]) AS s ORDER BY s
ON CONFLICT DO NOTHING
"""

# A row that is new is paused where its source is; one that is there says itself what it is. The lock is
# waited for, and what was committed meanwhile is seen in the locked row: see store/pauses.py.
CLAIM: Final = """
WITH known AS (
    SELECT source, since IS NOT NULL AS paused FROM source_pause
    WHERE source = ANY($1::text[])
    ORDER BY source
    FOR SHARE
)
INSERT INTO source_partition AS p (source, partition, owner, epoch, lease_until, origin, state, message)
SELECT t.source, t.partition, CASE WHEN NOT k.paused THEN $4::uuid END, CASE WHEN k.paused THEN 0 ELSE 1 END,
       CASE WHEN NOT k.paused THEN clock_timestamp() + $5::interval END, t.origin,
       CASE WHEN k.paused THEN 'paused' ELSE 'running' END, CASE WHEN k.paused THEN 'paused by a person' END
FROM unnest($1::text[], $2::text[], $3::text[]) AS t(source, partition, origin)
JOIN known AS k USING (source)
ORDER BY t.source, t.partition
ON CONFLICT (source, partition) DO UPDATE
SET owner = $4::uuid, epoch = p.epoch + 1, lease_until = clock_timestamp() + $5::interval,
    origin = coalesce(p.origin, excluded.origin), state = 'running', message = NULL, missing = NULL,
    since = clock_timestamp()
WHERE (p.owner IS NULL OR p.owner = $4::uuid OR p.lease_until <= clock_timestamp())
  AND p.state IN ('waiting', 'running')
RETURNING p.source, p.partition, p.epoch, p.version, p.cursor, p.batch_id, p.origin, p.state
"""


async def claim_all(
    conn: Connection, wanted: Sequence[Wanted], node: UUID, lease: timedelta
) -> tuple[list[Claim], list[tuple[Claim, SourceStopped]]]:
    """Own these partitions for `lease`, without those that another node owns or a person holds back.

    A stopped process (SIGSTOP in mid-transaction) still holds row locks that no server timeout ends
    during COPY, so the backends of expired owners are ended first. Rows are locked in one order. What is new
    of a source that is paused has a row afterwards, which is paused as well. The second
    list holds those behind which another origin stands than the one that their position belongs to.
    """
    columns = [one.source for one in wanted], [one.partition for one in wanted]
    origins = {(one.source, one.partition): one.origin for one in wanted}
    await conn.execute(END_BACKENDS_OF_EXPIRED, *columns, node)
    await conn.execute(KNOW_SOURCES, columns[0])
    claims: list[Claim] = []
    foreign: list[tuple[Claim, SourceStopped]] = []
    for row in await conn.fetch(CLAIM, *columns, list(origins.values()), node, lease):
        if row["state"] == "paused":
            continue
        cursor = None if row["cursor"] is None else decode_json(row["cursor"])
        claim = Claim(
            row["source"], row["partition"], node, row["epoch"], row["version"], cursor, row["batch_id"]
        )
        there = origins[claim.source, claim.partition]
        if there is None or row["origin"] == there:
            claims.append(claim)
        else:
            foreign.append((claim, _foreign(claim.source, row["origin"], there)))
    return claims, foreign


def _foreign(source: str, origin: str, there: str) -> SourceStopped:
    return SourceStopped(
        f"source '{source}': its position belongs to {origin!r}, but {there!r} is there now; point it back, "
        f"give the source a new name, or say `eventflow sources resume {source} --from earliest`"
    )


async def claim(
    conn: Connection, source: str, partition: str, node: UUID, lease: timedelta, origin: str | None
) -> Claim | None:
    """Own one partition; None where another node does, or a person holds it back.

    Raises `SourceStopped` where another origin stands behind it.
    """
    claims, foreign = await claim_all(conn, [Wanted(source, partition, origin)], node, lease)
    for _, error in foreign:
        raise error
    return claims[0] if claims else None


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
UPDATE source_partition
SET owner = NULL, lease_until = NULL, state = $5, message = $6, missing = $7, since = clock_timestamp(),
    unread = CASE WHEN $6::text IS NULL THEN unread ELSE coalesce(unread, clock_timestamp()) END
WHERE source = $1 AND partition = $2 AND owner = $3 AND epoch = $4
"""


async def release(
    conn: Connection,
    held: Claim,
    state: str = "waiting",
    message: str | None = None,
    missing: JSON = None,
) -> None:
    """Let go of the partition; a claim that was lost meanwhile changes nothing.

    State `stopped` stays until a person says otherwise; `missing` is then the range that is gone.
    """
    gone = None if missing is None else encode_json(missing)
    await conn.execute(RELEASE, held.source, held.partition, held.node, held.epoch, state, message, gone)


REPORT: Final = """
INSERT INTO source_partition AS p (source, partition, state, message, unread)
VALUES ($1, $2, $3, $4, CASE WHEN $4::text IS NOT NULL THEN clock_timestamp() END)
ON CONFLICT (source, partition) DO UPDATE
SET state = excluded.state, message = excluded.message, since = clock_timestamp(),
    unread = CASE WHEN $4::text IS NOT NULL THEN coalesce(p.unread, excluded.unread) END
WHERE p.owner IS NULL AND p.state IN ('waiting', 'running')
"""


async def report(conn: Connection, source: str, partition: str, state: str, message: str | None) -> None:
    """Say in `sources` how it is with a partition that has no owner, and why (None: it is well).

    Says nothing over an owner or a person.
    """
    await conn.execute(REPORT, source, partition, state, message)


# Rows that somebody holds are being read, whatever this node thinks.
REPORT_UNOPENED: Final = """
WITH unread AS (
    SELECT source, partition FROM source_partition
    WHERE source = $1 AND partition <> 'outbox'
      AND (state = 'waiting' OR state = 'running' AND lease_until <= clock_timestamp())
    FOR NO KEY UPDATE SKIP LOCKED
), said AS (
    UPDATE source_partition AS p
    SET message = $2, unread = coalesce(p.unread, p.lease_until, clock_timestamp())
    FROM unread AS u WHERE p.source = u.source AND p.partition = u.partition
)
INSERT INTO source_partition (source, partition, message, unread)
SELECT $1, '', $2, clock_timestamp()
WHERE NOT EXISTS (SELECT FROM source_partition WHERE source = $1 AND partition <> 'outbox')
ON CONFLICT DO NOTHING
"""


async def report_unopened(conn: Connection, source: str, message: str) -> None:
    """The source cannot be opened: say so of every partition that nobody reads, and since when.

    Of a source that has none yet a row '' says it, until `health.take_back_report`.
    """
    await conn.execute(REPORT_UNOPENED, source, message)


TAKE_BACK_OF_GONE: Final = """
UPDATE source_partition AS p SET message = NULL, unread = NULL
FROM (
    SELECT source, partition FROM source_partition
    WHERE source = $1 AND partition <> ALL($2::text[]) AND partition <> 'outbox'
      AND state = 'waiting' AND message = $3
    FOR NO KEY UPDATE SKIP LOCKED
) AS gone
WHERE p.source = gone.source AND p.partition = gone.partition
"""


async def take_back_of_gone(conn: Connection, source: str, partitions: Sequence[str], message: str) -> None:
    """The source can be opened again: what was said for that of partitions that it has no more is not true.

    Of those it has, whoever claims them says that.
    """
    await conn.execute(TAKE_BACK_OF_GONE, source, list(partitions), message)


LET_GO: Final = """
UPDATE source_partition
SET owner = NULL, lease_until = NULL, state = 'waiting', since = clock_timestamp()
WHERE source = $1 AND partition = $2 AND owner = $3
"""


async def let_go(conn: Connection, source: str, partition: str, node: UUID) -> None:
    """Release, without a claim at hand: for what this node owns but does not read."""
    await conn.execute(LET_GO, source, partition, node)
