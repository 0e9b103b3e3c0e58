"""Attempts whose lease has run out are taken back: their worker died, or stands still.

Only the database's clock says whether a lease is over. A lease that nobody could have renewed proves nothing:
none is taken back within one lease of the rescuer's own (re)connection, of the start of Postgres, or of a
moment at which this process or Postgres stood still.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final

import structlog

from eventflow.store import task_runs
from eventflow.store.failures import is_disconnect
from eventflow.store.finish import Definitions, Finished, Wanted, finish
from eventflow.store.outcomes import Outcome, crashed
from eventflow.store.plans import queue_session
from eventflow.store.pool import Connection, Pool
from eventflow.workflow.advance import TaskState
from eventflow.workflow.definition import Workflow

log = structlog.get_logger()

WorkflowOf = Callable[[int, str], Awaitable[Workflow]]

AT_ONCE: Final = 500
LOOKS_PER_LEASE: Final = 10


async def rescue(conn: Connection, lease: timedelta, workflow_of: WorkflowOf, wanted: Wanted) -> Finished:
    """Take back up to 500 attempts; the caller looks after the bounds above that Postgres cannot know.

    Their task runs are ready again at once and have used up no retry; the third crash of one fails it.
    """
    expired = await task_runs.expired(conn, lease, AT_ONCE)
    if not expired:
        return Finished()
    outcomes = [crashed(claimed, "its worker died or lost touch", expired=True) for claimed in expired]
    for claimed in expired:
        log.warning("task_rescued", run_id=str(claimed.run_id), task=claimed.task, attempt=claimed.attempt)
    definitions = await _definitions(outcomes, workflow_of)
    try:
        return await finish(conn, outcomes, definitions, wanted)
    except Exception as error:
        if is_disconnect(error):
            raise
        return await _rescue_each(conn, outcomes, definitions, wanted)


async def _rescue_each(
    conn: Connection, outcomes: Sequence[Outcome], definitions: Definitions, wanted: Wanted
) -> Finished:
    """One that cannot be written must not keep the others, on every node, from being taken back."""
    done: list[Finished] = []
    for outcome in outcomes:
        try:
            done.append(await finish(conn, [outcome], definitions, wanted))
        except Exception as error:
            if is_disconnect(error):
                raise
            c = outcome.claimed
            log.exception("rescue_failed", run_id=str(c.run_id), task=c.task, attempt=c.attempt)
    return Finished(
        [outcome for one in done for outcome in one.refused],
        sum(one.readied for one in done),
        sum(one.ended for one in done),
        sum(one.emitted for one in done),
        min((one.soonest for one in done if one.soonest is not None), default=None),
    )


ROUND_TRIP: Final = "SELECT 1"


async def _definitions(outcomes: Sequence[Outcome], workflow_of: WorkflowOf) -> Definitions:
    """Only a task run that is given up moves its run on."""
    found: dict[tuple[int, str], Workflow | None] = {}
    for outcome in outcomes:
        key = outcome.claimed.revision, outcome.claimed.workflow
        if outcome.state is TaskState.failed and key not in found:
            try:
                found[key] = await workflow_of(*key)
            except Exception as error:
                if is_disconnect(error):
                    raise
                log.warning("workflow_unusable", revision=key[0], workflow=key[1], error=repr(error))
                found[key] = None
    return found


class Rescuer:
    """Looks for expired leases, ten times a lease."""

    def __init__(
        self,
        pool: Pool,
        lease: timedelta,
        workflow_of: WorkflowOf,
        wanted: Wanted,
        tasks_ready: Callable[[], None],
        announce: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._lease = lease
        self._workflow_of = workflow_of
        self._wanted = wanted
        self._tasks_ready = tasks_ready
        self._announce = announce

    async def run(self) -> None:
        """Rescue until cancelled, or until the connection breaks, which is raised: call it again then."""
        lease = self._lease.total_seconds()
        async with queue_session(self._pool) as conn:
            await asyncio.sleep(lease)
            looked = time.time()
            while True:
                await asyncio.sleep(lease / LOOKS_PER_LEASE)
                # A Postgres that stood still answers when it goes on, before anybody could renew.
                await conn.execute(ROUND_TRIP)
                stood_still = time.time() - looked > lease / 2
                if stood_still:
                    await asyncio.sleep(lease)
                else:
                    self._tell(await rescue(conn, self._lease, self._workflow_of, self._wanted))
                looked = time.time()

    def _tell(self, finished: Finished) -> None:
        if finished.soonest is not None or finished.readied:
            self._tasks_ready()
        if finished.emitted:
            self._announce()
