"""The conditions of a pattern, and what each of them means.

`holds` is the meaning, written plainly: the index and the compiled tests must agree with it, and
`explain` shows it. A condition that leads through or to an array holds if one element holds for the
whole condition.
"""

from __future__ import annotations

from dataclasses import dataclass

from eventflow.event import JSON, Event
from eventflow.matching.operators import Operator
from eventflow.matching.path import Path, elements, reach


@dataclass(frozen=True, slots=True)
class Compare:
    """All `operators` hold for one value that `path` leads to."""

    path: Path
    operators: tuple[Operator, ...]

    def holds(self, root: JSON | Event) -> bool:
        """`root` is the event, or inside `any` the element."""
        return self.verdict(reach(root, self.path))

    def verdict(self, reached: list[JSON]) -> bool:
        """Whether it holds for what the path leads to, arrays not yet opened."""
        if len(self.operators) == 1 and self.operators[0].name == "exists":
            return bool(reached) is self.operators[0].argument
        if any(operator.name == "exists" and not operator.argument for operator in self.operators):
            return False  # nothing holds for a value that is not there
        values = (element for value in reached for element in elements(value))
        return any(all(operator.test(value) for operator in self.operators) for value in values)


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds."""

    parts: tuple[Condition, ...]

    def holds(self, root: JSON | Event) -> bool:
        """`root` is the event, or inside `any` the element."""
        return all(part.holds(root) for part in self.parts)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds."""

    parts: tuple[Condition, ...]

    def holds(self, root: JSON | Event) -> bool:
        """`root` is the event, or inside `any` the element."""
        return any(part.holds(root) for part in self.parts)


@dataclass(frozen=True, slots=True)
class NoneOf:
    """No part holds."""

    parts: tuple[Condition, ...]

    def holds(self, root: JSON | Event) -> bool:
        """`root` is the event, or inside `any` the element."""
        return not any(part.holds(root) for part in self.parts)


@dataclass(frozen=True, slots=True)
class AnyElement:
    """One element of the array at `path` satisfies all of `inner`. What is no array is one element."""

    path: Path
    inner: AllOf

    def holds(self, root: JSON | Event) -> bool:
        """`root` is the event, or inside another `any` its element."""
        values = (element for value in reach(root, self.path) for element in elements(value))
        return any(self.inner.holds(value) for value in values)


Condition = Compare | AllOf | AnyOf | NoneOf | AnyElement
