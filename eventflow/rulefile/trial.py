"""Runs a case through the same pure `decide` as ingest: no database, no clock, no task is executed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID, uuid5

from eventflow.event import JSON, Event
from eventflow.matching.effects import Letter, Taken
from eventflow.matching.match import decide
from eventflow.rulefile.cases import Case, Given
from eventflow.rulefile.ruleset import RuleSet

_NAMESPACE = UUID("6f1c5c1e-2f43-5f0c-9d4e-0d6a51b7c0aa")


@dataclass(frozen=True, slots=True)
class Fired:
    """A rule fired. `inputs` are the run's parameters, or the emitted event's data."""

    rule: str
    at: datetime
    inputs: JSON
    event: Event


@dataclass(frozen=True, slots=True)
class Emitted:
    """A rule emitted an event."""

    type: str
    at: datetime
    data: JSON
    rule: str


@dataclass(slots=True)
class Observed:
    """Everything that a case set off, in order; `taken` are all events, emitted ones included."""

    fired: list[Fired] = field(default_factory=list[Fired])
    emitted: list[Emitted] = field(default_factory=list[Emitted])
    letters: list[Letter] = field(default_factory=list[Letter])
    taken: list[Taken] = field(default_factory=list[Taken])


@dataclass(frozen=True, slots=True)
class Variation:
    """The case's events in one order and cut into batches. `label` says which, for people."""

    label: str
    batches: Sequence[Sequence[Given]]


def variations(case: Case, seed: int) -> Iterator[Variation]:
    """The case as written, an event a batch; then its shuffles and splits, the same for the same seed."""
    given = [one for one in case.given if one.event is not None]
    yield Variation("as written", [[one] for one in given])
    for number in range(1, case.shuffles + 1):
        chance = random.Random(f"{seed}:shuffle:{number}")  # noqa: S311 - reproducible on purpose
        yield Variation(f"shuffle {number} of seed {seed}", [[one] for one in _shuffled(given, chance)])
    for number in range(1, case.splits + 1):
        chance = random.Random(f"{seed}:split:{number}")  # noqa: S311 - reproducible on purpose
        yield Variation(f"split {number} of seed {seed}", list(_split(given, chance)))


def observe(ruleset: RuleSet, variation: Variation) -> Observed:
    """What the rules make of the events. What they emit comes back to them at the same instant."""
    observed = Observed()
    seen: set[tuple[str, str]] = set()
    for batch in variation.batches:
        events = [(one.event, one.at) for one in batch if one.event is not None]
        while events:
            fresh = [one for one in events if (one[0].source, one[0].id) not in seen]
            seen.update((event.source, event.id) for event, _ in fresh)
            events = _take(ruleset, fresh, observed)
    return observed


def _take(
    ruleset: RuleSet, events: Sequence[tuple[Event, datetime]], observed: Observed
) -> list[tuple[Event, datetime]]:
    """Decide one batch, note what it set off, and return what it emitted."""
    taken = [Taken(event, uuid5(_NAMESPACE, f"{event.source}\0{event.id}"), at) for event, at in events]
    decision = decide(ruleset, taken)
    observed.taken += taken
    observed.letters += decision.letters
    back: list[tuple[Event, datetime]] = []
    for firing in decision.firings:
        at = firing.taken.ingested
        inputs: JSON = firing.start.params if firing.start else firing.emit.data if firing.emit else None
        observed.fired.append(Fired(firing.rule.name, at, inputs, firing.taken.event))
        if firing.emit is not None:
            observed.emitted.append(Emitted(firing.emit.type, at, firing.emit.data, firing.rule.name))
            back.append((firing.emit, at))
    return back


def _shuffled(given: Sequence[Given], chance: random.Random) -> list[Given]:
    """Entries of the same instant change places; time itself does not."""
    return sorted(given, key=lambda one: (one.at, chance.random()))


def _split(given: Sequence[Given], chance: random.Random) -> Iterator[Sequence[Given]]:
    start = 0
    for end in range(1, len(given) + 1):
        if end == len(given) or chance.random() < 0.5:
            yield given[start:end]
            start = end
