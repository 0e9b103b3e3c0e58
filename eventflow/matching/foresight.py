"""What a pattern says of an event of which only a little is known: for `check`, before any event is there.

Kleene's three values: True, False, and None for "it depends".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from eventflow.event import JSON
from eventflow.matching.conditions import AllOf, AnyElement, AnyOf, Compare, Condition, NoneOf
from eventflow.matching.pattern import Pattern

Known = Mapping[tuple[str, ...], JSON]
"""Values of an event by the segments of their paths; of everything else nothing is known."""


def may_match(pattern: Pattern, known: Known) -> bool:
    """False where no event with these values can match."""
    return _verdict(AllOf(pattern.conditions), known) is not False


def _verdict(condition: Condition, known: Known) -> bool | None:
    match condition:
        case Compare():
            segments = condition.path.segments
            return condition.verdict([known[segments]]) if segments in known else None
        case AnyElement():
            return None
        case AllOf():
            return _all(_verdict(part, known) for part in condition.parts)
        case AnyOf():
            return _not(_all(_not(_verdict(part, known)) for part in condition.parts))
        case NoneOf():
            return _all(_not(_verdict(part, known)) for part in condition.parts)


def _all(parts: Iterable[bool | None]) -> bool | None:
    found = set(parts)
    return False if False in found else None if None in found else True


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value
