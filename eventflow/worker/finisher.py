"""The way out: outcomes of attempts wait here for the transaction that writes as many as there are."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

import structlog

from eventflow.forever import forever
from eventflow.store import task_logs
from eventflow.store.failures import is_conflict, is_disconnect
from eventflow.store.finish import Definitions, Finished, Wanted, finish
from eventflow.store.outcomes import Outcome
from eventflow.store.plans import queue_session
from eventflow.store.pool import Connection, Pool
from eventflow.store.task_logs import Chunk
from eventflow.store.task_runs import Claimed
from eventflow.worker.attempt import AttemptLog

log = structlog.get_logger()

MOST_AT_ONCE: Final = 500
BYTES_AT_ONCE: Final = 16 * 1024 * 1024
CHUNKS_AT_ONCE: Final = 16
"""A chunk has a little over 1 MiB at most."""


class Finisher:
    """Takes outcomes, writes them, and says what that set off.

    An outcome is written again until Postgres has answered: where the answer to a commit was lost, the
    second try finds its attempt ended already and changes nothing.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        definitions: Callable[[Sequence[Outcome]], Definitions],
        wanted: Wanted,
        tasks_ready: Callable[[], None],
        announce: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._definitions = definitions
        self._wanted = wanted
        self._tasks_ready = tasks_ready
        self._announce = announce
        self._pending: list[Outcome] = []
        self._writing: Sequence[Outcome] = ()
        self._chunks: list[Chunk] = []
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, outcome: Outcome, written: AttemptLog | None = None) -> None:
        """Write this, soon."""
        if written is not None:
            self.keep(written)
        self._pending.append(outcome)
        self._idle.clear()
        self._news.set()

    def keep(self, written: AttemptLog) -> None:
        """Write what has come to this log, soon."""
        chunk = written.take()
        if chunk is not None:
            self._chunks.append(chunk)
            self._news.set()

    @property
    def unwritten(self) -> list[Claimed]:
        """The attempts whose outcome is not in Postgres yet: their leases are still needed."""
        return [outcome.claimed for outcome in (*self._writing, *self._pending)]

    async def idle(self) -> None:
        """Wait until everything is written."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write until cancelled, through everything that Postgres does."""
        await forever("finisher", self._write_on_one_session)

    async def _write_on_one_session(self) -> None:
        async with queue_session(self._pool) as conn:
            await self._write_all(conn)

    async def _write_all(self, conn: Connection) -> None:
        while True:
            if not self._writing:
                if not self._pending:
                    self._idle.set()
                await self._news.wait()
                count = _how_many(self._pending)
                self._writing, self._pending = self._pending[:count], self._pending[count:]
                if not self._pending:
                    self._news.clear()
            # Logs first: whoever sees that a run has ended finds its whole log.
            while self._chunks:
                await self._append(conn)
            if self._writing:
                await self._write(conn, self._writing)
            self._writing = ()

    async def _append(self, conn: Connection) -> None:
        chunks = self._chunks[:CHUNKS_AT_ONCE]
        try:
            await task_logs.append(conn, chunks)
        except Exception as error:
            if is_disconnect(error):
                raise
            log.exception("task_log_lost", chunks=len(chunks))
        del self._chunks[: len(chunks)]

    async def _write(self, conn: Connection, outcomes: Sequence[Outcome]) -> None:
        try:
            self._tell(await self._finish(conn, outcomes))
        except Exception as error:
            if is_disconnect(error):
                raise
            await self._write_each(conn, outcomes, error)

    async def _finish(self, conn: Connection, outcomes: Sequence[Outcome]) -> Finished:
        conflicts = 0
        while True:
            try:
                return await finish(conn, outcomes, self._definitions(outcomes), self._wanted)
            except Exception as error:
                if not is_conflict(error) or conflicts == 5:
                    raise
                conflicts += 1
                await asyncio.sleep(random.uniform(0, 0.01 * 2**conflicts))  # noqa: S311 - jitter

    async def _write_each(self, conn: Connection, outcomes: Sequence[Outcome], why: Exception) -> None:
        """One that cannot be written must not hold up the others; it is rescued when its lease ends."""
        for outcome in outcomes:
            try:
                self._tell(await self._finish(conn, [outcome]))
            except Exception as error:
                if is_disconnect(error):
                    raise
                c = outcome.claimed
                log.error("finish_failed", run_id=str(c.run_id), task=c.task, attempt=c.attempt, exc_info=why)

    def _tell(self, finished: Finished) -> None:
        if finished.readied:
            self._tasks_ready()
        if finished.emitted:
            self._announce()
        if finished.soonest is not None:
            self._wake_after(finished.soonest)
        for outcome in finished.refused:
            c = outcome.claimed
            log.warning(
                "result_refused", run_id=str(c.run_id), task=c.task, attempt=c.attempt, state=outcome.state
            )

    def _wake_after(self, wait: timedelta) -> None:
        asyncio.get_running_loop().call_later(wait.total_seconds(), self._tasks_ready)


def _how_many(outcomes: Sequence[Outcome]) -> int:
    """How many to write at once: one at least, then up to both limits."""
    size = 0
    for count, outcome in enumerate(outcomes[:MOST_AT_ONCE]):
        size += len(outcome.result or b"")
        if size > BYTES_AT_ONCE:
            return max(count, 1)
    return min(len(outcomes), MOST_AT_ONCE)
