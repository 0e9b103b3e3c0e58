"""Sources that a person holds back, and lets go on.

A pause takes the partition away from its owner: the owner's next batch fails its compare-and-set, and it
lets go at its next look. Nothing is lost: the position stays, and whoever claims it later reads on.
"""

from __future__ import annotations

from typing import Final, LiteralString

from eventflow.store.pool import Connection

PAUSE: Final[LiteralString] = """
UPDATE source_partition
SET state = 'paused', owner = NULL, lease_until = NULL, message = 'paused by a person'
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
SET state = 'waiting', message = NULL
WHERE source = $1 AND partition <> 'outbox' AND state IN ('paused', 'stopped')
RETURNING partition
"""


async def resume(conn: Connection, source: str) -> int:
    """Any node may read the source again, from where it stood; how many partitions were paused or stopped.

    A source that stopped because another origin stands behind it stops again unless that was mended.
    """
    return len(await conn.fetch(RESUME, source))


COUNT_PARTITIONS: Final[LiteralString] = """
SELECT count(*) FROM source_partition WHERE source = $1 AND partition <> 'outbox'
"""


async def partitions(conn: Connection, source: str) -> int:
    """How many partitions of the source were ever opened."""
    return int(await conn.fetchval(COUNT_PARTITIONS, source))
