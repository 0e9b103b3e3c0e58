"""Anchors: what an event must have before a pattern can match it, in a form that a hash finds.

An anchor is implied by the pattern: one that is too wide costs time, never a match. `any_of` has one
key for each branch, and the rule is filed under all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from itertools import chain
from typing import Any, Final, NamedTuple, cast

from eventflow.glob import Glob
from eventflow.matching.conditions import AllOf, AnyElement, AnyOf, Compare, Condition
from eventflow.matching.operators import Operator, hash_key

MAX_KEYS: Final = 1_000
"""Keys of one anchor. A rule that lists more values is filed under something else, or always looked at."""


class Kind(IntEnum):
    """What of a value is looked up, in order of preference."""

    equal = 0
    folded = 1
    segment = 2
    prefix = 3
    suffix = 4


class Key(NamedTuple):
    """One entry of the index. `text` is the value's `hash_key`, the folded text, segment, prefix or suffix.

    `path` are the segments from the event on; arrays on the way are opened.
    """

    kind: Kind
    path: tuple[str, ...]
    text: Any


class Anchor(NamedTuple):
    """An event that matches has at least one of `keys`. `exact`: with one of them `condition` does hold."""

    keys: tuple[Key, ...]
    condition: Condition
    exact: bool


def anchors(conditions: Sequence[Condition]) -> Iterator[Anchor]:
    """Every anchor that the conditions, all of which must hold, have to offer."""
    for condition in conditions:
        alone = isinstance(condition, Compare) and len(condition.operators) == 1
        for keys in _keys(condition, ()):
            if len(keys) <= MAX_KEYS:
                exact = alone and keys[0].kind in (Kind.equal, Kind.folded)
                yield Anchor(tuple(dict.fromkeys(keys)), condition, exact)


def _keys(condition: Condition, base: tuple[str, ...]) -> Iterator[list[Key]]:
    """The ways to file a condition. `base` leads to the element that the condition's paths start at."""
    match condition:
        case Compare():
            for operator in condition.operators:
                yield from _of_operator(operator, (*base, *condition.path.segments))
        case AllOf():
            for part in condition.parts:
                yield from _keys(part, base)
        case AnyOf():
            branches = [min(_keys(part, base), key=_rank, default=None) for part in condition.parts]
            found = [branch for branch in branches if branch is not None]
            if len(found) == len(branches):
                yield list(chain.from_iterable(found))
        case AnyElement():
            yield from _keys(condition.inner, (*base, *condition.path.segments))
        case _:
            pass  # `none_of` says what an event has not


def _rank(keys: list[Key]) -> tuple[int, int]:
    return max(key.kind for key in keys), len(keys)


def _of_operator(operator: Operator, path: tuple[str, ...]) -> Iterator[list[Key]]:
    offers = _OFFERS.get(operator.name)
    for kind, texts in offers(operator) if offers else ():
        yield [Key(kind, path, text) for text in texts]


_Offer = tuple[Kind, Sequence[Any]]


def _equal(operator: Operator) -> Iterator[_Offer]:
    yield Kind.equal, [hash_key(operator.argument)]


def _one_of(operator: Operator) -> Iterator[_Offer]:
    yield Kind.equal, [hash_key(value) for value in cast(list[Any], operator.argument)]


def _folded(operator: Operator) -> Iterator[_Offer]:
    yield Kind.folded, [operator.argument.casefold()]


def _prefix(operator: Operator) -> Iterator[_Offer]:
    return _affixes(operator.argument, "", operator.argument.split("/")[:-1])


def _suffix(operator: Operator) -> Iterator[_Offer]:
    return _affixes("", operator.argument, operator.argument.split("/")[1:])


def _contains(operator: Operator) -> Iterator[_Offer]:
    return _affixes("", "", operator.argument.split("/")[1:-1])


def _glob(operator: Operator) -> Iterator[_Offer]:
    glob: Glob = operator.given
    if glob.literal:
        yield Kind.equal, [glob.prefix]
    else:
        yield from _affixes(glob.prefix, glob.suffix, glob.segments)


def _affixes(prefix: str, suffix: str, segments: Sequence[str]) -> Iterator[_Offer]:
    """`segments` are whole ones: a slash or an end of the value on either side."""
    for segment in segments:
        if segment:
            yield Kind.segment, [segment]
    if prefix:
        yield Kind.prefix, [prefix]
    if suffix:
        yield Kind.suffix, [suffix]


_OFFERS: Final[Mapping[str, Callable[[Operator], Iterator[_Offer]]]] = {
    "eq": _equal,
    "in": _one_of,
    "ieq": _folded,
    "prefix": _prefix,
    "suffix": _suffix,
    "contains": _contains,
    "glob": _glob,
}
