"""Rules that would set each other off for ever.

What a rule puts into the world: an event of its `emit` type, with itself as the subject, and with `run`
the outcomes of its runs. An edge leads to every rule that takes events of eventflow and *says* that it
wants such a type, or that says `from: eventflow` and names no type at all. A rule that merely takes
everything is no edge: it is not meant for outcomes, and at run time the loop guard stands behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from eventflow.event import EVENTFLOW_SOURCE, JSON, Event
from eventflow.matching.pattern import Pattern, compile_pattern
from eventflow.matching.rule import Rule
from eventflow.rulefile.block import Block
from eventflow.rulefile.nodes import plain_value

OUTCOMES = ("eventflow.run.succeeded", "eventflow.run.failed", "eventflow.run.cancelled")

_KNOWN_PATHS = frozenset({"type", "subject"})


class _Listener:
    """A rule as far as it is known before any event: which of eventflow's own events it asks for."""

    def __init__(self, rule: Rule, match: Mapping[str, JSON]) -> None:
        self.name = rule.name
        takes = rule.sources is None or EVENTFLOW_SOURCE in rule.sources
        conditions = _known_part(match, frozenset({"type"}))
        listens = bool(conditions) or (rule.sources is not None and EVENTFLOW_SOURCE in rule.sources)
        self.types = _exact_types(match)
        self._pattern: Pattern | None = None
        if takes and listens:
            self._pattern = compile_pattern(_known_part(match, _KNOWN_PATHS))

    @property
    def listens(self) -> bool:
        return self._pattern is not None

    def wants(self, event: Event) -> bool:
        return self._pattern is not None and self._pattern.matches(event)


def check_cycles(rules: Sequence[Rule], blocks: Mapping[str, Block]) -> None:
    """Report every cycle in which a rule does not say how often it may be re-entered."""
    listeners = [
        one for one in (_Listener(rule, _match_of(blocks[rule.name])) for rule in rules) if one.listens
    ]
    by_type: dict[str, list[_Listener]] = {}
    for listener in listeners:
        for type_ in listener.types or ():
            by_type.setdefault(type_, []).append(listener)
    others = [listener for listener in listeners if listener.types is None]
    edges = {
        rule.name: {
            listener.name
            for event in _outputs(rule)
            for listener in (*by_type.get(event.type, ()), *others)
            if listener.wants(event)
        }
        for rule in rules
    }
    for name in _in_cycles(edges):
        block = blocks[name]
        cycle = _way_back(name, edges)
        if cycle and "reentry" not in block:
            path = " -> ".join([*cycle, name])
            block.error(block.mark, f"sets itself off ({path}); say with 'reentry' how often it may")


def _outputs(rule: Rule) -> Iterator[Event]:
    types = ([rule.emit] if rule.emit else []) + (list(OUTCOMES) if rule.run else [])
    for type_ in types:
        yield Event(source=EVENTFLOW_SOURCE, id="", type=type_, data=None, raw=b"null", subject=rule.name)


def _match_of(block: Block) -> Mapping[str, JSON]:
    entry = block.node.entries.get("match")
    return plain_value(entry.value) if entry is not None else {}


def _known_part(match: Mapping[str, JSON], paths: frozenset[str]) -> dict[str, JSON]:
    """The conditions on these paths: weaker than `match`, so that what it takes is all that may matter."""
    known: dict[str, JSON] = {}
    for path, condition in match.items():
        if path in paths:
            known[path] = condition
        elif path == "all_of":
            parts = [part for one in cast(list[Any], condition) if (part := _known_part(one, paths))]
            if parts:
                known[path] = parts
        elif path == "any_of":
            parts = [_known_part(one, paths) for one in cast(list[Any], condition)]
            if all(parts):
                known[path] = parts
    return known


def _exact_types(match: Mapping[str, JSON]) -> frozenset[str] | None:
    """The types that a plain condition lists; None where only the pattern can tell."""
    condition = match.get("type")
    values = cast(list[Any], condition) if isinstance(condition, list) else [condition]
    return frozenset(values) if all(isinstance(one, str) for one in values) else None


def _in_cycles(edges: Mapping[str, set[str]]) -> list[str]:
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


def _way_back(first: str, edges: Mapping[str, set[str]]) -> list[str]:
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
