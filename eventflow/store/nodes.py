"""The processes that share one Postgres, each with a lease it renews."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from eventflow.store.pool import Connection

BEAT: Final = """
INSERT INTO node AS n (id, name, lease_until) VALUES ($1, $2, clock_timestamp() + $3::interval)
ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until
"""

COUNT_PEERS: Final = """
SELECT clock_timestamp() AS now, (SELECT count(*) FROM node WHERE id <> $1 AND lease_until > now()) AS peers
"""


async def beat(conn: Connection, node: UUID, name: str, lease: timedelta) -> tuple[int, datetime]:
    """Renew the node's lease; how many other nodes are alive, and the database's time."""
    await conn.execute(BEAT, node, name, lease)
    return await peers(conn, node)


async def peers(conn: Connection, node: UUID) -> tuple[int, datetime]:
    """How many other nodes are alive, and the database's time."""
    row = await conn.fetchrow(COUNT_PEERS, node)
    assert row is not None  # a SELECT without FROM
    return row["peers"], row["now"]


LEAVE: Final = """
WITH gone AS (
    DELETE FROM node WHERE id = $1
), mine AS (
    SELECT source, partition FROM source_partition
    WHERE owner = $1 AND state = 'running'
    ORDER BY source, partition
    FOR NO KEY UPDATE
)
UPDATE source_partition AS p
SET owner = NULL, lease_until = NULL, state = 'waiting', since = clock_timestamp()
FROM mine WHERE p.source = mine.source AND p.partition = mine.partition
"""


async def leave(conn: Connection, node: UUID) -> None:
    """A node that stops in order hands its partitions back at once."""
    await conn.execute(LEAVE, node)


FORGET: Final = """
WITH dead AS (
    DELETE FROM node WHERE lease_until < clock_timestamp() - $1::interval RETURNING id
)
SELECT count(pg_terminate_backend(a.pid))
FROM dead JOIN pg_stat_activity AS a ON a.application_name = 'eventflow ' || dead.id::text
"""


async def forget_dead(conn: Connection, grace: timedelta) -> int:
    """Delete nodes whose lease ended more than `grace` ago; end what backends they left behind."""
    return int(await conn.fetchval(FORGET, grace))
