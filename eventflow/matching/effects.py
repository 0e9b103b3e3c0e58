"""What matching says is to be written. Values only: the store writes them, in the batch's transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from eventflow.event import JSON, Event, Lineage
from eventflow.matching.rule import Rule

EventClass = Literal["m", "o", "l", "u"]
"""matched, open (part of a partial match), late, unmatched: the event table's `class`."""


class Taken(msgspec.Struct, frozen=True, gc=False):
    """An event that this batch takes in: with its row's uid and the database time of the batch."""

    event: Event
    uid: UUID
    ingested: datetime


class StartRun(msgspec.Struct, frozen=True):
    """Start `workflow` with these parameters (JSON object), already checked against its types."""

    workflow: str
    params: Mapping[str, JSON]
    lineage: Lineage
    priority: int


class Firing(msgspec.Struct, frozen=True):
    """A rule's trigger was satisfied by `taken`. `id`: uuid5(taken.uid, rule name), the same on every retry.

    `emit` is the event to put into the outbox. A plain firing is admitted at once.
    """

    id: UUID
    rule: Rule
    taken: Taken
    start: StartRun | None = None
    emit: Event | None = None


class Letter(msgspec.Struct, frozen=True):
    """A dead letter of stage `match` or `start`: what this rule could not do with this event."""

    taken: Taken
    rule: Rule
    stage: Literal["match", "start"]
    reason: str


class Decision(msgspec.Struct, frozen=True):
    """Everything one batch sets off. `classes` is parallel to the events that were decided on.

    `counts` maps (rule name, counter name) to how often: `where_error`, `loop_skipped`.
    """

    classes: Sequence[EventClass]
    firings: Sequence[Firing]
    letters: Sequence[Letter]
    counts: Counter[tuple[str, str]]
