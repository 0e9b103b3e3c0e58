"""Where `async def` tasks run, and those of connectors' kinds: one loop on a thread of its own.

A task that blocks the loop stops its fellow tasks there, and nothing else. When the loop does not answer for
a while, new calls go to a fresh thread; the old one ends with its last task.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import lru_cache
from inspect import isawaitable
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop

from eventflow.errors import TaskError
from eventflow.task import describe_error, encode_result
from eventflow.worker.attempt import Attempt
from eventflow.worker.capture import current_sink, task_logger
from eventflow.worker.hidden import cover
from eventflow.worker.kinds import CLOSE_SECONDS, Kinds
from eventflow.worker.versions import load_function
from eventflow.worker.wire import Done
from eventflow.workflow.definition import OfKind

log = structlog.get_logger()

Ended = Callable[[Attempt, Done], None]
"""Called on the serving loop when an attempt has ended."""

BLOCKED_AFTER: Final = 5.0
"""Seconds without an answer, after which a loop counts as blocked."""

MAX_THREADS: Final = 8


class TaskLoop:
    """One thread with a loop. All methods are called on the serving loop unless they say otherwise."""

    def __init__(self, ended: Ended) -> None:
        self._ended = ended
        self._serving = asyncio.get_running_loop()
        self._variables = copy_context()
        self._loop = uvloop.new_event_loop()
        self._inbox: deque[Attempt] = deque()
        self._outbox: deque[tuple[Attempt, Done]] = deque()
        self._tasks: dict[Attempt, asyncio.Task[None]] = {}
        self._kinds = Kinds()
        self._retired = False
        self._closing: asyncio.Task[None] | None = None
        self.started: dict[Attempt, float] = {}
        self.answered = self._serving.time()
        self._thread = threading.Thread(target=self._run, daemon=True, name="eventflow-tasks")
        self._thread.start()

    def start(self, attempts: Sequence[Attempt]) -> None:
        """Execute these; `ended` hears of each."""
        now = self._serving.time()
        self.started.update((attempt, now) for attempt in attempts)
        self._inbox.extend(attempts)
        self._loop.call_soon_threadsafe(self._begin)

    def stop(self, attempt: Attempt) -> None:
        """Cancel it, as soon as it lets go of the loop."""
        self._post(self._cancel, attempt)

    def ask(self) -> None:
        """Have `answered` renewed, if the loop is not blocked."""
        self._post(lambda: self._serving.call_soon_threadsafe(self._answer, self._serving.time()))

    def retire(self) -> None:
        """End the thread after its last task."""
        self._post(self._end_when_idle)

    def close(self) -> None:
        """Cancel what runs and end the thread; one that is blocked is left behind, it is a daemon."""
        self._post(self._cancel_all)
        self.retire()
        self._thread.join(1.0 + (CLOSE_SECONDS if self._kinds.made else 0.0))

    def _post(self, call: Callable[..., object], *args: object) -> None:
        """Call it on the thread. A retired loop has closed itself after its last task, and needs no call."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *args)

    def _answer(self, at: float) -> None:
        self.answered = at

    # ---------------------------------------------------------------- on the thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _begin(self) -> None:
        while self._inbox:
            attempt = self._inbox.popleft()
            variables = copy_context()
            variables.run(current_sink.set, attempt.log.write)
            task = self._loop.create_task(self._execute(attempt), context=variables)
            self._tasks[attempt] = task

    def _cancel(self, attempt: Attempt) -> None:
        task = self._tasks.get(attempt)
        if task is not None:
            task.cancel()

    def _cancel_all(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    def _end_when_idle(self) -> None:
        self._retired = True
        if not self._tasks and self._closing is None:
            self._closing = self._loop.create_task(self._end(), context=self._variables.copy())

    async def _end(self) -> None:
        await self._kinds.close()
        self._loop.stop()

    async def _execute(self, attempt: Attempt) -> None:
        try:
            done = Done(encode_result(await _limited(attempt, self._kinds)))
        except asyncio.CancelledError:
            done = Done(error=attempt.why_stopped or "cancelled by itself")
        except BaseException as error:  # SystemExit and KeyboardInterrupt would end the thread's loop
            done = Done(error=cover(describe_error(error, attempt.call.folder), attempt.call.hidden))
        del self._tasks[attempt]
        self._outbox.append((attempt, done))
        if len(self._outbox) == 1:
            with suppress(RuntimeError):  # the serving loop is closed: nobody listens any more
                # Not in the task's context: what is printed from there would go to its log.
                self._serving.call_soon_threadsafe(self._report, context=self._variables)
        if self._retired:
            self._end_when_idle()

    def _report(self) -> None:
        """On the serving loop: hand over everything that has ended since."""
        while self._outbox:
            attempt, done = self._outbox.popleft()
            self.started.pop(attempt, None)
            self._ended(attempt, done)


async def _limited(attempt: Attempt, kinds: Kinds) -> Any:
    seconds = attempt.call.timeout
    if seconds is None:
        return await _call(attempt, kinds)
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await _call(attempt, kinds)
    except TimeoutError:
        if limit.expired():
            raise TaskError(timed_out(seconds)) from None
        raise


async def _call(attempt: Attempt, kinds: Kinds) -> Any:
    call = attempt.call
    if isinstance(attempt.plan.task.call, OfKind):
        return await kinds.run(attempt.plan.task.call, attempt)
    function = _function(call.folder, call.target)
    arguments = call.keywords()
    if attempt.plan.function.wants_context:
        arguments["ctx"] = call.context(task_logger(attempt.log.write))
    result = function(**arguments)
    return await result if isawaitable(result) else result


@lru_cache(maxsize=1024)
def _function(folder: str, target: str) -> Callable[..., Any]:
    return load_function(Path(folder), target)


def timed_out(seconds: float) -> str:
    """What a task's error says when its `timeout` is over."""
    return f"timed out after {seconds:g} s"


class TaskLoops:
    """The loop that new calls go to, and blocked ones that still have tasks."""

    def __init__(self, ended: Ended) -> None:
        self._ended = ended
        self._current = TaskLoop(ended)
        self._blocked: list[TaskLoop] = []

    def start(self, attempts: Sequence[Attempt]) -> None:
        """Execute these; `ended` hears of each, or of its timeout."""
        self._current.start(attempts)

    def stop(self, attempt: Attempt) -> None:
        """Cancel it. One that blocks its loop goes on, and nobody waits for what it returns."""
        for loop in (self._current, *self._blocked):
            if attempt in loop.started:
                loop.stop(attempt)

    async def watch(self) -> None:
        """Once a second: replace a blocked loop; end the wait for what ignores its timeout."""
        while True:
            await asyncio.sleep(1.0)
            if self._current.started:
                self._current.ask()
            now = asyncio.get_running_loop().time()
            for loop in (self._current, *self._blocked):
                self._end_overdue(loop, now)
            self._blocked = [loop for loop in self._blocked if loop.started]
            if not self._current.started:
                self._current.answered = now
            elif now - self._current.answered > BLOCKED_AFTER and len(self._blocked) < MAX_THREADS - 1:
                self._replace_blocked(now)

    def close(self) -> None:
        """End all threads that can be ended."""
        for loop in (self._current, *self._blocked):
            loop.close()

    def _replace_blocked(self, now: float) -> None:
        tasks = sorted({f"{a.claimed.workflow}.{a.claimed.task}" for a in self._current.started})
        log.warning("task_loop_blocked", seconds=round(now - self._current.answered, 1), tasks=tasks[:10])
        self._current.retire()
        self._blocked.append(self._current)
        self._current = TaskLoop(self._ended)

    def _end_overdue(self, loop: TaskLoop, now: float) -> None:
        for attempt, started in list(loop.started.items()):
            limit = attempt.call.timeout
            if limit is not None and now - started > limit + BLOCKED_AFTER:
                del loop.started[attempt]
                reason = f"{timed_out(limit)}, and went on: it does not let itself be cancelled"
                self._ended(attempt, Done(error=reason))
