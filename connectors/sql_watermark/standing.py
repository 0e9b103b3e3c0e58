"""Where a watermark stands, and when it no longer means anything."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Self

from eventflow.event import JSON

if TYPE_CHECKING:
    from connectors.sql_watermark.server import Look


@dataclass(frozen=True, slots=True)
class Standing:
    """Rows up to `value` are counted; None: none are. It holds for this table, numbered so."""

    value: str | None
    table: int
    sequence: int | None

    @classmethod
    def of(cls, cursor: JSON) -> Self | None:
        """From a stored position; None at the first start."""
        return cls(cursor["value"], cursor["table"], cursor["sequence"]) if cursor else None

    @classmethod
    def at(cls, look: Look, *, earliest: bool = False) -> Self:
        return cls(None if earliest else look.highest, look.table, look.sequence)

    def cursor(self) -> JSON:
        return {"value": self.value, "table": self.table, "sequence": self.sequence}


def why_stopped(standing: Standing, look: Look) -> str | None:
    """What happened to the table, to stand after its name; None where the position still holds.

    That the highest value is lower now may be harmless: its rows were deleted. It is where time goes on
    and where a sequence has not gone back; of numbers that somebody else gives out we cannot know.
    """
    if standing.value is None:
        return None
    if look.table != standing.table:
        return "was dropped and created anew"
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
