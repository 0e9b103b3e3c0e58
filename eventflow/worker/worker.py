"""Task runs: claim -> execute -> finish. Before it, ingest started the runs; after it, outcomes are events.

    claim     as many as there is room for, one statement, when woken or once a second
    execute   `async def` on a loop of its own, `def` and commands in processes
    finish    results, what comes next, ends of runs: one transaction for all that have ended

A claim is a lease on one attempt. It is renewed three times per lease; whoever has lost it stops, and what it
returns does not count.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog

from eventflow.errors import SourceUnavailable
from eventflow.expression import EvaluationError
from eventflow.forever import forever
from eventflow.store import runs, task_runs
from eventflow.store.finish import Definitions, Wanted
from eventflow.store.outcomes import Outcome, crashed, failed, handed_back, succeeded
from eventflow.store.plans import queue_session
from eventflow.store.pool import Connection, Pool
from eventflow.store.task_runs import Claimed, Key
from eventflow.worker.attempt import Attempt
from eventflow.worker.capture import captured_output
from eventflow.worker.finisher import Finisher
from eventflow.worker.loops import TaskLoops
from eventflow.worker.plan import CodeFolder, PlanBook, TaskPlan, Unusable, WorkflowOf
from eventflow.worker.prepare import DataOf, Surroundings, as_it_came, prepare
from eventflow.worker.slot import Crashed
from eventflow.worker.slots import Slots
from eventflow.worker.wire import Done
from eventflow.workflow.definition import Retry, Workflow

log = structlog.get_logger()

POLL_SECONDS: Final = 1.0
"""The net behind every wake-up."""

LOG_SECONDS: Final = 1.0
"""How old what a running task prints may be before it can be read."""

_LAST_WRITE_SECONDS: Final = 5.0
_SHOWN: Final = 200
_NO_RETRY: Final = Retry()


class Worker:
    """Executes task runs on this node. `node` is its name in leases.

    At most `batch` are claimed at once, at most `concurrency` are executed at once, `processes` of them in
    processes.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        node: UUID,
        workflow_of: WorkflowOf,
        code_folder: CodeFolder,
        lease: timedelta,
        wake: asyncio.Event,
        wanted: Wanted,
        announce: Callable[[], None],
        data_of: DataOf = as_it_came,
        batch: int = 100,
        concurrency: int = 100,
        processes: int | None = None,
    ) -> None:
        self._pool = pool
        self._node = node
        self._lease = lease
        self._wake = wake
        self._data_of = data_of
        self._batch = batch
        self._concurrency = concurrency
        self._processes = processes or max(4, os.cpu_count() or 1)
        self._book = PlanBook(workflow_of, code_folder, self._workflows_in_use)
        self._held: dict[Key, Attempt] = {}
        self._freed = asyncio.Event()
        self._draining = False
        self._claims_over = asyncio.Event()
        self._finisher = Finisher(
            pool, definitions=self._definitions, wanted=wanted, tasks_ready=wake.set, announce=announce
        )
        self._full = False
        self._loops: TaskLoops | None = None
        self._slots: Slots | None = None

    async def run(self) -> None:
        """Work until cancelled; then whatever still runs is ended, and rescued by others after its lease."""
        loops, slots = self._loops, self._slots = TaskLoops(self._ended), Slots(self._processes, self._ended)
        try:
            with captured_output():
                async with asyncio.TaskGroup() as group:
                    for name, step in (("claims", self._claim_all), ("heartbeats", self._beat)):
                        group.create_task(forever(name, step))
                    for service in (self._finisher.run, self._keep_logs, slots.run, loops.watch):
                        group.create_task(service())
        finally:
            # What is cancelled now has not failed; if this is not the end of the process, it is tried again.
            for attempt in list(self._held.values()):
                self._hand_back(attempt)
            loops.close()

    @property
    def busy(self) -> int:
        """How many attempts it holds."""
        return len(self._held)

    async def drain(self, grace: timedelta) -> None:
        """Claim nothing more; give what runs `grace` to end, then hand its leases back and end it.

        What has not begun is handed back at once. A hand-back uses up no attempt.
        """
        self._draining = True
        self._freed.set()
        self._wake.set()
        deadline = asyncio.get_running_loop().time() + grace.total_seconds()
        # What a claim in flight brings is handed back by its loop.
        await _within(self._claims_over.wait(), _LAST_WRITE_SECONDS)
        for attempt in self._slots.not_started() if self._slots else ():
            self._hand_back(attempt)
        while self._held and asyncio.get_running_loop().time() < deadline:
            self._freed.clear()
            await _within(self._freed.wait(), deadline - asyncio.get_running_loop().time())
        for attempt in list(self._held.values()):
            self._hand_back(attempt)
            self._stop(attempt, "the worker stops")
        await _within(self._finisher.idle(), _LAST_WRITE_SECONDS)

    # ------------------------------------------------------------------ claim

    async def _claim_all(self) -> None:
        if not self._draining:
            await self._claim_until_drained()
        self._claims_over.set()
        await asyncio.Event().wait()  # nothing to claim until this is cancelled

    async def _claim_until_drained(self) -> None:
        async with queue_session(self._pool) as conn:
            while not self._draining:
                room = min(self._batch, self._concurrency - len(self._held))
                if room <= 0:
                    self._freed.clear()
                    await self._freed.wait()
                    continue
                self._wake.clear()
                claimed = await self._claim(conn, room)
                if self._draining:
                    self._decline(claimed)
                elif claimed:
                    await self._begin(conn, claimed)
                if len(claimed) < room and not self._draining:
                    await _within(self._wake.wait(), POLL_SECONDS)

    async def _claim(self, conn: Connection, room: int) -> list[Claimed]:
        """While every process is busy, what would need one is left to other nodes."""
        assert self._slots is not None
        self._full = self._slots.full
        if self._full:
            busy = self._book.process_tasks()
            return await task_runs.claim_others(conn, room, self._node, self._lease, busy)
        return await task_runs.claim(conn, room, self._node, self._lease)

    async def _begin(self, conn: Connection, claimed: Sequence[Claimed]) -> None:
        """Execute what was just claimed; hand it back where Postgres goes away meanwhile."""
        try:
            planned, hopeless = await self._planned(claimed)
            around = await Surroundings.read(conn, planned, self._data_of)
        except BaseException:
            self._decline(claimed)
            raise
        for one, reason in hopeless:
            self._fail(one, reason)
        if self._draining:
            self._decline([one for one, _ in planned])
        else:
            self._start([a for one, plan in planned if (a := self._prepared(one, plan, around))])

    def _decline(self, claimed: Sequence[Claimed]) -> None:
        for one in claimed:
            self._finisher.put(handed_back(one))

    async def _planned(
        self, claimed: Sequence[Claimed]
    ) -> tuple[list[tuple[Claimed, TaskPlan]], list[tuple[Claimed, str]]]:
        """How to call each; and what cannot be called, with the reason: no retry would help it."""
        planned: list[tuple[Claimed, TaskPlan]] = []
        hopeless: list[tuple[Claimed, str]] = []
        for one in claimed:
            plans = self._book.known(one.revision, one.workflow)
            if plans is None:
                plans = await self._book.get(one.revision, one.workflow)
            if isinstance(plans, Unusable):
                hopeless.append((one, plans.reason))
            elif one.task not in plans:
                reason = f"workflow '{one.workflow}' of revision {one.revision} has no such task"
                hopeless.append((one, reason))
            else:
                planned.append((one, plans[one.task]))
        return planned, hopeless

    def _prepared(self, claimed: Claimed, plan: TaskPlan, around: Surroundings) -> Attempt | None:
        try:
            return Attempt(claimed, plan, prepare(claimed, plan, around))
        except (EvaluationError, SourceUnavailable, ValueError) as error:
            self._fail(claimed, f"its arguments cannot be made: {error}")
            return None

    def _fail(self, claimed: Claimed, reason: str) -> None:
        _log_failure(claimed, reason)
        self._finisher.put(failed(claimed, reason, _NO_RETRY, 0.0))

    def _start(self, attempts: Sequence[Attempt]) -> None:
        assert self._loops is not None
        assert self._slots is not None
        for attempt in attempts:
            before = self._held.get(attempt.claimed.key)
            if before is not None:  # cancelled and run again before a heartbeat told us
                self._stop(before, "its run was cancelled and is run again")
            self._held[attempt.claimed.key] = attempt
        in_loop = [attempt for attempt in attempts if attempt.plan.in_loop]
        if in_loop:
            self._loops.start(in_loop)
        if len(in_loop) < len(attempts):
            self._slots.start([attempt for attempt in attempts if not attempt.plan.in_loop])

    # ------------------------------------------------------------------ finish

    def _ended(self, attempt: Attempt, ending: Done | Crashed) -> None:
        """The executor is done with it. What has lost its lease, or was handed back, says nothing more."""
        claimed = attempt.claimed
        if self._held.get(claimed.key) is not attempt:
            return
        del self._held[claimed.key]
        self._freed.set()
        if self._full and self._slots is not None and not self._slots.full:
            self._wake.set()
        match ending:
            case Crashed(error):
                _log_failure(claimed, error)
                outcome = crashed(claimed, error)
            case Done(error=str(error)):
                _log_failure(claimed, error)
                outcome = failed(claimed, error, attempt.plan.task.retry, random.random())  # noqa: S311 - jitter
            case Done(result=result):
                outcome = succeeded(claimed, result or b"null")
        self._finisher.put(outcome, attempt.log)

    def _hand_back(self, attempt: Attempt) -> None:
        if self._held.pop(attempt.claimed.key, None) is attempt:
            self._finisher.put(handed_back(attempt.claimed), attempt.log)

    def _stop(self, attempt: Attempt, reason: str) -> None:
        attempt.why_stopped = reason
        if attempt.plan.in_loop and self._loops is not None:
            self._loops.stop(attempt)
        elif self._slots is not None:
            self._slots.stop(attempt)

    def _definitions(self, outcomes: Sequence[Outcome]) -> Definitions:
        """The workflows of these outcomes; a claim has looked each of them up."""
        found: dict[tuple[int, str], Workflow | None] = {}
        for outcome in outcomes:
            key = outcome.claimed.revision, outcome.claimed.workflow
            if key not in found:
                found[key] = self._book.workflow(*key)
        return found

    def _workflows_in_use(self) -> set[tuple[int, str]]:
        """Those whose attempts have not ended, or are not written."""
        mine = [*(attempt.claimed for attempt in self._held.values()), *self._finisher.unwritten]
        return {(claimed.revision, claimed.workflow) for claimed in mine}

    # ------------------------------------------------------------------ keep

    async def _beat(self) -> None:
        """Renew all leases, those of unwritten outcomes too; end what has lost its own."""
        mine = [*(attempt.claimed for attempt in self._held.values()), *self._finisher.unwritten]
        if mine:
            async with queue_session(self._pool) as conn:
                lost = await task_runs.heartbeat(conn, mine, self._node, self._lease)
                ended = await runs.ended(conn, {claimed.run_id for claimed in lost})
            for claimed in lost:
                self._lose(claimed, run_ended=claimed.run_id in ended)
        await asyncio.sleep(self._lease.total_seconds() / 3)

    def _lose(self, claimed: Claimed, *, run_ended: bool) -> None:
        attempt = self._held.get(claimed.key)
        if attempt is None or attempt.claimed is not claimed:
            return  # it has ended meanwhile
        del self._held[claimed.key]
        self._freed.set()
        told = {"run_id": str(claimed.run_id), "task": claimed.task, "attempt": claimed.attempt}
        if run_ended:
            log.info("run_cancelled", **told)
        else:
            log.warning("lease_lost", **told)
        self._stop(attempt, "its run was cancelled" if run_ended else "its lease was lost")

    async def _keep_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_SECONDS)
            for attempt in self._held.values():
                self._finisher.keep(attempt.log)


def _log_failure(claimed: Claimed, error: str) -> None:
    reason = error.partition("\n")[0][:_SHOWN]
    log.warning(
        "attempt_failed", rule=claimed.rule, run_id=str(claimed.run_id), task=claimed.task,
        attempt=claimed.attempt, reason=reason,
    )  # fmt: skip


async def _within(waiting: Awaitable[object], seconds: float) -> None:
    """Wait for it, but not longer than that."""
    try:
        async with asyncio.timeout(seconds):
            await waiting
    except TimeoutError:
        return
