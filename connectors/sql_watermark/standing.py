"""Where a watermark stands, and when it no longer means anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Self

from eventflow.event import JSON

if TYPE_CHECKING:
    from connectors.sql_watermark.server import Look


@dataclass(frozen=True, slots=True)
class Standing:
    """Rows up to `value` are counted; None: none are. It holds for this table and column, numbered so.

    `column` is the column's number in the table, `type` the SQL type that its values are compared as. `seen`
    is there while rows up to `value` may still be committed that nobody has counted: how many there were at
    the beginning, by steps of their distance from `value` (`Server.steps`).
    """

    value: str | None
    table: int
    sequence: int | None
    column: int
    type: str
    seen: Mapping[str, int] | None = None

    @classmethod
    def of(cls, cursor: JSON) -> Self | None:
        """From a stored position; None at the first start."""
        return cls(**cursor) if cursor else None

    @classmethod
    def at(cls, look: Look, value: str | None, seen: Mapping[str, int] | None = None) -> Self:
        """Of the table that was looked at."""
        return cls(value, look.table, look.sequence, look.column, look.type, seen)

    def cursor(self) -> JSON:
        known = {"value": self.value, "table": self.table, "sequence": self.sequence,
                 "column": self.column, "type": self.type}  # fmt: skip
        return known if self.seen is None else {**known, "seen": dict(self.seen)}


def added(seen: Mapping[str, int], found: Mapping[str, int]) -> Mapping[str, int]:
    """How many rows have come in each step, of those where some have. Others may have lost some."""
    more = {step: rows - seen.get(step, 0) for step, rows in found.items()}
    return {step: rows for step, rows in more.items() if rows > 0}


def why_stopped(standing: Standing, look: Look) -> str | None:
    """What happened to the table, to stand after its name; None where the position still holds.

    That the highest value is lower now may be harmless: its rows were deleted. It is where time goes on
    and where a sequence has not gone back; of numbers that somebody else gives out we cannot know.
    """
    if standing.value is None:
        return None
    if look.table != standing.table:
        return "was dropped and created anew, or `table:` named another one"
    if (look.column, look.type) != (standing.column, standing.type):
        return "was counted by another column, or its type was changed"
    if standing.sequence is not None and look.sequence is None:
        return "gets its numbers from elsewhere now"
    if standing.sequence is not None and look.sequence != standing.sequence:
        return "has had its numbers restarted"
    if not look.below or look.is_time:
        return None
    if look.last_number is not None:
        went_back = look.last_number < Decimal(standing.value)
        return f"has had its numbers set back to {look.last_number}" if went_back else None
    return f"stood at {standing.value} and its highest value is {look.highest} now"
