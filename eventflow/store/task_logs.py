"""What tasks print and log, in chunks, in the order they came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec

from eventflow.store.pool import Connection


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """A piece of one attempt's log; `number` counts from 0 within the attempt."""

    run_id: UUID
    task: str
    attempt: int
    number: int
    content: bytes


APPEND: Final = """
INSERT INTO task_log (run_id, task, attempt, chunk, content)
SELECT c.run_id, c.task, c.attempt, c.chunk, c.content
FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::integer[], $5::bytea[])
    AS c(run_id, task, attempt, chunk, content)
CROSS JOIN LATERAL (SELECT id FROM run WHERE id = c.run_id FOR KEY SHARE) AS r
ON CONFLICT DO NOTHING
"""


async def append(conn: Connection, chunks: Sequence[Chunk]) -> None:
    """Keep these chunks; those of runs that are gone are dropped, those kept before are not doubled."""
    await conn.execute(
        APPEND,
        [c.run_id for c in chunks], [c.task for c in chunks], [c.attempt for c in chunks],
        [c.number for c in chunks], [c.content for c in chunks],
    )  # fmt: skip


READ: Final = """
SELECT task, attempt, content, at FROM task_log WHERE run_id = $1 ORDER BY at, task, attempt, chunk
"""


async def read(conn: Connection, run_id: UUID) -> list[tuple[str, int, bytes]]:
    """The log of a run as (task, attempt, content), oldest first."""
    return [(row["task"], row["attempt"], row["content"]) for row in await conn.fetch(READ, run_id)]
