"""eventflow's side of the source contract, in memory: what the contract suite reads sources with.

A test of a connector can stop anywhere between a batch and its commit, which the real transaction does
not offer; against the real one the integration tests and the kill run stand.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from eventflow.context import predicate
from eventflow.event import JSON, Record, decode_json, encode_json, new_uid
from eventflow.secret import secret
from eventflow.source import Batch, Delivery, Known, Mark, Receipt, Source, SourceContext

_NOTHING: Final = Known(b"", 0, present=False)


class Core:
    """What outlives a source, as Postgres outlives a process: cursors, ledger, what was taken in."""

    def __init__(self, folder: Path) -> None:
        self.ahead = timedelta(0)
        """How far `now()` of the context is ahead of the machine's clock: a test may move it."""
        self.taken: list[Record] = []
        self.ledger: dict[bytes, Known] = {}
        self._folder = folder
        self._cursors: dict[str, bytes] = {}
        self._began_with: Collection[str] | None = None

    def context(self) -> SourceContext:
        """What a source is made with. Secrets and expressions are the real ones."""
        return SourceContext(
            self._folder, self._known, self._known_all, secret, predicate, self._now, self._first
        )

    def cursor(self, partition: str) -> JSON:
        """Where the partition stands: decoded anew, None before its first commit."""
        stored = self._cursors.get(partition)
        return None if stored is None else decode_json(stored)

    def move(self, partition: str, cursor: JSON) -> None:
        """A person lets the partition go on elsewhere."""
        self._cursors[partition] = encode_json(cursor)

    def commit(self, partition: str, batch: Batch) -> list[Receipt | None]:
        """One transaction: marks by compare-and-set, the cursor, the records whose mark did not lose."""
        lost = {mark.record for mark in batch.marks if not self.write(mark)}
        if batch.cursor is not None:
            self._cursors[partition] = encode_json(batch.cursor)
        receipts = [
            None if index in lost else Receipt(getattr(record, "id", "dead letter"), new_uid())
            for index, record in enumerate(batch.records)
        ]
        self.taken += [record for record, receipt in zip(batch.records, receipts, strict=True) if receipt]
        return receipts

    def write(self, mark: Mark) -> bool:
        """Write a row of the ledger; False where another node was there first."""
        if self.ledger.get(mark.item, _NOTHING).generation != mark.generation - 1:
            return False
        self.ledger[mark.item] = Known(mark.fingerprint, mark.generation, mark.present)
        return True

    def _now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    async def _first(self, partitions: Sequence[str]) -> Collection[str]:
        if self._began_with is None:
            self._began_with = frozenset(partitions)
        return self._began_with

    async def _known(self, items: Sequence[bytes]) -> Mapping[bytes, Known]:
        return {item: self.ledger[item] for item in items if item in self.ledger}

    async def _known_all(self) -> AsyncIterator[tuple[bytes, Known]]:
        for entry in list(self.ledger.items()):
            yield entry


class Reading:
    """One instance of a source, read as eventflow reads it: every partition, one batch at a time.

    async with Reading(source, core) as reading:
        partition, batch = await reading.next()
        await reading.commit(partition, batch)

    Leaving it closes the source, committed or not: that is a crash, as far as a source can tell.
    """

    def __init__(
        self, source: Source, core: Core, deadline: float = 10, prompt: float = 2,
        sent: Callable[[Sequence[Record]], int] = len,
    ) -> None:  # fmt: skip
        self.source = source
        self._sent = sent
        self._core = core
        self._deadline = deadline
        self._prompt = prompt
        self._batches: dict[str, AsyncGenerator[Batch]] = {}
        self._asked: dict[asyncio.Task[Batch], str] = {}

    async def __aenter__(self) -> Self:
        for partition in await self.source.partitions():
            self._batches[partition] = self.source.batches(partition, self._core.cursor(partition))
            self._ask(partition)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises `TimeoutError` where the source does not close promptly."""
        async with asyncio.timeout(self._prompt):
            for asked in self._asked:
                asked.cancel()
            await asyncio.gather(*self._asked, return_exceptions=True)
            for batches in self._batches.values():
                await batches.aclose()

    async def next(self) -> tuple[str, Batch]:
        """The next batch with records of any partition; those without are committed by the way."""
        async with asyncio.timeout(self._deadline):
            while True:
                partition, batch = await self.next_of_any_kind()
                if batch.records:
                    return partition, batch
                await self.commit(partition, batch)

    async def next_of_any_kind(self) -> tuple[str, Batch]:
        """The next batch of any partition, with records or without."""
        assert self._batches, "the source has no partition to read"
        async with asyncio.timeout(self._deadline):
            done, _ = await asyncio.wait(self._asked, return_when=asyncio.FIRST_COMPLETED)
        asked = done.pop()
        partition, batch = self._asked.pop(asked), asked.result()
        _check_form(batch, self.source.delivery, self._core.ledger)
        return partition, batch

    async def commit(self, partition: str, batch: Batch) -> None:
        """The transaction, the acknowledgement, and only then the request for the partition's next batch."""
        receipts = self._core.commit(partition, batch)
        await self.source.committed(batch, receipts)
        self._ask(partition)

    async def refuse(self, partition: str, batch: Batch) -> None:
        """The transaction failed; the source is asked for the next batch all the same."""
        await self.source.refused(batch, ConnectionError("the contract's core refused this batch"))
        self._ask(partition)

    async def take(self, count: int) -> list[Record]:
        """Read and commit until records have come that stand for at least `count` things sent."""
        records: list[Record] = []
        while self._sent(records) < count:
            partition, batch = await self.next()
            records += batch.records
            await self.commit(partition, batch)
        return records

    def _ask(self, partition: str) -> None:
        self._asked[asyncio.ensure_future(anext(self._batches[partition]))] = partition


def _check_form(batch: Batch, delivery: Delivery, ledger: Mapping[bytes, Known]) -> None:
    """What every batch must look like, whatever is in it."""
    assert batch.records or batch.marks or delivery is Delivery.ordered, "a batch may not be empty"
    assert (batch.cursor is not None) == (delivery is Delivery.ordered), "a cursor: always, or never"
    if delivery is not Delivery.ledger:
        assert not batch.marks, "only a ledger source has marks"
        return
    items = [mark.item for mark in batch.marks]
    assert len(set(items)) == len(items), "two marks of one item in a batch: the second one always loses"
    vouched = sorted(mark.record for mark in batch.marks if mark.record is not None)
    assert vouched == list(range(len(batch.records))), "each record needs exactly one mark"
    for mark in batch.marks:
        held = ledger.get(mark.item, _NOTHING).generation
        assert mark.generation == held + 1, f"{mark.item!r}: generation {mark.generation} after {held}"
