"""Conditions as functions of one event: the same meaning as `holds`, ten times faster.

    reader(path)      (event) -> the value that the path leads to, or MISSING, or FORKED
    compile_check()   conditions -> (check, arguments), to be called as check(event, arguments)

Rules that ask the same of the same fields share one function and differ in their arguments, which keeps
ten thousand rules small enough for the processor's cache. The functions are generated from the
expressions of `operators`; names of fields and arguments of rules are bound to them, never written into
them. Where an array stands in the way, the answer is left to `holds`, which opens it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from eventflow.event import JSON, Event
from eventflow.matching.conditions import Compare, Condition
from eventflow.matching.operators import EXPRESSIONS
from eventflow.matching.path import MISSING, Missing, attribute

Arguments = tuple[Any, ...]
Check = Callable[[Event, Arguments], bool]


class Forked:
    """The type of `FORKED`: an array stands in the way or at the end, so there may be several values."""


FORKED: Final = Forked()
Reader = Callable[[Event], JSON | Missing | Forked]
Segments = tuple[str, ...]

_SLOTS: Final = frozenset({"id", "type", "subject", "datacontenttype", "dataschema"})
_CONTAINERS: Final = frozenset({"data", "meta"})
_ARGUMENT: Final = re.compile(r"\ba\b")


class _Step(NamedTuple):
    """One condition of a check: where it looks and which expressions it asks; `segments` None: `holds`."""

    segments: Segments | None
    kinds: tuple[str, ...]


def compile_check(conditions: Sequence[Condition]) -> tuple[Check, Arguments] | None:
    """All of `conditions`; None where there are none."""
    if not conditions:
        return None
    ordered = sorted(conditions, key=_cost)
    steps = tuple(_step(condition) for condition in ordered)
    arguments: list[Any] = []
    for condition, step in zip(ordered, steps, strict=True):
        arguments.append(condition)
        if isinstance(condition, Compare) and step.segments is not None:
            arguments += [operator.given for operator in condition.operators]
    return _check(steps), tuple(arguments)


def _step(condition: Condition) -> _Step:
    if isinstance(condition, Compare) and all(one.name != "exists" for one in condition.operators):
        return _Step(condition.path.segments, tuple(one.kind for one in condition.operators))
    return _Step(None, ())


def _cost(condition: Condition) -> int:
    """Cheap ones first; the order makes no difference to the answer."""
    kinds = _step(condition).kinds
    return 2 if not kinds else 1 if {"glob", "predicate", "folded", "not"} & set(kinds) else 0


@lru_cache(maxsize=4096)
def reader(segments: Segments) -> Reader:
    """Reads one path. `segments` begin with an attribute of the event."""
    lines = ["def generated(event):", *_indent(_reading(segments)), "    return v"]
    return _generate(lines, segments)


@lru_cache(maxsize=4096)
def _check(steps: tuple[_Step, ...]) -> Check:
    names: list[str] = []
    parameters: list[str] = []
    body: list[str] = []
    for number, step in enumerate(steps):
        given = [f"a{number}_{index}" for index in range(len(step.kinds))]
        parameters += [f"c{number}", *given]
        if step.segments is None:
            body += [f"if not c{number}.holds(event):", "    return False"]
            continue
        body += _reading(step.segments, len(names))
        names += step.segments
        body += ["if v is FORKED:", f"    if not c{number}.holds(event):", "        return False"]
        asked = [f"({_expression(kind, a)})" for kind, a in zip(step.kinds, given, strict=True)]
        body += [f"elif v is MISSING or not ({' and '.join(asked)}):", "    return False"]
    lines = ["def generated(event, arguments):", f"    {', '.join(parameters)}, = arguments"]
    return _generate([*lines, *_indent(body), "    return True"], tuple(names))


def _expression(kind: str, argument: str) -> str:
    """The expression with its `a` renamed."""
    return _ARGUMENT.sub(argument, EXPRESSIONS[kind])


def _reading(segments: Segments, offset: int = 0) -> Iterator[str]:
    """Lines that leave the value in `v`. Segment number n is bound to the name s{offset + n}."""
    first, rest = segments[0], segments[1:]
    if first in _SLOTS:
        yield f"v = event.{first}"
        yield "if v is None: v = MISSING"
        return
    yield f"v = event.{first}" if first in _CONTAINERS else f"v = attribute(event, s{offset})"
    for number in range(offset + 1, offset + 1 + len(rest)):
        yield f"v = v.get(s{number}, MISSING) if v.__class__ is dict else beside(v)"
    yield "if v.__class__ is list: v = FORKED"


def _beside(value: Any) -> Missing | Forked:
    """What a field of something that is no map leads to."""
    return FORKED if value is FORKED or isinstance(value, list) else MISSING


def _indent(lines: Iterator[str] | Sequence[str]) -> Iterator[str]:
    return (f"    {line}" for line in lines)


def _generate(lines: Sequence[str], names: Segments) -> Any:
    scope: dict[str, Any] = {"MISSING": MISSING, "FORKED": FORKED, "attribute": attribute, "beside": _beside}
    scope |= {f"s{number}": name for number, name in enumerate(names)}
    exec("\n".join(lines), scope)  # noqa: S102 - fixed words, numbers and the constants of `operators`
    return scope["generated"]
