"""The end of many attempts in one transaction: results, next tasks, ends of runs, dead letters, outcomes.

1. The rows of their runs are locked first and in order, so that two workers never advance one run at once;
   in the same statement each outcome is written where its attempt still holds the task run (fencing).
2. The states of sibling task runs are read: a statement later, because a snapshot is older than the wait
   for a lock.
3. `advance` says what follows, and that is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from eventflow.store import run_ends
from eventflow.store.outcomes import Outcome
from eventflow.store.pool import Connection
from eventflow.store.task_runs import Key
from eventflow.workflow.advance import Step, TaskState, advance, step_of_only_task
from eventflow.workflow.definition import Workflow

Wanted = Callable[[str], bool]
"""Whether a rule, a waiter or a trace asks for events of this type."""

Definitions = Mapping[tuple[int, str], Workflow | None]
"""Workflows by revision and name; None where this node cannot load it: its run can only fail."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What a finish came to. `refused` outcomes were of attempts that no longer held their task run.

    `readied` counts the tasks inserted, `ended` the runs that ended, `emitted` the events put out. `soonest`
    is when the first of those that are tried again is due.
    """

    refused: Sequence[Outcome] = ()
    readied: int = 0
    ended: int = 0
    emitted: int = 0
    soonest: timedelta | None = None


ACCEPT: Final = """
WITH held AS MATERIALIZED (
    SELECT o.*, r.priority
    FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::uuid[], $5::text[], $6::interval[],
                $7::integer[], $8::integer[], $9::bytea[], $10::text[], $11::boolean[])
        AS o(run_id, task, attempt, worker, state, wait, failures, crashes, result, error, expired)
    CROSS JOIN LATERAL (
        SELECT id, priority FROM run WHERE id = o.run_id AND state = 'running' FOR NO KEY UPDATE
    ) AS r
)
UPDATE task_run AS t
SET state = h.state, worker = NULL, lease_until = NULL, result = h.result, error = h.error,
    failures = t.failures + h.failures, crashes = t.crashes + h.crashes,
    due = CASE WHEN h.state = 'ready' THEN now() + h.wait ELSE t.due END,
    ended = CASE WHEN h.state = 'ready' THEN NULL ELSE now() END
FROM held AS h
WHERE t.run_id = h.run_id AND t.task = h.task
  AND t.attempt = h.attempt AND t.worker = h.worker AND t.lease_until IS NOT NULL
  AND (NOT h.expired OR t.lease_until < clock_timestamp())
RETURNING t.run_id, t.task, h.priority
"""


async def _accept(conn: Connection, outcomes: Sequence[Outcome]) -> dict[Key, int]:
    """Lock the runs, write what is accepted; the priority of each accepted outcome's run."""
    rows = await conn.fetch(
        ACCEPT,
        [o.claimed.run_id for o in outcomes], [o.claimed.task for o in outcomes],
        [o.claimed.attempt for o in outcomes], [o.claimed.worker for o in outcomes],
        [o.state for o in outcomes], [o.wait for o in outcomes],
        [int(o.failed) for o in outcomes], [int(o.crashed) for o in outcomes],
        [o.result for o in outcomes], [o.error for o in outcomes], [o.expired for o in outcomes],
    )  # fmt: skip
    return {Key(run_id, task): priority for run_id, task, priority in rows}


SIBLINGS: Final = "SELECT run_id, task, state FROM task_run WHERE run_id = ANY($1::uuid[])"


async def _states(conn: Connection, runs: Sequence[UUID]) -> dict[UUID, dict[str, TaskState]]:
    found: dict[UUID, dict[str, TaskState]] = {run_id: {} for run_id in runs}
    for run_id, task, state in await conn.fetch(SIBLINGS, runs):
        found[run_id][task] = TaskState(state)
    return found


INSERT_READY: Final = """
INSERT INTO task_run (run_id, task, state, priority, due)
SELECT n.run_id, n.task, 'ready', n.priority, now()
FROM unnest($1::uuid[], $2::text[], $3::smallint[]) AS n(run_id, task, priority)
"""


async def _insert_ready(conn: Connection, rows: Sequence[tuple[UUID, str, int]]) -> None:
    runs, tasks, priorities = zip(*rows, strict=True)
    await conn.execute(INSERT_READY, runs, tasks, priorities)


CANCEL_REST: Final = """
UPDATE task_run
SET state = 'cancelled', worker = NULL, lease_until = NULL, ended = now()
WHERE run_id = ANY($1::uuid[]) AND state IN ('ready', 'running')
"""


async def _cancel_rest(conn: Connection, kept: Sequence[Outcome], definitions: Definitions) -> None:
    """A run whose workflow cannot be loaded ends with the first of its tasks: nobody could run the others."""
    ended = [o.claimed for o in kept if o.state is not TaskState.ready]
    lost = {c.run_id for c in ended if definitions[c.revision, c.workflow] is None}
    if lost:
        await conn.execute(CANCEL_REST, sorted(lost))


async def finish(
    conn: Connection, outcomes: Sequence[Outcome], definitions: Definitions, wanted: Wanted
) -> Finished:
    """Write these outcomes and all that follows from them, in one transaction.

    `definitions` holds the workflow of every outcome that ends its task run. At most one outcome for a task
    run counts, whatever its other attempts say and however often this is called with it.
    """
    ordered = sorted(outcomes, key=lambda o: o.claimed.key)
    async with conn.transaction():
        accepted = await _accept(conn, ordered)
        kept = [o for o in ordered if o.claimed.key in accepted]
        await _cancel_rest(conn, kept, definitions)
        steps = await _steps(conn, kept, definitions)
        ready = [
            (run_id, task, accepted[last.claimed.key])
            for run_id, (last, step) in steps.items()
            for task in step.ready
        ]
        if ready:
            await _insert_ready(conn, ready)
        ends = {run_id: step.end for run_id, (_, step) in steps.items() if step.end is not None}
        emitted = await run_ends.end(conn, ends, wanted)
    refused = [o for o in ordered if o.claimed.key not in accepted]
    soonest = min((o.wait for o in kept if o.state is TaskState.ready), default=None)
    return Finished(refused, len(ready), len(ends), emitted, soonest)


async def _steps(
    conn: Connection, kept: Sequence[Outcome], definitions: Definitions
) -> dict[UUID, tuple[Outcome, Step]]:
    """The next step of every run in which a task run has ended, with the last of these outcomes."""
    last = {o.claimed.run_id: o for o in kept if o.state is not TaskState.ready}
    workflows = {run_id: definitions[o.claimed.revision, o.claimed.workflow] for run_id, o in last.items()}
    wide = [run_id for run_id, workflow in workflows.items() if workflow and len(workflow.tasks) > 1]
    states = await _states(conn, wide) if wide else {}
    return {run_id: (o, _step(workflows[run_id], o.state, states.get(run_id))) for run_id, o in last.items()}


def _step(workflow: Workflow | None, state: TaskState, states: Mapping[str, TaskState] | None) -> Step:
    if workflow is None or states is None:
        return step_of_only_task(state)
    return advance(workflow, states)
