"""What a source may offer beyond the contract of `eventflow/source.py`: each a protocol, none required.

A connector that has the methods offers it; nothing is registered.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from eventflow.event import JSON
from eventflow.source import Batch

__all__ = [
    "Audited",
    "DeadLetter",
    "Examined",
    "Foretelling",
    "Locating",
    "Measured",
    "Mirroring",
    "Outside",
    "Preparing",
    "Progress",
    "Repeating",
    "Resumable",
    "Resumption",
    "Sends",
    "Spelling",
]


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
    """Where a stopped partition goes on: its new position, and the range between the old one and that.

    `missing` is None where nothing is passed over, because it goes back. A range says `from` and `to`, None
    where nobody knows; where there are several (of a log that was made anew: the rest of the
    old one, and what is left out of the new one) it is a list of them.
    """

    cursor: JSON
    missing: JSON


class Spelling(Protocol):
    """A source whose positions have a short form, for tables: the words that `resume_at` takes. Optional."""

    @staticmethod
    def spelled(cursor: JSON) -> str:
        """`5` for `{"offset": 5, "first": 0, ...}`. Also of positions that an earlier version has stored."""
        ...


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
