"""Reading one object of a rule file: asks for words and reports what is not as it should be.

Every method returns None where the word is absent or wrong; wrong ones have been reported by then, so
that one reading finds every problem of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from eventflow.rulefile.nodes import Entry, ListNode, MapNode, Mark, Node, ScalarNode, kind
from eventflow.rulefile.report import Report, did_you_mean, nearest, unknown
from eventflow.rulefile.words import Words
from eventflow.units import parse_duration


@dataclass(frozen=True, slots=True)
class Block:
    """A mapping being read. `what` names it in messages (`rule 'nightly'`), `mark` is its name's place."""

    report: Report
    what: str
    mark: Mark
    node: MapNode

    def error(self, at: Mark | Node, message: str) -> None:
        """Report an error of this object."""
        self.report.error(at, f"{self.what}: {message}")

    def warn(self, at: Mark | Node, message: str) -> None:
        """Report a warning about this object."""
        self.report.warn(at, f"{self.what}: {message}")

    def sound_since(self, count: int) -> bool:
        """Whether nothing but warnings has been reported after the first `count` problems of the set."""
        return all(problem.warning for problem in self.report.problems[count:])

    def check_words(self, words: Words) -> None:
        """Report unknown words, words that do not work yet and missing ones, which are not misspelt ones."""
        meant: set[str] = set()
        for name, entry in self.node.entries.items():
            if name in words.later:
                self.error(entry.key, f"'{name}' is not supported yet")
            elif name not in words.now:
                self.error(entry.key, unknown("word", name, [*words.now, *words.later]))
                meant.update(nearest(name, [*words.now, *words.later]))
        for name in words.required:
            if name not in self.node.entries and name not in meant:
                self.error(self.mark, f"'{name}' is missing")
        if words.any_of and meant.union(self.node.entries).isdisjoint((*words.any_of, *words.later)):
            self.error(self.mark, f"needs {' or '.join(repr(one) for one in words.any_of)}")

    def __contains__(self, name: str) -> bool:
        return name in self.node.entries

    def get(self, name: str) -> Node | None:
        """The word's value as it stands; None where absent or already reported as broken."""
        entry = self.node.entries.get(name)
        if entry is None or (isinstance(entry.value, ScalarNode) and entry.value.broken):
            return None
        return entry.value

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Every name, its place and its value, in file order."""
        return iter(self.node.entries.items())

    def text(self, name: str) -> str | None:
        """The word's value as text that is not empty."""
        node = self.get(name)
        return None if node is None else self._as_text(name, node)

    def texts(self, name: str) -> list[tuple[str, Mark]] | None:
        """A text, or a list of at least one, each with its place. Duplicates are reported."""
        node = self.get(name)
        if node is None:
            return None
        if not isinstance(node, ListNode):
            text = self._as_text(name, node)
            return None if text is None else [(text, node.mark)]
        if not node.items:
            self.error(node, f"'{name}' is an empty list")
            return None
        found: dict[str, Mark] = {}
        for item in node.items:
            text = self._as_text(name, item)
            if text is not None and text in found:
                self.error(
                    item,
                    f"'{name}' names {text!r} twice; the first is at {found[text].line}:{found[text].column}",
                )
            elif text is not None:
                found[text] = item.mark
        return list(found.items())

    def whole(self, name: str, low: int, high: int) -> int | None:
        """A whole number in [low, high]."""
        node = self.get(name)
        if node is None:
            return None
        value = node.value if isinstance(node, ScalarNode) else None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.error(node, f"'{name}' must be a whole number from {low} to {high}, not {kind(node)}")
            return None
        return value

    def choice(self, name: str, allowed: Iterable[str]) -> str | None:
        """One of the allowed words."""
        node = self.get(name)
        if node is None:
            return None
        words = list(allowed)
        value = node.value if isinstance(node, ScalarNode) else None
        if not isinstance(value, str) or value not in words:
            hint = did_you_mean(value, words) if isinstance(value, str) else ""
            self.error(node, f"'{name}' must be one of {', '.join(words)}, not {kind(node)}{hint}")
            return None
        return value

    def duration(self, name: str) -> timedelta | None:
        """A duration such as `500ms`, longer than nothing."""
        node = self.get(name)
        if node is None:
            return None
        value = parse_duration(node.value) if isinstance(node, ScalarNode) else None
        if value == timedelta(0):
            self.error(node, f"'{name}' must be longer than nothing, not {kind(node)}")
            return None
        if value is None:
            self.error(
                node, f"'{name}' must be a duration such as 500ms, 20s, 5m, 6h or 7d, not {kind(node)}"
            )
            return None
        return value

    def block(self, name: str, what: str | None = None, *, form: str = "") -> Block | None:
        """A mapping below this word; `form` shows in messages what to write."""
        entry = self.node.entries.get(name)
        if entry is None:
            return None
        return self.inner(entry, what or f"{self.what}: {name}", form)

    def inner(self, entry: Entry, what: str, form: str = "") -> Block | None:
        """The mapping that stands behind an entry of this one."""
        if isinstance(entry.value, MapNode):
            return Block(self.report, what, entry.key, entry.value)
        if not (isinstance(entry.value, ScalarNode) and entry.value.broken):
            such = f" such as {form}" if form else ""
            self.report.error(entry.value, f"{what}: must be a mapping{such}, not {kind(entry.value)}")
        return None

    def _as_text(self, name: str, node: Node) -> str | None:
        if isinstance(node, ScalarNode) and isinstance(node.value, str) and node.value and not node.broken:
            return node.value
        if not (isinstance(node, ScalarNode) and node.broken):
            self.error(node, f"'{name}' must be text, not {'empty' if _empty(node) else kind(node)}")
        return None


def _empty(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.value == ""
