"""The index over all rules: one event in, the rules whose `from` and `match` hold out.

Rules are grouped by source and type, and within a group each is filed under its most selective anchor;
what the anchor does not say is checked on the few rules that it leads to. Groups are built when the
first event asks for them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

from eventflow.event import EVENTFLOW_SOURCE, Event
from eventflow.matching.anchors import Anchor, Key, Kind, anchors
from eventflow.matching.checks import compile_check
from eventflow.matching.conditions import Condition
from eventflow.matching.foresight import may_match
from eventflow.matching.rule import Rule
from eventflow.matching.tables import Entry, Found, Probe, always, table

_MAX_GROUPS_OF_RULE: Final = 256
_MAX_REMEMBERED: Final = 10_000
_WORTH_A_TABLE: Final = 3
_HANDFUL: Final = 4
_TYPE_PATH: Final = ("type",)

_GroupKey = tuple[str | None, str | None]
"""Source and type; None stands for any."""


class _Filed(NamedTuple):
    """A rule as its groups hold it: `conditions` are what the group does not say."""

    order: int
    rule: Rule
    conditions: tuple[Condition, ...]


class Matcher:
    """Which rules an event matches. Immutable to its callers; not meant to be shared by threads."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self._groups: dict[_GroupKey, list[_Filed]] = defaultdict(list)
        self._probes: dict[_GroupKey, tuple[Probe, ...]] = {}
        self._plans: dict[tuple[str, str], tuple[Probe, ...]] = {}
        self._wanted: dict[str, bool] = {}
        for order, rule in enumerate(self.rules):
            self._file(order, rule)

    def match(self, event: Event) -> list[Rule]:
        """The rules whose `from` and `match` hold, in file order. `where` is not asked here."""
        probes = self._plans.get((event.source, event.type))
        if probes is None:
            probes = self._plan(event.source, event.type)
        found: Found = []
        for probe in probes:
            probe(event, found)
        match found:  # nearly every event has one of the first three
            case []:
                return []
            case [one]:
                return [one[1]]
            case [one, two] if one[0] < two[0]:
                return [one[1], two[1]]
            case _:
                return _in_order(found)

    def wants(self, event_type: str) -> bool:
        """Whether some rule may take an event of eventflow's own of this type."""
        known = self._wanted.get(event_type)
        if known is None:
            known = any(_may_take(rule, event_type) for rule in self.rules)
            if len(self._wanted) < _MAX_REMEMBERED:
                self._wanted[event_type] = known
        return known

    def _file(self, order: int, rule: Rule) -> None:
        types, conditions = _types(rule.pattern.conditions)
        sources: Iterable[str | None] = rule.sources if rule.sources is not None else (None,)
        if types is None or len(types) * len(rule.sources or ()) > _MAX_GROUPS_OF_RULE:
            types, conditions = (None,), rule.pattern.conditions
        filed = _Filed(order, rule, conditions)
        for source in sources:
            for type_ in types:
                self._groups[source, type_].append(filed)

    def _plan(self, source: str, type_: str) -> tuple[Probe, ...]:
        """Everything to be asked for events of this source and type."""
        keys: tuple[_GroupKey, ...] = ((source, type_), (None, type_), (source, None), (None, None))
        plan = tuple(probe for key in keys if key in self._groups for probe in self._group(key))
        # Senders may make up types without end, so only so many are remembered.
        if len(self._plans) < _MAX_REMEMBERED:
            self._plans[source, type_] = plan
        return plan

    def _group(self, key: _GroupKey) -> tuple[Probe, ...]:
        if key not in self._probes:
            self._probes[key] = tuple(_build(self._groups[key]))
        return self._probes[key]


def _in_order(found: Found) -> list[Rule]:
    """In file order, each once: a rule may be filed under several keys that one event has."""
    found.sort()
    rules = [found[0][1]]
    for before, entry in pairwise(found):
        if entry is not before:
            rules.append(entry[1])
    return rules


def _types(conditions: tuple[Condition, ...]) -> tuple[tuple[str, ...] | None, tuple[Condition, ...]]:
    """The types of which one is required (None: any may do), and the conditions that this leaves open."""
    for anchor in anchors(conditions):
        # Only texts: `type: null` never holds, and None stands for any type here.
        if all(key[:2] == (Kind.equal, _TYPE_PATH) and isinstance(key.text, str) for key in anchor.keys):
            rest = tuple(one for one in conditions if not (anchor.exact and one is anchor.condition))
            return tuple(key.text for key in anchor.keys), rest
    return None, conditions


def _build(filed: Sequence[_Filed]) -> Iterable[Probe]:
    """The tables of one group, and a list of the rules that no table is worth having for."""
    offers = [list(anchors(one.conditions)) for one in filed]
    crowd = Counter(key for offer in offers for anchor in offer for key in anchor.keys)
    choices = [min(offer, key=lambda anchor: _width(anchor, crowd), default=None) for offer in offers]
    sizes = Counter(place for anchor in choices if anchor for place in _places(anchor))
    tables: dict[tuple[Kind, tuple[str, ...]], dict[Any, list[Entry]]] = defaultdict(
        lambda: defaultdict(list)
    )
    rest: list[Entry] = []
    for one, anchor in zip(filed, choices, strict=True):
        if anchor is None or min(sizes[place] for place in _places(anchor)) < _WORTH_A_TABLE:
            rest.append(_entry(one, one.conditions))
            continue
        left = [each for each in one.conditions if not (anchor.exact and each is anchor.condition)]
        entry = _entry(one, left)
        for key in anchor.keys:
            tables[key.kind, key.path][key.text].append(entry)
    for (kind, path), leaves in tables.items():
        yield table(kind, path, {text: tuple(leaf) for text, leaf in leaves.items()})
    if rest:
        yield always(tuple(rest))


def _entry(filed: _Filed, left: Sequence[Condition]) -> Entry:
    check, arguments = compile_check(left)
    return filed.order, filed.rule, check, *arguments


def _places(anchor: Anchor) -> set[tuple[Kind, tuple[str, ...]]]:
    return {(key.kind, key.path) for key in anchor.keys}


def _width(anchor: Anchor, crowd: Counter[Key]) -> tuple[int, int]:
    """How many rules share the anchor's keys: the fewer, the better it tells rules apart.

    A handful is as good as one, so that rules gather in few tables: each costs every event a probe.
    """
    return max(_HANDFUL, sum(crowd[key] for key in anchor.keys)), anchor.keys[0].kind


def _may_take(rule: Rule, event_type: str) -> bool:
    if rule.sources is not None and EVENTFLOW_SOURCE not in rule.sources:
        return False
    return may_match(rule.pattern, {_TYPE_PATH: event_type})
