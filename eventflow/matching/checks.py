"""Conditions as functions of one event: the same meaning as `holds`, ten times faster.

Rules that ask the same of the same fields share one function and differ in their arguments, which keeps
ten thousand rules small enough for the processor's cache. Where an array stands in the way, the answer
is left to `holds`, which opens it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast

from eventflow.event import Event
from eventflow.glob import Glob, compile_glob
from eventflow.matching.conditions import Compare, Condition
from eventflow.matching.generated import Segments, generate, names, reading
from eventflow.matching.operators import EXPRESSIONS

Check = Callable[[Event, tuple[Any, ...]], bool]
"""Takes an event and a tuple that has its arguments from `FIRST_ARGUMENT` on."""

FIRST_ARGUMENT: Final = 3
_ARGUMENT: Final = re.compile(r"\ba\b")


class _Step(NamedTuple):
    """One condition of a check: where it looks and which expressions it asks; `segments` None: `holds`."""

    segments: Segments | None
    kinds: tuple[str, ...]


def compile_check(conditions: Sequence[Condition]) -> tuple[Check | None, tuple[Any, ...]]:
    """All of `conditions` (None where there are none) and the arguments."""
    if not conditions:
        return None, ()
    ordered = sorted(conditions, key=_cost)
    arguments: list[Any] = []
    for condition in ordered:
        arguments.append(condition)
        if isinstance(condition, Compare) and _step(condition).segments is not None:
            arguments += [_compact(operator.given) for operator in condition.operators]
    return _check(tuple(_step(condition) for condition in ordered)), tuple(arguments)


def _compact(given: Any) -> Any:
    """A copy made now lies beside the other arguments; the original, somewhere among the parsed rule files.

    With ten thousand rules that is in no cache, and fetching it costs as much as a whole check.
    """
    match given:
        case str():
            return given.encode().decode()
        case bool():
            return given
        case int() | float():
            return given + 0
        case frozenset():
            return frozenset([_compact(one) for one in cast(frozenset[Any], given)])
        case Glob():
            return compile_glob(given.text)
        case _:
            return given


def _step(condition: Condition) -> _Step:
    if isinstance(condition, Compare) and all(one.name != "exists" for one in condition.operators):
        return _Step(condition.path.segments, tuple(one.kind for one in condition.operators))
    return _Step(None, ())


def _cost(condition: Condition) -> int:
    """Cheap ones first; the order makes no difference to the answer."""
    kinds = _step(condition).kinds
    return 2 if not kinds else 1 if {"glob", "predicate", "folded", "not"} & set(kinds) else 0


@lru_cache(maxsize=1024)
def _check(steps: tuple[_Step, ...]) -> Check:
    bound: dict[str, str] = {}
    body: list[str] = []
    at = FIRST_ARGUMENT
    for step in steps:
        holds = f"given[{at}].holds(event)"
        if step.segments is None:
            body += [f"if not {holds}: return False"]
        else:
            asked = " and ".join(
                f"({_expression(kind, at + index)})" for index, kind in enumerate(step.kinds, 1)
            )
            body += reading(step.segments, len(bound))
            bound |= names(step.segments, len(bound))
            body += ["if v is FORKED:", f"    if not {holds}: return False"]
            body += [f"elif v is MISSING or not ({asked}): return False"]
        at += 1 + len(step.kinds)
    return generate("event, given", [*body, "return True"], bound)


def _expression(kind: str, argument: int) -> str:
    """Arguments are read where they are needed: unpacking would touch all of them, in cold memory."""
    return _ARGUMENT.sub(f"given[{argument}]", EXPRESSIONS[kind])
