"""What a batch of events sets off: pure, so that a batch that runs again decides the same again.

    event -> rules whose pattern holds -> where -> loop guard -> firing -> start a run, emit an event

No I/O, no clock, no random ids: what a firing writes is named by its event and its rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol
from uuid import UUID, uuid5

from eventflow.errors import Undecodable, UsageError
from eventflow.event import EVENTFLOW_SOURCE, JSON, Event, Lineage, decode_json, encode_json
from eventflow.expression import Activation, EvaluationError, activate, event_values
from eventflow.matching.effects import Decision, EventClass, Firing, Letter, StartRun, Taken
from eventflow.matching.index import Matcher
from eventflow.matching.rule import OnError, Rule

MAX_DEPTH: Final = 16
"""Firings in one causal chain, whatever `reentry` allows."""

WHERE_ERROR: Final = "where_error"
LOOP_SKIPPED: Final = "loop_skipped"


class CompiledRules(Protocol):
    """What deciding needs of a rule set."""

    @property
    def matcher(self) -> Matcher: ...

    def bind(self, workflow: str, values: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """The parameters of a run. Raises `UsageError`."""
        ...


def decide(rules: CompiledRules, batch: Sequence[Taken]) -> Decision:
    """Everything that `batch` sets off. Firings stand in the order of events, then of rule files."""
    draft = _Draft(rules)
    for taken in batch:
        found = rules.matcher.match(taken.event)
        fired = draft.fire_all(found, taken) if found else False
        draft.classes.append("m" if fired else "u")
    return draft.done()


def decide_one(rules: CompiledRules, rule: Rule, taken: Taken, firing_id: UUID | None = None) -> Decision:
    """The same for one rule alone: how a dead letter of a firing is sent in again, as `firing_id`."""
    draft = _Draft(rules)
    fired = rule.takes(taken.event) and draft.fire(rule, taken, _Variables(taken), firing_id)
    draft.classes.append("m" if fired else "u")
    return draft.done()


class _Variables:
    """The values that expressions see of one event, converted once and only if one asks."""

    __slots__ = ("_activation", "_taken")

    def __init__(self, taken: Taken) -> None:
        self._taken = taken
        self._activation: Activation | None = None

    def of_event(self) -> Activation:
        if self._activation is None:
            self._activation = activate(event_values(self._taken.event, self._taken.ingested))
        return self._activation

    def of_firing(self, rule: Rule, firing: UUID) -> Activation:
        values = event_values(self._taken.event, self._taken.ingested)
        values |= {
            "events": [values["event"]],
            "key": None,
            "rule": rule.name,
            "firing.id": str(firing),
            "firing.time": self._taken.ingested,
        }
        return activate(values)


@dataclass(slots=True)
class _Draft:
    """A decision in the making."""

    rules: CompiledRules
    classes: list[EventClass] = field(default_factory=list[EventClass])
    firings: list[Firing] = field(default_factory=list[Firing])
    letters: list[Letter] = field(default_factory=list[Letter])
    counts: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])

    def done(self) -> Decision:
        return Decision(self.classes, self.firings, self.letters, self.counts)

    def fire_all(self, found: Sequence[Rule], taken: Taken) -> bool:
        variables = _Variables(taken)
        fired = [self.fire(rule, taken, variables, None) for rule in found]
        return any(fired)

    def fire(self, rule: Rule, taken: Taken, variables: _Variables, firing_id: UUID | None) -> bool:
        """Go on where the pattern holds; whether the rule fired."""
        if not self._where(rule, taken, variables) or not self._outside_loop(rule, taken):
            return False
        firing = firing_id or uuid5(taken.uid, rule.name)
        lineage = _lineage(rule, taken, firing)
        try:
            inputs = self._inputs(rule, variables, firing)
            start = emit = None
            if rule.run is not None:
                params = self.rules.bind(rule.run, inputs)
                start = StartRun(rule.run, params, lineage, rule.priority)
            if rule.emit is not None:
                emit = _emitted(rule.emit, rule, inputs, lineage, taken, firing)
        except (EvaluationError, UsageError, ValueError) as error:
            self.letters.append(Letter(taken, rule, "start", str(error)))
            return False
        self.firings.append(Firing(firing, rule, taken, start, emit))
        return True

    def _where(self, rule: Rule, taken: Taken, variables: _Variables) -> bool:
        if rule.where is None:
            return True
        try:
            return rule.where.test(variables.of_event())
        except EvaluationError as error:
            self.counts[rule.name, WHERE_ERROR] += 1
            if rule.on_error is OnError.dead_letter:
                self.letters.append(Letter(taken, rule, "match", f"where: {error}"))
            return False

    def _outside_loop(self, rule: Rule, taken: Taken) -> bool:
        lineage = taken.event.lineage
        if lineage is None:
            return True
        if lineage.rules.count(rule.name) > rule.reentry:
            self.counts[rule.name, LOOP_SKIPPED] += 1
            return False
        if ends_chain(taken.event):
            chain = " -> ".join(lineage.rules)
            reason = f"its causal chain has {MAX_DEPTH} firings already, where every chain ends: {chain}"
            self.letters.append(Letter(taken, rule, "start", reason))
            return False
        return True

    def _inputs(self, rule: Rule, variables: _Variables, firing: UUID) -> Mapping[str, JSON]:
        if not rule.inputs:
            return {}
        activation = variables.of_firing(rule, firing)
        return {name: template.render(activation) for name, template in rule.inputs.items()}


def ends_chain(event: Event) -> bool:
    """Whether the event stands at the end of its causal chain: no rule fires on it."""
    return event.lineage is not None and event.lineage.depth >= MAX_DEPTH


def _lineage(rule: Rule, taken: Taken, firing: UUID) -> Lineage:
    before = taken.event.lineage or Lineage(str(taken.uid))
    return Lineage(before.root, (*before.rules, rule.name), before.depth + 1, str(firing))


def _emitted(
    type_: str, rule: Rule, data: Mapping[str, JSON], lineage: Lineage, taken: Taken, firing: UUID
) -> Event:
    """The event that a rule emits. Its id is the firing's: one firing emits one event.

    Raises `ValueError` for data that no source could bring: it would be an event that nobody can read back.
    """
    raw = encode_json(data)
    try:
        decode_json(raw)
    except Undecodable as error:
        raise ValueError(f"emit: {error.reason}") from error
    return Event(
        source=EVENTFLOW_SOURCE,
        id=str(firing),
        type=type_,
        data=data,
        raw=raw,
        subject=rule.name,
        time=taken.ingested,
        datacontenttype="application/json",
        lineage=lineage,
    )
