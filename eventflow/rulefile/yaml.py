"""YAML 1.2 with places: the bytes of one file -> a tree of nodes.

libyaml's events are composed here and not by PyYAML's loader: that one resolves words as YAML 1.1,
keeps the last of two equal keys in silence, and recurses as deep as the file asks for. Duplicate keys
and words that are no value are reported and reading goes on; anything else ends the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from yaml import YAMLError
from yaml.cyaml import CParser  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from eventflow.rulefile.nodes import Entry, ListNode, MapNode, Mark, Node, ScalarNode, shorten
from eventflow.rulefile.scalars import TAGS, ScalarError, Value, plain, tagged

MAX_BYTES = 1024 * 1024
MAX_NESTING = 100
MAX_ALIASES = 100
MAX_ALIASED_VALUES = 100_000
"""Values that aliases may add to a file: 100 uses, nested, would otherwise make 10^10 of a kilobyte."""

_CORE_TAG = "tag:yaml.org,2002:"
_FORBIDDEN = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Complain(Protocol):
    """Takes one error of the file being read."""

    def __call__(self, at: Mark, message: str, /) -> None: ...


class _Unreadable(Exception):
    def __init__(self, mark: Mark, message: str) -> None:
        self.mark = mark
        self.message = message
        super().__init__(message)


def read_yaml(content: bytes, complain: Complain) -> tuple[Node | None, bool]:
    """The file's one document (None: empty), and whether it could be read to its end."""
    try:
        return _Composer(complain).compose(_events(_decode(content))), True
    except _Unreadable as error:
        complain(error.mark, error.message)
        return None, False


def _decode(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise _Unreadable(Mark(1, 1), f"the file has {len(content)} bytes; {MAX_BYTES} (1 MiB) is the most")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", "replace")
        raise _Unreadable(_end_of(before), "the file is not UTF-8; save it as UTF-8") from error
    forbidden = _FORBIDDEN.search(text)
    if forbidden:
        mark = _end_of(text[: forbidden.start()])
        raise _Unreadable(mark, f"the control character {forbidden.group()!r} is not allowed in YAML")
    return text


def _end_of(text: str) -> Mark:
    lines = re.split("\r\n|\r|\n", text)
    return Mark(len(lines), len(lines[-1]) + 1)


def _events(text: str) -> Iterator[Any]:
    parser = cast(Any, CParser)(text)  # no stubs
    try:
        while True:
            event = parser.get_event()
            yield event
            if isinstance(event, StreamEndEvent):
                return
    except YAMLError as error:
        raise _syntax_error(error, text.rstrip().split("\n")) from error


def _syntax_error(error: Any, lines: list[str]) -> _Unreadable:
    """libyaml's message at the place that helps: what never ends is shown where it begins."""
    where, here = Mark(len(lines), len(lines[-1]) + 1), ""
    problem: str = getattr(error, "problem", None) or str(error)
    context: str | None = getattr(error, "context", None)
    place: Any = getattr(error, "problem_mark", None)
    begin: Any = getattr(error, "context_mark", None)
    unfinished = "end of stream" in problem or (place is not None and place.line >= len(lines))
    if begin is not None and unfinished:
        place, begin = begin, None
    message = f"not valid YAML: {problem}"
    if context:
        message += f" {context}" + (f" that begins in line {begin.line + 1}" if begin else "")
    if place is not None and place.line < len(lines):
        where = Mark(place.line + 1, place.column + 1)
        here = lines[where.line - 1]
    return _Unreadable(where, message + _remedy(problem, context or "", here))


def _remedy(problem: str, context: str, line: str) -> str:
    """What usually mends it, for the slips that rule files invite."""
    if "cannot start any token" in problem:
        return " (tabs cannot indent; text that begins with @, ` or % needs quotes)"
    if "flow" in context and "${" in line:
        return ' (a hole inside {} or [] needs quotes: "${...}")'
    if "alias" in context or "anchor" in context:
        return " (text that begins with * or & needs quotes)"
    return ""


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come. `height` and `size` count what is inside, aliases expanded."""

    node: ListNode | MapNode
    anchor: str | None
    key: tuple[Mark, str] | None = None
    height: int = 0
    size: int = 1


@dataclass(slots=True)
class _Composer:
    complain: Complain
    open: list[_Open] = field(default_factory=list[_Open])
    anchors: dict[str, tuple[Node, int, int]] = field(default_factory=dict[str, tuple[Node, int, int]])
    root: Node | None = None
    documents: int = 0
    aliases: int = 0
    aliased: int = 0

    def compose(self, events: Iterator[Any]) -> Node | None:
        for event in events:
            kind = cast(type[Any], type(event))
            if kind is ScalarEvent:
                self._scalar(event)
            elif kind is MappingStartEvent or kind is SequenceStartEvent:
                self._begin(event, kind is MappingStartEvent)
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                self._end()
            elif kind is AliasEvent:
                self._alias(event)
            elif kind is DocumentStartEvent:
                self._document(event)
        return self.root

    def _document(self, event: Any) -> None:
        self.documents += 1
        if self.documents > 1:
            raise _Unreadable(_mark(event), "a second document begins here; one file holds one document")

    def _scalar(self, event: Any) -> None:
        mark = _mark(event)
        value: Value = event.value
        broken = False
        try:
            if event.tag is not None and event.tag != "!":
                value = tagged(self._core_tag(event, TAGS), event.value)
            elif event.tag is None and event.implicit[0]:
                value = plain(event.value)
        except ScalarError as error:
            self.complain(mark, str(error))
            broken = True
        node = ScalarNode(mark, value, broken)
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, 0, 1)
        self._add(node, 0, 1)

    def _core_tag(self, event: Any, allowed: frozenset[str]) -> str:
        name = event.tag.removeprefix(_CORE_TAG)
        if name == event.tag or name not in allowed:
            message = f"the tag {shorten(event.tag)} is not allowed: rule files are plain data"
            raise _Unreadable(_mark(event), message)
        return name

    def _begin(self, event: Any, mapping: bool) -> None:
        mark = _mark(event)
        if event.tag is not None and event.tag != "!":
            self._core_tag(event, frozenset({"map" if mapping else "seq"}))
        if len(self.open) >= MAX_NESTING:
            raise _Unreadable(mark, f"nested deeper than {MAX_NESTING}")
        node = MapNode(mark, {}) if mapping else ListNode(mark, [])
        if event.anchor is not None:
            self.anchors.pop(event.anchor, None)
        self.open.append(_Open(node, event.anchor))

    def _end(self) -> None:
        done = self.open.pop()
        if done.anchor is not None:
            self.anchors[done.anchor] = (done.node, done.height + 1, done.size)
        self._add(done.node, done.height + 1, done.size)

    def _alias(self, event: Any) -> None:
        mark = _mark(event)
        if any(one.anchor == event.anchor for one in self.open) and event.anchor not in self.anchors:
            raise _Unreadable(mark, f"the alias *{event.anchor} stands inside what it names")
        if event.anchor not in self.anchors:
            raise _Unreadable(mark, f"the alias *{event.anchor} names no anchor above it")
        self.aliases += 1
        if self.aliases > MAX_ALIASES:
            raise _Unreadable(mark, f"more than {MAX_ALIASES} aliases")
        node, height, size = self.anchors[event.anchor]
        self.aliased += size
        if self.aliased > MAX_ALIASED_VALUES:
            raise _Unreadable(mark, f"aliases make more than {MAX_ALIASED_VALUES:,} values of this file")
        if len(self.open) + height > MAX_NESTING:
            raise _Unreadable(mark, f"nested deeper than {MAX_NESTING} through the alias *{event.anchor}")
        self._add(node, height, size, mark)

    def _add(self, node: Node, height: int, size: int, mark: Mark | None = None) -> None:
        """Put a finished node where it belongs: the document, a list, a key or the value of a key."""
        if not self.open:
            self.root = node
            return
        parent = self.open[-1]
        parent.height = max(parent.height, height)
        parent.size += size
        if isinstance(parent.node, ListNode):
            parent.node.items.append(node)
        elif parent.key is None:
            parent.key = self._key(node, mark or node.mark)
        else:
            where, key = parent.key
            parent.key = None
            self._set(parent.node, where, key, node)

    def _set(self, parent: MapNode, where: Mark, key: str, node: Node) -> None:
        first = parent.entries.get(key)
        if first is None:
            parent.entries[key] = Entry(where, node)
            return
        line, column = first.key
        self.complain(where, f"duplicate key {shorten(key)!r}; the first is at {line}:{column}")

    def _key(self, node: Node, mark: Mark) -> tuple[Mark, str]:
        if not isinstance(node, ScalarNode):
            raise _Unreadable(mark, "a list or mapping cannot be a key")
        if isinstance(node.value, str):
            return mark, node.value
        text = "null" if node.value is None else str(node.value)
        if not node.broken:
            self.complain(mark, f'a key must be text; write it in quotes: "{shorten(text)}"')
        return mark, text


def _mark(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)
