"""Runs: starting them, cancelling them, running what failed in them again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from eventflow.event import Lineage
from eventflow.store import run_ends
from eventflow.store.pool import Connection
from eventflow.workflow.advance import RunState

_encode = msgspec.json.Encoder().encode


class NewRun(msgspec.Struct, frozen=True, gc=False):
    """A run to insert with its first tasks. `params` is a JSON object; the tasks are not due before `due`."""

    id: UUID
    workflow: str
    revision: int
    params: bytes
    roots: tuple[str, ...]
    created: datetime
    due: datetime
    rule: str | None = None
    firing_id: UUID | None = None
    event_uid: UUID | None = None
    lineage: Lineage | None = None
    priority: int = 0


START: Final = """
WITH started AS (
    INSERT INTO run (id, workflow, revision, rule, firing_id, event_uid, state, params, lineage, priority,
                     created)
    SELECT r.id, r.workflow, r.revision, r.rule, r.firing_id, r.event_uid, 'running', r.params, r.lineage,
           r.priority, r.created
    FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::uuid[], $6::uuid[], $7::bytea[],
                $8::bytea[], $9::smallint[], $10::timestamptz[])
        AS r(id, workflow, revision, rule, firing_id, event_uid, params, lineage, priority, created)
)
INSERT INTO task_run (run_id, task, state, priority, due)
SELECT t.run_id, t.task, 'ready', t.priority, t.due
FROM unnest($11::uuid[], $12::text[], $13::smallint[], $14::timestamptz[]) AS t(run_id, task, priority, due)
"""


async def start_runs(conn: Connection, runs: Sequence[NewRun]) -> None:
    """Insert runs and their root tasks in one statement; in the caller's transaction, if there is one."""
    tasks = [(run, task) for run in runs for task in run.roots]
    await conn.execute(
        START,
        [r.id for r in runs], [r.workflow for r in runs], [r.revision for r in runs],
        [r.rule for r in runs], [r.firing_id for r in runs], [r.event_uid for r in runs],
        [r.params for r in runs], [_encode(r.lineage) if r.lineage else None for r in runs],
        [r.priority for r in runs], [r.created for r in runs],
        [r.id for r, _ in tasks], [task for _, task in tasks], [r.priority for r, _ in tasks],
        [r.due for r, _ in tasks],
    )  # fmt: skip


LOCK: Final = "SELECT state FROM run WHERE id = $1 FOR NO KEY UPDATE"

CANCEL_TASKS: Final = """
UPDATE task_run
SET state = 'cancelled', worker = NULL, lease_until = NULL, ended = now()
WHERE run_id = $1 AND state IN ('ready', 'running')
"""


async def cancel_run(conn: Connection, run_id: UUID, wanted: Callable[[str], bool]) -> bool:
    """End a running run as `cancelled`; False where it is not running.

    Attempts at its tasks lose their lease here: a worker hears of it with its next heartbeat, and a result
    that comes all the same is refused.
    """
    async with conn.transaction():
        if await conn.fetchval(LOCK, run_id) != RunState.running:
            return False
        await conn.execute(CANCEL_TASKS, run_id)
        await run_ends.end(conn, {run_id: RunState.cancelled}, wanted)
    return True


ENDED: Final = "SELECT id FROM run WHERE id = ANY($1::uuid[]) AND state <> 'running'"


async def ended(conn: Connection, run_ids: Collection[UUID]) -> set[UUID]:
    """Those of these runs that have ended; asks nothing where there is none."""
    return {row["id"] for row in await conn.fetch(ENDED, list(run_ids))} if run_ids else set()


REOPEN_RUN: Final = "UPDATE run SET state = 'running', ended = NULL, error = NULL WHERE id = $1"

REOPEN_TASKS: Final = """
UPDATE task_run
SET state = 'ready', due = now(), failures = 0, crashes = 0, ended = NULL, error = NULL
WHERE run_id = $1 AND state IN ('failed', 'cancelled')
"""

RESOLVE_LETTERS: Final = """
UPDATE dead_letter
SET state = 'replayed', replays = replays + 1, resolved = now()
WHERE run_id = $1 AND state = 'open' AND stage IN ('run', 'task')
"""


async def retry_run(conn: Connection, run_id: UUID) -> bool:
    """Run the failed and cancelled tasks of an ended run again, with all their attempts; False where none is.

    Tasks that succeeded are kept. The run's dead letters count as replayed.
    """
    async with conn.transaction():
        if await conn.fetchval(LOCK, run_id) not in {RunState.failed, RunState.cancelled}:
            return False
        await conn.execute(REOPEN_RUN, run_id)
        await conn.execute(REOPEN_TASKS, run_id)
        await conn.execute(RESOLVE_LETTERS, run_id)
    return True
