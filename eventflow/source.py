"""What a connector is to eventflow: the whole contract, in two protocols and a few values.

A *connector* is a class, registered under the entry point group `eventflow.sources`; a *source* is one
instance of it, configured in a rule file. eventflow calls, for every partition it owns,

    async for batch in source.batches(partition, cursor):
        ... one Postgres transaction takes the batch in ...
        await source.committed(batch, receipts)

and never reads ahead of the commit. A connector never touches the store and never acknowledges
anything before `committed`. `eventflow.testing.source_contract` is the test suite of this page. What a
source may offer beyond it, to people and commands, is in `eventflow/offers.py`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol
from uuid import UUID

import msgspec
from pydantic import BaseModel

from eventflow.event import JSON, Record, new_uid
from eventflow.units import Duration, Size

__all__ = [
    "Batch",
    "Delivery",
    "Duration",
    "Known",
    "Mark",
    "Predicate",
    "Receipt",
    "Rereading",
    "RoutedSource",
    "Size",
    "Source",
    "SourceContext",
]


class Delivery(StrEnum):
    """How a source tells a record it has handed over from one it has not."""

    ordered = "ordered"
    """A cursor: the position after the batch. Resume is strictly after it."""
    ledger = "ledger"
    """Marks: one fingerprint and generation per item. What the ledger knows is not handed over again."""
    pushed = "pushed"
    """Nothing: the sender waits for our answer and repeats itself; `Event.dedupe` finds the repeats.
    Has no owner, every node serves it."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A new row of the ledger: what is now known of `item`.

    `generation` is the one written; the ledger must hold `generation - 1` (0: nothing) or the mark has
    lost, and its record is dropped. `record` is the index of the batch's record this mark vouches for;
    None writes the mark alone. `present=False` says that the item is gone.
    """

    item: bytes
    fingerprint: bytes
    generation: int
    record: int | None = None
    present: bool = True


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger holds of an item."""

    fingerprint: bytes
    generation: int
    present: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Records read together, and what makes them count once.

    Ordered: `cursor` is the JSON position after the last record; a batch without records moves the position
    alone, over what is no record. Ledger: `marks`. Pushed: neither.
    `dedupe_for` is how long `Event.dedupe` keys of this batch are remembered. `id` names the batch
    through every retry of its transaction.
    """

    records: Sequence[Record]
    cursor: JSON = None
    marks: Sequence[Mark] = ()
    dedupe_for: timedelta = timedelta(days=7)
    id: UUID = field(default_factory=new_uid)


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What became of one record: `id` and `uid` of the event that stands for it.

    `duplicate` is true where an earlier event does. For a broken record both name the dead letter. A
    record whose mark lost has no receipt (None in the list).
    """

    id: str
    uid: UUID
    duplicate: bool = False


class Predicate(Protocol):
    """A compiled CEL expression over named variables; `Undecodable` where it ends in an error."""

    def __call__(self, values: Mapping[str, JSON], /) -> JSON: ...


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What the core hands to a source when it is made.

    `folder` is the absolute folder of the rule file that declares it: relative paths start there.
    `known(items)` reads the source's ledger: a mapping holding only the items it knows.
    `known_all()` iterates over the whole ledger, for scans, in no order.
    `secret(name)` resolves `${secret.NAME}` at use. `expression(text, variables)` compiles a connector's CEL
    over the named variables. `now()` is the database's time as this node knows it, aware, in UTC: the only
    clock that decides what is due. `began_with(partitions)` keeps these as the partitions that the source
    began with, unless some are kept already, and gives those that are kept: the same to every node and for
    ever, so that what was there at the first start is told from what came later.
    """

    folder: Path
    known: Callable[[Sequence[bytes]], Awaitable[Mapping[bytes, Known]]]
    known_all: Callable[[], AsyncIterator[tuple[bytes, Known]]]
    secret: Callable[[str], str]
    expression: Callable[[str, Sequence[str]], Predicate]
    now: Callable[[], datetime]
    began_with: Callable[[Sequence[str]], Awaitable[Collection[str]]]


class Source(Protocol):
    """One configured stream, made with `connector(name, config, context)`. No I/O before `partitions`."""

    Config: ClassVar[type[BaseModel]]
    """The words of the source's block in a rule file besides `connector:`; extra words are refused."""
    delivery: ClassVar[Delivery]

    async def origin(self) -> str | None:
        """What stands behind the address: root folder, cluster id, system identifier. None: no such thing.

        Raises `SourceUnavailable` when it cannot be asked.
        """
        ...

    async def partitions(self) -> Sequence[str]:
        """The units of order and ownership, perhaps none yet. Asked again now and then.

        Raises `SourceUnavailable` when they cannot be listed.
        """
        ...

    def batches(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        """Batches strictly after `cursor` (None: from the configured beginning), for ever.

        Waits where there is nothing to hand over. The next batch is asked for only after `committed`
        of the last. Closing the iterator releases what it holds.
        Raises `SourceUnavailable` or `SourceStopped`.
        """
        ...

    async def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None:
        """The batch is durable: acknowledge it. `receipts` is parallel to `batch.records`."""
        ...

    async def refused(self, batch: Batch, error: Exception) -> None:
        """The batch did not commit, or nobody knows: whoever waits for an answer must hear so."""
        ...


class RoutedSource(Protocol):
    """A source that also serves HTTP at `/hooks/NAME`: a bare ASGI application, mounted by the API."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class Rereading(Protocol):
    """A source that can make its record again from the bytes that were kept: for replays and `explain`.

    Optional. Without it stored bytes are read as JSON.
    """

    def reread(self, raw: bytes, meta: Mapping[str, JSON]) -> Record:
        """The record of `raw`, which may have been edited since it arrived with this `meta`. No I/O."""
        ...
