"""How far each partition is behind its system, as its owner last measured it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, LiteralString
from uuid import UUID

from eventflow.event import JSON, decode_json
from eventflow.offers import Progress
from eventflow.store.pool import Connection


@dataclass(frozen=True, slots=True)
class Standing:
    """A partition and its stored position."""

    source: str
    partition: str
    cursor: JSON


READ_STANDINGS: Final[LiteralString] = """
SELECT source, partition, cursor
FROM source_partition
WHERE owner = $1 AND state = 'running' AND source = ANY($2::text[])
"""


async def standings(conn: Connection, node: UUID, sources: Sequence[str]) -> list[Standing]:
    """Where the partitions of these sources stand that `node` reads."""
    return [
        Standing(
            row["source"], row["partition"], None if row["cursor"] is None else decode_json(row["cursor"])
        )
        for row in await conn.fetch(READ_STANDINGS, node, sources)
    ]


WRITE_PROGRESS: Final[LiteralString] = """
INSERT INTO progress AS p (source, partition, lag, unit, note, at)
SELECT t.source, t.partition, t.lag, t.unit, t.note, clock_timestamp()
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[])
    AS t(source, partition, lag, unit, note)
ORDER BY t.source, t.partition
ON CONFLICT (source, partition) DO UPDATE
SET lag = excluded.lag, unit = excluded.unit, note = excluded.note, at = excluded.at
"""


async def write(conn: Connection, told: Sequence[tuple[Standing, Progress]]) -> None:
    """Replace what was measured before."""
    await conn.execute(
        WRITE_PROGRESS,
        [standing.source for standing, _ in told], [standing.partition for standing, _ in told],
        [one.lag for _, one in told], [one.unit for _, one in told], [one.note for _, one in told],
    )  # fmt: skip
