"""What a connector is to eventflow: the whole contract, in two protocols and a few values.

A *connector* is a class, registered under the entry point group `eventflow.sources`; a *source* is one
instance of it, configured in a rule file. eventflow calls, for every partition it owns,

    async for batch in source.batches(partition, cursor):
        ... one Postgres transaction takes the batch in ...
        await source.committed(batch, receipts)

and never reads ahead of the commit. A connector never touches the store and never acknowledges
anything before `committed`. `eventflow.testing.source_contract` is the test suite of this page.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol
from uuid import UUID

from pydantic import BaseModel

from eventflow.event import JSON, Record, new_uid
from eventflow.units import Duration, Size

__all__ = [
    "Audited",
    "Batch",
    "DeadLetter",
    "Delivery",
    "Duration",
    "Examined",
    "Foretelling",
    "Known",
    "Locating",
    "Mark",
    "Measured",
    "Mirroring",
    "Outside",
    "Predicate",
    "Preparing",
    "Progress",
    "Receipt",
    "Repeating",
    "Rereading",
    "Resumable",
    "Resumption",
    "RoutedSource",
    "Sends",
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


@dataclass(frozen=True, slots=True)
class Receipt:
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
    clock that decides what is due.
    """

    folder: Path
    known: Callable[[Sequence[bytes]], Awaitable[Mapping[bytes, Known]]]
    known_all: Callable[[], AsyncIterator[tuple[bytes, Known]]]
    secret: Callable[[str], str]
    expression: Callable[[str, Sequence[str]], Predicate]
    now: Callable[[], datetime]


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


@dataclass(frozen=True, slots=True)
class Outside:
    """What a source's system holds by its own count.

    `there` are the items that the source should take, `ignored` those that it is told not to (no pattern
    takes them) with at most 20 of their names in `ignored_names`, `unknown` the names of those of `there`
    that eventflow has not taken in, at most 20, with `unknown_count` in all.
    """

    there: int
    ignored: int
    unknown: Sequence[str]
    unknown_count: int
    ignored_names: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Sends:
    """What the events of a source look like: every `type`, every name right below `data`. None: unknown.

    `named` says that its senders always name what they send, so that a repeat is told without more words.
    """

    types: frozenset[str] | None = None
    fields: frozenset[str] | None = None
    named: bool = False


class Foretelling(Protocol):
    """A source that can tell from its words alone what it will send: for `check`. Optional."""

    @classmethod
    def sends(cls, config: Any, /) -> Sends:
        """`config` is an instance of the connector's `Config`. No I/O."""
        ...


class Audited(Protocol):
    """A source that can be compared with its system by `audit`. Optional."""

    async def outside(self) -> Outside:
        """Count afresh. Raises `SourceUnavailable` where the system cannot be asked."""
        ...


class Repeating(Protocol):
    """An ordered source that can hand over again what it has handed over. Optional.

    For `audit --deep`.
    """

    def again(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        """From the source's configured beginning, as far as that is still there, up to `cursor`, to its end.

        Without what a person has passed over. Ids and positions are those of the first time. Acknowledges and
        moves nothing: `committed` is not called.
        Raises `SourceUnavailable` where the system cannot be asked.
        """
        ...


class Locating(Protocol):
    """A source that knows its items by the names that people give them: for `explain`. Optional."""

    async def locate(self, name: str) -> str | None:
        """Why no event stands for the item `name`, in words that follow the source's name and a colon.

        None where it is no item of this source. Raises `SourceUnavailable` where the system cannot be asked.
        """
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a partition is behind its system.

    `lag` counts what is there and not taken in, in `unit` ("records", "bytes", "rows"); None: unknown.
    `note` is one sentence where something holds it back, or costs its system something.
    """

    lag: int | None
    unit: str
    note: str | None = None


class Measured(Protocol):
    """A source that can tell how far behind it is: for `sources`. Optional."""

    async def progress(self, partition: str, cursor: JSON) -> Progress:
        """Ask the system; called every few seconds by the owner of `partition`, beside `batches`.

        `cursor` is the position as stored. Raises `SourceUnavailable` where the system cannot be asked.
        """
        ...


@dataclass(frozen=True, slots=True)
class Resumption:
    """Where a stopped partition goes on: its new position, and the range between the old one and that."""

    cursor: JSON
    missing: JSON


class Resumable(Protocol):
    """A source whose partitions can go on elsewhere than where they stood. Optional.

    For `sources resume NAME --from`.
    """

    async def resume_at(self, partition: str, cursor: JSON, where: str) -> Resumption:
        """The position named `where`: "earliest", "latest", or as the connector writes its positions.

        Raises `UsageError` where `where` names none, `SourceUnavailable` where the system cannot be asked.
        """
        ...


class Preparing(Protocol):
    """A source whose system needs preparing once, by a person: for `sources setup NAME`. Optional."""

    async def preparation(self) -> Sequence[str]:
        """The statements that are still needed, in order, each complete; none where all is there.

        Raises `SourceUnavailable` where the system cannot be asked.
        """
        ...

    async def prepare(self) -> Sequence[str]:
        """Run what `preparation` names; the statements that were run."""
        ...


class Examined(Protocol):
    """A source that knows what its system cannot deliver: for `check` and `sources setup`. Optional."""

    async def examine(self) -> Sequence[str]:
        """Warnings, a sentence each: which object, what it cannot deliver, what to do.

        Raises `SourceUnavailable` where the system cannot be asked, which `check` passes over.
        """
        ...


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter of the source, of whichever stage.

    `raw` is what arrived, byte for byte. `position` says where in the source it stood (JSON), of what never
    became an event; `meta` is the event's or the broken record's. `rule` is the one it failed in.
    """

    id: UUID
    stage: str
    reason: str
    source: str
    raw: bytes
    position: JSON
    meta: Mapping[str, JSON]
    rule: str | None
    created: datetime


class Mirroring(Protocol):
    """A source that can write copies of its dead letters somewhere else. Optional."""

    @property
    def mirrors(self) -> bool:
        """Whether its words ask for that."""
        ...

    async def mirror(self, letters: Sequence[DeadLetter]) -> Mapping[UUID, str]:
        """Write a copy of each; returns when all are durable there.

        Those that the other side will never take are returned, each with the reason. At least once: the same
        letters come again where this process dies, or this raises. Takes a few seconds at most. Raises
        `SourceUnavailable` where the copies cannot be written now.
        """
        ...
