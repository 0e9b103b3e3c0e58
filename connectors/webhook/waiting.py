"""Requests that wait for the commit of their records: one record, or those of a batch.

A request is *queued*, then *taken* into a batch, then answered: by its receipts, or by None where the batch
was refused, nobody knows, or nothing happened for `PATIENCE` seconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from eventflow.event import Record
from eventflow.source import Receipt

MAX_WAITING = 10_000
"""Records of requests that are queued or taken and not answered."""
MAX_WAITING_BYTES = 64 << 20
"""Bodies and headers of those requests, and as much again for bodies being read."""
BATCH_RECORDS = 1000
BATCH_BYTES = 16 << 20
PATIENCE = 10.0
"""Seconds until a request is told that its outcome is unknown; senders commonly wait 10 to 30."""
BEGINNING = 1.0
"""Seconds for which requests wait for the source's first reader: HTTP may be up a moment earlier."""
_PASSES = 4
"""Passes of the event loop granted to requests that are arriving right now, to share a transaction."""
_WORTH_WAITING = 4
"""Requests. Fewer are never made to wait for others."""
_SLOW_COMMIT = 0.002
"""Seconds. After a faster commit, waiting for senders to come back costs more than it brings."""


Receipts = Sequence[Receipt | None]


class Waiter:
    """One request. A plain class: thousands of these are made and forgotten every second."""

    __slots__ = ("answer", "arrived", "records", "size")

    def __init__(self, records: Sequence[Record], size: int, loop: asyncio.AbstractEventLoop) -> None:
        self.records = records
        self.size = size
        self.arrived = loop.time()
        self.answer: asyncio.Future[Receipts | None] = loop.create_future()

    def resolve(self, receipts: Receipts | None) -> None:
        if not self.answer.done():  # it may have lost patience, or the server stopped
            self.answer.set_result(receipts)


class WaitingRoom:
    """All waiting requests of one source."""

    def __init__(self, *, patience: float = PATIENCE, places: int = MAX_WAITING, largest: int = 0) -> None:
        """`largest` is the size limit of one body in bytes: a few of those always fit."""
        self._patience = patience
        self._places = places
        self.bytes_allowed = max(MAX_WAITING_BYTES, 4 * largest)
        self._queued: deque[Waiter] = deque()
        self._taken: dict[UUID, Sequence[Waiter]] = {}
        self._arrived = asyncio.Event()
        self._enough = asyncio.Event()
        self._goal = 0
        self._took = 0.0
        self._taken_at = 0.0
        self._waiting = 0
        self._bytes = 0
        self._sweeping = False
        self._reader = asyncio.Event()
        self._begun = False

    def open(self) -> None:
        """Somebody takes what is queued."""
        self._begun = True
        self._reader.set()

    def close(self) -> None:
        """Nobody does, for now: tell the requests that no batch has taken, and those to come, at once."""
        self._begun = True
        self._reader.clear()
        while self._queued:
            self._queued.popleft().resolve(None)

    @property
    def is_open(self) -> bool:
        """Whether somebody takes what is queued."""
        return self._reader.is_set()

    async def opens(self) -> bool:
        """Whether it is open, after a moment for the first reader to begin."""
        if not self._begun:
            with suppress(TimeoutError):
                async with asyncio.timeout(BEGINNING):
                    await self._reader.wait()
            self._begun = True
        return self._reader.is_set()

    @property
    def full(self) -> bool:
        return self._waiting >= self._places or self._bytes >= self.bytes_allowed

    async def wait(self, records: Sequence[Record], size: int) -> Receipts | None:
        """Queue the records; return their receipts once they are durable, None where refused or unknown.

        They go into one batch, and so into one transaction.
        """
        loop = asyncio.get_running_loop()
        waiter = Waiter(records, size, loop)
        self._queued.append(waiter)
        self._waiting += len(records)
        self._bytes += size
        self._arrived.set()
        if self._goal and len(self._queued) >= self._goal:
            self._enough.set()
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(self._patience / 8, self._sweep, loop)
        try:
            return await waiter.answer
        finally:
            self._waiting -= len(records)
            self._bytes -= size

    async def next_requests(self) -> Sequence[Waiter]:
        """At least one queued request, oldest first: what waits, up to the size of a batch."""
        while True:
            await self._arrived.wait()
            await self._gather()
            taken = self._pop()
            if not self._queued:
                self._arrived.clear()
            if taken:
                return taken

    async def _gather(self) -> None:
        """Let those in that are at the door.

        Senders answered a moment ago are likely to come again at once. Were the next batch to leave
        without them, two groups of senders would take turns for ever, each waiting for the other's commit:
        measured, half the rate. So after a slow commit we wait for as many as were there, a quarter of
        that commit's time at most.
        """
        seen = 0
        for _ in range(_PASSES):
            if len(self._queued) == seen:
                break
            seen = len(self._queued)
            await asyncio.sleep(0)
        goal, self._goal = min(self._goal, BATCH_RECORDS), 0
        if goal < _WORTH_WAITING or self._took < _SLOW_COMMIT or len(self._queued) >= goal:
            return
        self._goal = goal
        self._enough.clear()
        loop = asyncio.get_running_loop()
        timer = loop.call_later(min(self._took / 4, 2 * _SLOW_COMMIT), self._enough.set)
        try:
            await self._enough.wait()
        finally:
            timer.cancel()
            self._goal = 0

    def _pop(self) -> list[Waiter]:
        queued, taken, size, records = self._queued, list[Waiter](), 0, 0
        while queued and records < BATCH_RECORDS and (not taken or size + queued[0].size <= BATCH_BYTES):
            waiter = queued.popleft()
            size += waiter.size
            records += len(waiter.records)
            taken.append(waiter)
        return taken

    def hand_over(self, batch: UUID, taken: Sequence[Waiter]) -> None:
        """Remember whose answers the batch decides."""
        self._taken[batch] = taken
        self._taken_at = asyncio.get_running_loop().time()

    def answer(self, batch: UUID, receipts: Receipts) -> None:
        """Answer every request of the batch; `receipts` is parallel to its records."""
        taken, begin = self._taken.pop(batch, ()), 0
        for waiter in taken:
            end = begin + len(waiter.records)
            waiter.resolve(receipts[begin:end])
            begin = end
        self._goal = len(taken) + len(self._queued)
        self._took = asyncio.get_running_loop().time() - self._taken_at

    def refuse(self, batch: UUID) -> None:
        """Tell every request of the batch that nobody knows."""
        for waiter in self._taken.pop(batch, ()):
            waiter.resolve(None)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer those that ran out of patience. A queued one is forgotten, its sender will repeat it."""
        too_old = loop.time() - self._patience
        while self._queued and self._queued[0].arrived <= too_old:
            self._queued.popleft().resolve(None)
        for batch, taken in list(self._taken.items()):
            for waiter in taken:
                if waiter.arrived > too_old:
                    break
                waiter.resolve(None)
            else:
                del self._taken[batch]
        self._sweeping = bool(self._queued or self._taken)
        if self._sweeping:
            loop.call_later(self._patience / 8, self._sweep, loop)
