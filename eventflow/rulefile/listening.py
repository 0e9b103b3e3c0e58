"""Which of eventflow's own events a rule may take, as far as that is known before there is one.

A pattern is weakened to its conditions on a few paths: what the whole pattern takes, the weakened one takes
as well.
"""

from __future__ import annotations

from collections.abc import Iterable

from eventflow.event import EVENTFLOW_SOURCE, Event
from eventflow.matching.pattern import AllOf, AnyElement, AnyOf, Compare, Condition, NoneOf, Pattern
from eventflow.matching.rule import Rule

Paths = frozenset[tuple[str, ...]]
"""The paths of an event whose values are known, by their segments."""

TYPE: Paths = frozenset({("type",)})


def may_take(rule: Rule, event_type: str) -> bool:
    """False where the rule's sources or its condition on `type` rule the event out."""
    return hears_eventflow(rule) and weakened(rule.pattern, TYPE).holds(_event_of(event_type))


def hears_eventflow(rule: Rule) -> bool:
    """Whether the rule takes events of eventflow's own at all."""
    return rule.sources is None or EVENTFLOW_SOURCE in rule.sources


def _event_of(event_type: str) -> Event:
    return Event(source=EVENTFLOW_SOURCE, id="", type=event_type, data=None, raw=b"null")


def weakened(pattern: Pattern, known: Paths) -> Pattern:
    """The pattern as far as it looks at these paths of an event."""
    return Pattern(_kept(pattern.conditions, known))


def _kept(conditions: Iterable[Condition], known: Paths) -> tuple[Condition, ...]:
    weaker = (_weaker(condition, known) for condition in conditions)
    return tuple(condition for condition in weaker if condition is not None)


def _weaker(condition: Condition, known: Paths) -> Condition | None:
    """A condition that holds wherever this one does; None where nothing but "always" is known to."""
    match condition:
        case Compare():
            return condition if condition.path.segments in known else None
        case AllOf():
            kept = _kept(condition.parts, known)
            return AllOf(kept) if kept else None
        case AnyOf():
            kept = _kept(condition.parts, known)
            return AnyOf(kept) if len(kept) == len(condition.parts) else None
        case NoneOf():
            # Below a negation weaker turns into stronger, so only parts that stay as they are count.
            kept = tuple(part for part in condition.parts if _weaker(part, known) == part)
            return NoneOf(kept) if kept else None
        case AnyElement():
            return None


def exact_types(pattern: Pattern) -> frozenset[str] | None:
    """The types that a plain condition lists; None where only the pattern can tell."""
    for condition in pattern.conditions:
        if isinstance(condition, Compare) and condition.path.segments == ("type",):
            for operator in condition.operators:
                values = operator.argument if operator.name == "in" else [operator.argument]
                if operator.name in ("eq", "in"):
                    return frozenset(value for value in values if isinstance(value, str))
    return None


def says_type(pattern: Pattern) -> bool:
    """Whether anything in the pattern depends on the event's type."""
    return bool(weakened(pattern, TYPE).conditions)
