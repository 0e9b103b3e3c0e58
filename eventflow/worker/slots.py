"""The task processes of a worker, and the attempts that wait for one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from eventflow.worker.attempt import Attempt
from eventflow.worker.slot import Crashed, Slot
from eventflow.worker.wire import Done

log = structlog.get_logger()

Ended = Callable[[Attempt, Done | Crashed], None]

_AHEAD_SECONDS: Final = 0.1
_AHEAD_MOST: Final = 32


class Slots:
    """`size` slots; a process starts when it is first needed, and stays."""

    def __init__(self, size: int, ended: Ended) -> None:
        self._ended = ended
        self._slots = [Slot() for _ in range(size)]
        self._idle: dict[Slot, asyncio.Future[Attempt]] = {}
        self._waiting: deque[Attempt] = deque()
        self._usual_seconds = _AHEAD_SECONDS

    @property
    def full(self) -> bool:
        """As many attempts wait as the processes are likely to get done in a tenth of a second.

        Waiting here they cannot be executed by another node, so short tasks are fetched ahead, long ones not.
        """
        ahead = min(max(_AHEAD_SECONDS / self._usual_seconds, 1), _AHEAD_MOST)
        return len(self._waiting) >= ahead * len(self._slots)

    def start(self, attempts: Sequence[Attempt]) -> None:
        """Execute these as slots come free, in their order; `ended` hears of each."""
        for attempt in attempts:
            slot = min(self._idle, key=lambda slot: self._cost(slot, attempt), default=None)
            if slot is None:
                self._waiting.append(attempt)
            else:
                self._idle.pop(slot).set_result(attempt)

    @staticmethod
    def _cost(slot: Slot, attempt: Attempt) -> int:
        """A warm process for the same code first, then a new one, then one in place of another's."""
        return 0 if slot.folder == attempt.call.folder else 1 if slot.folder is None else 2

    def stop(self, attempt: Attempt) -> None:
        """End it, or its wait for a slot."""
        if attempt in self._waiting:
            self._waiting.remove(attempt)
        for slot in self._slots:
            slot.stop(attempt)

    def not_started(self) -> list[Attempt]:
        """Take back what still waits for a slot."""
        waiting, self._waiting = list(self._waiting), deque()
        return waiting

    async def run(self) -> None:
        """Serve until cancelled; then every process is killed."""
        async with asyncio.TaskGroup() as group:
            for slot in self._slots:
                group.create_task(self._serve(slot))

    async def _serve(self, slot: Slot) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                attempt = await self._next(slot)
                started = loop.time()
                ending = await _executed(slot, attempt)
                self._usual_seconds += 0.2 * (loop.time() - started - self._usual_seconds)
                self._ended(attempt, ending)
        finally:
            slot.kill()

    async def _next(self, slot: Slot) -> Attempt:
        """The first that waits, but one for this slot's version of the code before others."""
        for index, attempt in enumerate(self._waiting):
            if attempt.call.folder == slot.folder:
                del self._waiting[index]
                return attempt
        if self._waiting:
            return self._waiting.popleft()
        self._idle[slot] = asyncio.get_running_loop().create_future()
        return await self._idle[slot]


async def _executed(slot: Slot, attempt: Attempt) -> Done | Crashed:
    """Whatever goes wrong with one attempt must not end the others."""
    try:
        return await slot.execute(attempt)
    except Exception as error:
        log.exception("slot_failed", run_id=attempt.call.run_id, task=attempt.call.task)
        slot.kill()
        return Crashed(f"its process could not be used: {error!r}")
