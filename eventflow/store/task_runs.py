"""Task runs as a queue: claim, keep, take back. How one ends is `finish.py`.

`attempt` is the fencing token: a claim raises it, and every later statement names it with the worker.
`lease_until IS NOT NULL` says "running" in words that no partial index answers to: such an index holds few
live rows and many dead ones, and a plan made over an empty table would prefer it for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from eventflow.store.pool import Connection


class Key(NamedTuple):
    """Names a task run; sorts in the order in which rows are locked."""

    run_id: UUID
    task: str


class Claimed(msgspec.Struct, frozen=True, gc=False):
    """One attempt at a task run, and what its run says about it. `params` is a JSON object.

    `failures` and `crashes` count the earlier attempts that ended so.
    """

    run_id: UUID
    task: str
    attempt: int
    failures: int
    crashes: int
    worker: UUID
    workflow: str
    revision: int
    rule: str | None
    event_uid: UUID | None
    params: bytes

    @property
    def key(self) -> Key:
        """The task run this is an attempt at."""
        return Key(self.run_id, self.task)


CLAIM: Final = """
WITH picked AS MATERIALIZED (
    SELECT run_id, task
    FROM task_run
    WHERE state = 'ready' AND due <= now()
    ORDER BY priority DESC, due, run_id
    LIMIT $1
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE task_run AS t
SET state = 'running', attempt = t.attempt + 1, worker = $2, lease_until = now() + $3::interval,
    started = now(), ended = NULL, error = NULL
FROM picked AS p
JOIN run AS r ON r.id = p.run_id
WHERE t.run_id = p.run_id AND t.task = p.task
RETURNING t.run_id, t.task, t.attempt, t.failures, t.crashes, t.worker, r.workflow, r.revision, r.rule,
          r.event_uid, r.params
"""


async def claim(conn: Connection, limit: int, worker: UUID, lease: timedelta) -> list[Claimed]:
    """Up to `limit` task runs that are due, highest priority first, then the longest waiting."""
    return [Claimed(*row) for row in await conn.fetch(CLAIM, limit, worker, lease)]


CLAIM_OTHERS: Final = """
WITH picked AS MATERIALIZED (
    SELECT t.run_id, t.task
    FROM task_run AS t
    WHERE t.state = 'ready' AND t.due <= now() AND NOT EXISTS (
        SELECT FROM run AS r
        JOIN unnest($4::bigint[], $5::text[], $6::text[]) AS b(revision, workflow, task)
            ON b.revision = r.revision AND b.workflow = r.workflow AND b.task = t.task
        WHERE r.id = t.run_id
    )
    ORDER BY t.priority DESC, t.due, t.run_id
    LIMIT $1
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE task_run AS t
SET state = 'running', attempt = t.attempt + 1, worker = $2, lease_until = now() + $3::interval,
    started = now(), ended = NULL, error = NULL
FROM picked AS p
JOIN run AS r ON r.id = p.run_id
WHERE t.run_id = p.run_id AND t.task = p.task
RETURNING t.run_id, t.task, t.attempt, t.failures, t.crashes, t.worker, r.workflow, r.revision, r.rule,
          r.event_uid, r.params
"""


async def claim_others(
    conn: Connection, limit: int, worker: UUID, lease: timedelta, busy: Sequence[tuple[int, str, str]]
) -> list[Claimed]:
    """As `claim`, but none of these tasks (revision, workflow, task); passes over each that waits."""
    columns = [[one[n] for one in busy] for n in range(3)]
    return [Claimed(*row) for row in await conn.fetch(CLAIM_OTHERS, limit, worker, lease, *columns)]


HEARTBEAT: Final = """
UPDATE task_run AS t
SET lease_until = now() + $5::interval
FROM unnest($1::uuid[], $2::text[], $3::integer[]) AS h(run_id, task, attempt)
WHERE t.run_id = h.run_id AND t.task = h.task
  AND t.attempt = h.attempt AND t.worker = $4 AND t.lease_until IS NOT NULL
RETURNING t.run_id, t.task
"""


async def heartbeat(
    conn: Connection, held: Sequence[Claimed], worker: UUID, lease: timedelta
) -> list[Claimed]:
    """Renew the leases of all these attempts; returns those that are ours no longer.

    An attempt whose finish commits meanwhile is among them: the caller knows that it let go itself.
    """
    # In the order in which `finish` locks, else the two deadlock.
    attempts = sorted(held, key=lambda c: c.key)
    rows = await conn.fetch(
        HEARTBEAT,
        [c.run_id for c in attempts], [c.task for c in attempts], [c.attempt for c in attempts],
        worker, lease,
    )  # fmt: skip
    kept = {Key(*row) for row in rows}
    return [c for c in attempts if c.key not in kept]


EXPIRED: Final = """
SELECT t.run_id, t.task, t.attempt, t.failures, t.crashes, t.worker, r.workflow, r.revision, r.rule,
       r.event_uid, r.params
FROM task_run AS t
JOIN run AS r ON r.id = t.run_id
WHERE t.state = 'running' AND t.lease_until < now()
  AND pg_postmaster_start_time() < now() - $1::interval
  AND r.state = 'running'
ORDER BY t.lease_until
LIMIT $2
FOR NO KEY UPDATE OF t SKIP LOCKED
"""


async def expired(conn: Connection, lease: timedelta, limit: int) -> list[Claimed]:
    """Attempts whose lease ran out, the longest ago first; none while Postgres has been up for less than one.

    Rows that somebody renews or finishes this moment are locked, and left out.
    """
    return [Claimed(*row) for row in await conn.fetch(EXPIRED, lease, limit)]


RESULTS: Final = """
SELECT run_id, task, result
FROM task_run
WHERE run_id = ANY($1::uuid[]) AND ended IS NOT NULL AND result IS NOT NULL
"""


async def results(conn: Connection, runs: Sequence[UUID]) -> dict[UUID, dict[str, bytes]]:
    """The results (JSON) of these runs' tasks, by run and task."""
    found: dict[UUID, dict[str, bytes]] = {run_id: {} for run_id in runs}
    for run_id, task, result in await conn.fetch(RESULTS, list(runs)):
        found[run_id][task] = result
    return found
