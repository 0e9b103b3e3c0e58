"""Rules that can never work, as far as the set alone tells: types nobody sends, fields that no event has.

Connectors that know beforehand say what they send (`eventflow.source.Foretelling`); eventflow's own
events are those that rules emit, the ends of runs and news of sources. What is told here is a warning:
events may also be sent in again from times when the set was another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from eventflow.event import EVENTFLOW_SOURCE, SourceNews
from eventflow.expression import Reference
from eventflow.matching.path import parse_path
from eventflow.matching.pattern import COMBINATORS
from eventflow.matching.rule import Rule
from eventflow.offers import Sends
from eventflow.rulefile.block import Block
from eventflow.rulefile.cycles import OUTCOMES
from eventflow.rulefile.document import Document
from eventflow.rulefile.nodes import Entry, ListNode, MapNode, Mark, Node, ScalarNode, locate
from eventflow.rulefile.report import MANY, did_you_mean
from eventflow.rulefile.ruleset import SourceSpec

_ENDS = frozenset(f"eventflow.run.{state}" for state in OUTCOMES)
_NEWS = frozenset(news.value for news in SourceNews)


def check_foreseen(
    rules: Sequence[Rule], document: Document, sources: Mapping[str, SourceSpec | None]
) -> None:
    """Warn of conditions and holes that ask for what never comes; nothing where a file is unreadable."""
    if not document.complete:
        return
    blocks = document.definitions["rules"]
    emitted = {node.value for block in blocks.values() if isinstance(node := block.get("emit"), ScalarNode)}
    own = Sends(types=_ENDS | _NEWS | {type_ for type_ in emitted if isinstance(type_, str)})
    for rule in rules:
        _Check(rule, blocks[rule.name], own, sources).run(document.names["workflows"])


@dataclass(frozen=True, slots=True)
class _Check:
    rule: Rule
    block: Block
    own: Sends
    sources: Mapping[str, SourceSpec | None]

    def run(self, workflows: Collection[str]) -> None:
        conditions = list(_conditions(self.block.get("match")))
        asked = [one for path, entry, held in conditions if path == "type" and held for one in _texts(entry)]
        self._types(asked)
        if asked and all(str(one.value) in _ENDS for one in asked):
            self._workflows(conditions, workflows)
        fields = self._union("fields")
        if fields is not None:
            self._paths(conditions, fields)
            self._expressions(fields)

    def _types(self, asked: Sequence[ScalarNode]) -> None:
        types = self._union("types")
        if types is None and self.rule.sources is None:
            # From anywhere: only names below eventflow's own are surely eventflow's.
            asked = [one for one in asked if str(one.value).startswith("eventflow.")]
            types = self.own.types
        for one in asked if types is not None else ():
            if types is not None and one.value not in types:
                self._warn(one.mark, f"match: {self._senders()} no '{one.value}'", str(one.value), types)

    def _workflows(self, conditions: Sequence[_Condition], workflows: Collection[str]) -> None:
        for path, entry, _ in conditions:
            for one in _texts(entry, negated=True) if path == "data.workflow" else ():
                if one.value not in workflows:
                    said = f"match: there is no workflow '{one.value}'"
                    self._warn(one.mark, said, str(one.value), workflows)

    def _paths(self, conditions: Sequence[_Condition], fields: Collection[str]) -> None:
        for path, entry, _ in conditions:
            segments = parse_path(path).segments
            absent = isinstance(entry.value, MapNode) and "exists" in entry.value.entries
            if segments[0] == "data" and len(segments) > 1 and not absent:
                self._field(entry.key, "match", segments[1], fields)

    def _expressions(self, fields: Collection[str]) -> None:
        if self.rule.where is not None:
            mark = self.block.node.entries["where"].value.mark
            self._references(mark, "where", self.rule.where.references, fields)
        for name, template in self.rule.inputs.items():
            for hole in template.holes:
                mark = locate(self.block.node, ("with", name, *hole.path))
                references = hole.expression.references if hole.expression else ()
                self._references(mark, f"with: {name}", references, fields)

    def _references(
        self, mark: Mark, word: str, references: Sequence[Reference], fields: Collection[str]
    ) -> None:
        below = [one[2] for one in references if one[:2] == ("event", "data") and len(one) > 2]
        for name in dict.fromkeys(below):
            self._field(mark, word, name, fields)

    def _field(self, mark: Mark, word: str, name: str, fields: Collection[str]) -> None:
        if name not in fields:
            self._warn(mark, f"{word}: {self._senders()} no 'data.{name}'", name, fields, "data.")

    def _warn(self, mark: Mark, said: str, word: str, known: Collection[str], prefix: str = "") -> None:
        hint = ""
        if len(self.block.report.problems) <= MANY:
            hint = did_you_mean(f"{prefix}{word}", [f"{prefix}{one}" for one in sorted(known)])
            listed = ", ".join(f"{prefix}{one}" for one in sorted(known)[:12])
            hint = hint or f"; there is {listed or 'none'}"
        self.block.warn(mark, said + hint)

    def _senders(self) -> str:
        names = sorted(self.rule.sources or {EVENTFLOW_SOURCE})
        return f"{', '.join(names)} {'sends' if len(names) == 1 else 'send'}"

    def _union(self, what: str) -> Collection[str] | None:
        """What all sources of the rule send together; None where one of them does not say."""
        found: set[str] = set()
        for name in self.rule.sources or ("",):
            spec = self.sources.get(name)
            sends = self.own if name == EVENTFLOW_SOURCE else spec.sends if spec else None
            some: Collection[str] | None = getattr(sends, what, None)
            if some is None:
                return None
            found.update(some)
        return found


_Condition = tuple[str, Entry, bool]
"""A path, its place and value, and whether it must hold as it stands (not below `none_of`)."""


def _conditions(node: Node | None, *, held: bool = True) -> Iterator[_Condition]:
    """Every condition whose path starts at the event."""
    for path, entry in node.entries.items() if isinstance(node, MapNode) else ():
        if path in COMBINATORS:
            for item in entry.value.items if isinstance(entry.value, ListNode) else ():
                yield from _conditions(item, held=held and path != "none_of")
        elif path == "any":
            array = entry.value.entries["in"] if isinstance(entry.value, MapNode) else None
            if array is not None and isinstance(array.value, ScalarNode):
                yield str(array.value.value), Entry(array.value.mark, ListNode(array.value.mark, [])), held
        else:
            yield path, entry, held


def _texts(entry: Entry, *, negated: bool = False) -> Iterator[ScalarNode]:
    """The texts that a condition names: alone, in a list, under `eq` or `in`, if asked under `not`."""
    node = entry.value
    if isinstance(node, MapNode):
        for word in ("eq", "in", *(("not",) if negated else ())):
            if word in node.entries:
                yield from _texts(node.entries[word])
        return
    for one in node.items if isinstance(node, ListNode) else [node]:
        if isinstance(one, ScalarNode) and isinstance(one.value, str):
            yield one
