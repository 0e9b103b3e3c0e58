"""Rules that would set each other off for ever.

What a rule puts into the world: an event of its `emit` type, with itself as the subject, and with `run`
the outcomes of its runs. An edge leads to every rule that takes events of eventflow and *says* that it
wants such a type, or that says `from: eventflow` and names no type at all. A rule that merely takes
everything is no edge: it is not meant for outcomes, and at run time the loop guard stands behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eventflow.event import EVENTFLOW_SOURCE
from eventflow.matching.conditions import Compare
from eventflow.matching.foresight import may_match
from eventflow.matching.operators import Operator
from eventflow.matching.rule import Rule
from eventflow.rulefile.block import Block
from eventflow.workflow.advance import RunState

OUTCOMES = (RunState.succeeded, RunState.failed, RunState.cancelled)
"""The ends of a run that become events: `eventflow.run.succeeded` and so on."""

_TYPE = ("type",)

Edges = Mapping[str, set[str]]
"""From each rule to those it may set off."""


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
    """From rules that listen to rules that listen: no other can be part of a circle."""
    listening = _Listening(rules)
    return {
        rule.name: {
            listener.name
            for output in (_outputs(rule) if _listens(rule) else ())
            for listener in listening.to(output[_TYPE])
            if may_match(listener.pattern, output)
        }
        for rule in rules
    }


class _Listening:
    """The rules that ask for events of eventflow's own, by type: most pairs of rules are never looked at."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._listed: dict[str, list[Rule]] = {}
        self._others: list[tuple[Rule, Sequence[Operator]]] = []
        self._to: dict[str, Sequence[Rule]] = {}
        for rule in filter(_listens, rules):
            operators = _on_type(rule)
            types = _listed(operators)
            for type_ in types or ():
                self._listed.setdefault(type_, []).append(rule)
            if types is None:
                self._others.append((rule, operators))

    def to(self, type_: str) -> Sequence[Rule]:
        """Those that may take some event of the type."""
        if type_ not in self._to:
            others = [rule for rule, on_type in self._others if all(one.test(type_) for one in on_type)]
            self._to[type_] = [*self._listed.get(type_, ()), *others]
        return self._to[type_]


def _listens(rule: Rule) -> bool:
    if rule.sources is None:
        return bool(rule.pattern.conditions_on("type"))
    return EVENTFLOW_SOURCE in rule.sources


def _on_type(rule: Rule) -> Sequence[Operator]:
    """What must hold of the type, whatever else does."""
    return [
        operator
        for condition in rule.pattern.conditions
        if isinstance(condition, Compare) and condition.path.segments == _TYPE
        for operator in condition.operators
    ]


def _listed(on_type: Sequence[Operator]) -> Sequence[str] | None:
    """The types that one of the operators lists; None where they have to be asked."""
    for operator in on_type:
        if operator.name in ("eq", "in"):
            return operator.argument if operator.name == "in" else [operator.argument]
    return None


def _outputs(rule: Rule) -> Iterator[dict[tuple[str, ...], Any]]:
    """What is known beforehand of each event that the rule brings about."""
    about = {("source",): EVENTFLOW_SOURCE, ("subject",): rule.name}
    if rule.emit:
        yield {**about, _TYPE: rule.emit}
    for state in OUTCOMES if rule.run else ():
        yield {
            **about,
            _TYPE: f"eventflow.run.{state}",
            ("data", "workflow"): rule.run,
            ("data", "rule"): rule.name,
            ("data", "state"): str(state),
        }


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
