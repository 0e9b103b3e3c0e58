"""The tree that YAML becomes: values that know where they stand in their file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from eventflow.event import JSON
from eventflow.rulefile.scalars import Value


class Mark(NamedTuple):
    """A place in a file; both count from 1, columns in characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """One value. `broken` where the file is at fault there and was told so: `value` only stands in."""

    mark: Mark
    value: Value
    broken: bool = False


@dataclass(frozen=True, slots=True)
class ListNode:
    """A list, in file order."""

    mark: Mark
    items: list[Node]


class Entry(NamedTuple):
    """A key's place, and its value."""

    key: Mark
    value: Node


@dataclass(frozen=True, slots=True)
class MapNode:
    """A mapping, in file order; its keys are text and unique."""

    mark: Mark
    entries: dict[str, Entry]


Node = ScalarNode | ListNode | MapNode


def plain_value(node: Node) -> JSON:
    """The value without its places. At most 100 deep, so recursion is safe."""
    if isinstance(node, ScalarNode):
        return node.value
    if isinstance(node, ListNode):
        return [plain_value(item) for item in node.items]
    return {key: plain_value(entry.value) for key, entry in node.entries.items()}


def at(node: Node, path: tuple[str | int, ...]) -> Node | None:
    """The node at `path` below `node`; None where there is none."""
    for step in path:
        found = child(node, step)
        if found is None:
            return None
        node = found
    return node


def child(node: Node, step: str | int) -> Node | None:
    """The value under a key, or at an index."""
    if isinstance(node, MapNode):
        entry = node.entries.get(str(step))
        return entry.value if entry is not None else None
    if isinstance(node, ListNode) and isinstance(step, int) and 0 <= step < len(node.items):
        return node.items[step]
    return None


def locate(node: Node, path: tuple[str | int, ...], *, on_key: bool = False) -> Mark:
    """Where the value at `path` below `node` stands, or its key; where it is absent, the nearest place."""
    for index, step in enumerate(path):
        found = child(node, step)
        if found is None:
            break
        if on_key and index == len(path) - 1 and isinstance(node, MapNode):
            return node.entries[str(step)].key
        node = found
    return node.mark


def kind(node: Node) -> str:
    """What a person calls the node, for messages: `a list`, `the number 3`."""
    if isinstance(node, MapNode):
        return "a mapping"
    if isinstance(node, ListNode):
        return "a list"
    value = node.value
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {shorten(value)!r}"
    return f"the number {shorten(str(value))}"


def shorten(text: str, limit: int = 60) -> str:
    """At most `limit` characters of a text that comes from a file, for one line of a message."""
    return text if len(text) <= limit else text[: limit - 3] + "..."
