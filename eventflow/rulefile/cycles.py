"""Rules that would set each other off for ever.

What a rule puts into the world: an event of its `emit` type, with itself as the subject, and with `run`
the outcomes of its runs. An edge leads to every rule that takes events of eventflow and *says* that it
wants such a type, or that says `from: eventflow` and names no type at all. A rule that merely takes
everything is no edge: it is not meant for outcomes, and at run time the loop guard stands behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from eventflow.event import EVENTFLOW_SOURCE, Event
from eventflow.matching.pattern import Pattern
from eventflow.matching.rule import Rule
from eventflow.rulefile.block import Block
from eventflow.rulefile.listening import Paths, exact_types, hears_eventflow, says_type, weakened
from eventflow.workflow.advance import RunState

OUTCOMES = tuple(
    (f"eventflow.run.{state}", state) for state in (RunState.succeeded, RunState.failed, RunState.cancelled)
)
_KNOWN_OF_EMIT: Paths = frozenset({("type",), ("subject",)})
_KNOWN_OF_OUTCOME: Paths = _KNOWN_OF_EMIT | {("data", "workflow"), ("data", "rule"), ("data", "state")}

Edges = Mapping[str, set[str]]
"""From each rule to those it may set off."""


@dataclass(frozen=True, slots=True)
class _Output:
    """An event that a rule brings about, as far as it is known beforehand."""

    event: Event
    known: Paths


class _Listener:
    """A rule that asks for events of eventflow's own. `types` are those it lists; None: it may be any."""

    def __init__(self, rule: Rule) -> None:
        self.name = rule.name
        self.types = exact_types(rule.pattern)
        self._known: dict[Paths, Pattern] = {
            known: weakened(rule.pattern, known) for known in (_KNOWN_OF_EMIT, _KNOWN_OF_OUTCOME)
        }

    def takes(self, output: _Output) -> bool:
        return self._known[output.known].holds(output.event)


def check_cycles(rules: Sequence[Rule], blocks: Mapping[str, Block]) -> None:
    """Report every rule that may set itself off and does not say how often it may."""
    edges = _edges(rules)
    for name in _in_cycles(edges):
        block = blocks[name]
        cycle = _way_back(name, edges)
        if cycle and "reentry" not in block:
            path = " -> ".join([*cycle, name])
            remedy = "narrow 'match' (data.workflow names whose outcome it is), or allow it with 'reentry'"
            block.error(block.mark, f"sets itself off ({path}); {remedy}")


def _edges(rules: Sequence[Rule]) -> Edges:
    listeners = [_Listener(rule) for rule in rules if _listens(rule)]
    by_type: dict[str, list[_Listener]] = {}
    for listener in listeners:
        for type_ in listener.types or ():
            by_type.setdefault(type_, []).append(listener)
    others = [listener for listener in listeners if listener.types is None]
    return {
        rule.name: {
            listener.name
            for output in _outputs(rule)
            for listener in (*by_type.get(output.event.type, ()), *others)
            if listener.takes(output)
        }
        for rule in rules
    }


def _listens(rule: Rule) -> bool:
    return hears_eventflow(rule) and (rule.sources is not None or says_type(rule.pattern))


def _outputs(rule: Rule) -> Iterator[_Output]:
    if rule.emit:
        event = Event(
            source=EVENTFLOW_SOURCE, id="", type=rule.emit, data=None, raw=b"null", subject=rule.name
        )
        yield _Output(event, _KNOWN_OF_EMIT)
    for type_, state in OUTCOMES if rule.run else ():
        data = {"workflow": rule.run, "rule": rule.name, "state": str(state)}
        event = Event(
            source=EVENTFLOW_SOURCE, id="", type=type_, data=data, raw=b"null", subject=rule.name
        )
        yield _Output(event, _KNOWN_OF_OUTCOME)


def _in_cycles(edges: Edges) -> list[str]:
    """The rules left when those that lead nowhere are taken away again and again, in file order."""
    causes: dict[str, list[str]] = {name: [] for name in edges}
    for name, effects in edges.items():
        for effect in effects:
            causes[effect].append(name)
    leads = {name: len(effects) for name, effects in edges.items()}
    nowhere = [name for name, count in leads.items() if count == 0]
    for name in nowhere:
        for cause in causes[name]:
            leads[cause] -= 1
            if leads[cause] == 0:
                nowhere.append(cause)
    return [name for name, count in leads.items() if count > 0]


def _way_back(first: str, edges: Edges) -> list[str]:
    """A shortest way from a rule to one that sets it off again; empty where there is none."""
    came: dict[str, str] = {}
    todo = [first]
    for name in todo:
        for effect in sorted(edges[name]):
            if effect == first:
                path = [name]
                while path[-1] != first:
                    path.append(came[path[-1]])
                return path[::-1]
            if effect not in came:
                came[effect] = name
                todo.append(effect)
    return []
