"""Tables: for one kind of anchor on one path, which rules an event's value leads to.

A probe reads the value once, looks it up and appends the rules whose remaining conditions hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from eventflow.event import JSON, Event
from eventflow.matching.anchors import Kind
from eventflow.matching.generated import FORKED, Segments, generate, names, reader, reading
from eventflow.matching.operators import hash_key
from eventflow.matching.path import MISSING, Path, elements, reach

Entry = tuple[Any, ...]
"""The rule's place in the rule set, the rule, the check that the anchor leaves (or None), its arguments."""

Leaf = tuple[Entry, ...]
Found = list[Entry]
Probe = Callable[[Event, Found], None]
_Lookup = Callable[[Any], Iterable[Leaf]]

MAX_LENGTHS: Final = 8
"""Lengths of prefixes (suffixes) that one table looks up; longer ones are filed under a shorter part."""


def always(leaf: Leaf) -> Probe:
    """Rules that no anchor tells apart."""

    def probe(event: Event, found: Found) -> None:
        _check(leaf, event, found)

    return probe


def table(kind: Kind, segments: Segments, leaves: Mapping[Any, Leaf]) -> Probe:
    """A probe for rules filed by `Key.text`."""
    path = Path(".".join(segments), segments)
    lookup = _LOOKUPS[kind](leaves)

    def forked(event: Event, found: Found) -> None:
        # Each leaf once: an array that repeats a value must not have its rules checked again and again.
        leaves = {id(leaf): leaf for one in _elements(event, path) for leaf in lookup(one)}
        for leaf in leaves.values():
            _check(leaf, event, found)

    if kind in _PROBES:
        bound = {"forked": forked, "get": leaves.get, "hash_key": hash_key}
        return generate("event, found", [*reading(segments), *_PROBES[kind]], bound | names(segments))
    read = reader(segments)

    def probe(event: Event, found: Found) -> None:
        value = read(event)
        if value is FORKED:
            forked(event, found)
        elif value is not MISSING:
            for leaf in lookup(value):
                _check(leaf, event, found)

    return probe


# Nearly all of the time goes into these two, so they are written out without calls.
_PROBES: Final[Mapping[Kind, Sequence[str]]] = {
    Kind.equal: (
        "if v is FORKED: forked(event, found)",
        "elif v.__class__ is not dict:",
        "    leaf = get(v if v.__class__ is str else hash_key(v))",
        "    if leaf is not None:",
        "        for entry in leaf:",
        "            if entry[2] is None or entry[2](event, entry): found.append(entry)",
    ),
    Kind.segment: (
        "if v.__class__ is str:",
        "    parts = v.split('/')",
        "    if len(parts) > 16: parts = set(parts)",  # for texts that repeat a segment a thousand times
        "    for leaf in map(get, parts):",
        "        if leaf is not None:",
        "            for entry in leaf:",
        "                if entry[2] is None or entry[2](event, entry): found.append(entry)",
        "elif v is FORKED: forked(event, found)",
    ),
}


def _elements(event: Event, path: Path) -> Iterable[JSON]:
    return (element for value in reach(event, path) for element in elements(value))


def _check(leaf: Leaf, event: Event, found: Found) -> None:
    for entry in leaf:
        if entry[2] is None or entry[2](event, entry):
            found.append(entry)


def _equal(leaves: Mapping[Any, Leaf]) -> _Lookup:
    def lookup(value: Any) -> Iterable[Leaf]:
        if value.__class__ is dict:
            return ()
        leaf = leaves.get(hash_key(value))
        return () if leaf is None else (leaf,)

    return lookup


def _folded(leaves: Mapping[str, Leaf]) -> _Lookup:
    def lookup(value: Any) -> Iterable[Leaf]:
        leaf = leaves.get(value.casefold()) if value.__class__ is str else None
        return () if leaf is None else (leaf,)

    return lookup


def _segment(leaves: Mapping[str, Leaf]) -> _Lookup:
    def lookup(value: Any) -> Iterable[Leaf]:
        if value.__class__ is not str:
            return ()
        return [leaf for segment in set(value.split("/")) if (leaf := leaves.get(segment)) is not None]

    return lookup


def _prefix(leaves: Mapping[str, Leaf]) -> _Lookup:
    lengths, shortened = _shorten(leaves, lambda text, length: text[:length])

    def lookup(value: Any) -> Iterable[Leaf]:
        if value.__class__ is not str:
            return ()
        return [leaf for length in lengths if (leaf := shortened.get(value[:length])) is not None]

    return lookup


def _suffix(leaves: Mapping[str, Leaf]) -> _Lookup:
    lengths, shortened = _shorten(leaves, lambda text, length: text[-length:])

    def lookup(value: Any) -> Iterable[Leaf]:
        if value.__class__ is not str:
            return ()
        return [leaf for length in lengths if (leaf := shortened.get(value[-length:])) is not None]

    return lookup


def _shorten(
    leaves: Mapping[str, Leaf], cut: Callable[[str, int], str]
) -> tuple[tuple[int, ...], dict[str, Leaf]]:
    """At most `MAX_LENGTHS` lengths, the shortest among them, and every leaf under one of those."""
    every = sorted({len(text) for text in leaves})
    lengths = every if len(every) <= MAX_LENGTHS else every[:: -(-len(every) // MAX_LENGTHS)]
    shortened: dict[str, Leaf] = {}
    for text, leaf in leaves.items():
        key = cut(text, max(length for length in lengths if length <= len(text)))
        shortened[key] = shortened.get(key, ()) + leaf
    return tuple(lengths), shortened


_LOOKUPS: Final[Mapping[Kind, Callable[[Mapping[Any, Leaf]], _Lookup]]] = {
    Kind.equal: _equal,
    Kind.folded: _folded,
    Kind.segment: _segment,
    Kind.prefix: _prefix,
    Kind.suffix: _suffix,
}
