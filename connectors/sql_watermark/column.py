"""What kinds of columns a watermark may stand on, and how their values are written down.

Values cross into Python as text that Postgres made, exact to the last digit or microsecond; they are
compared in SQL only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, LiteralString

from eventflow.event import JSON


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of column, as fragments of SQL.

    `type` casts a value that was written down back; `shown` writes `value` down. Values of rows that count
    are `finite`, which says so at the lower end, and `limit`, which says so at both: for a time it leaves out
    what is not over yet, with `%(margin)s`; for `numeric` NaN and infinity, which sort above every number.
    `distance` is how far a value is below `%(until)s`, in units of 1 or a microsecond.
    """

    type: LiteralString
    shown: LiteralString
    finite: LiteralString
    limit: LiteralString
    distance: LiteralString
    is_time: bool

    def value(self, text: str | None) -> JSON:
        """For the event's data: whole numbers as numbers, all else as the text that it is.

        So are numbers of more than 100 digits: eventflow reads no longer ones.
        """
        if text is None or self.is_time or not text.removeprefix("-").isdigit() or len(text) > MOST_DIGITS:
            return text
        return int(text)


MOST_DIGITS: Final = 100
_NUMBERS_APART: Final = "LEAST(%(until)s::numeric - {column}::numeric, 1e300)::float8"
_INTEGER: Final = Kind("bigint", "value::text", "TRUE", "TRUE", _NUMBERS_APART, is_time=False)
KINDS: Final = {
    "smallint": _INTEGER,
    "integer": _INTEGER,
    "bigint": _INTEGER,
    "numeric": Kind(
        "numeric",
        "value::text",
        "{column} > '-Infinity'::numeric",
        "{column} > '-Infinity'::numeric AND {column} < 'Infinity'::numeric",
        _NUMBERS_APART,
        is_time=False,
    ),
    "timestamp with time zone": Kind(
        "timestamptz",
        """to_char(value AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""",
        "{column} > '-infinity'",
        "{column} > '-infinity' AND {column} <= statement_timestamp() - %(margin)s::interval",
        "EXTRACT(epoch FROM %(until)s::timestamptz - {column})::float8 * 1e6",
        is_time=True,
    ),
    "timestamp without time zone": Kind(
        "timestamp",
        """to_char(value, 'YYYY-MM-DD"T"HH24:MI:SS.US')""",
        "{column} > '-infinity'",
        "{column} > '-infinity' AND {column} <= statement_timestamp()::timestamp - %(margin)s::interval",
        "EXTRACT(epoch FROM %(until)s::timestamp - {column})::float8 * 1e6",
        is_time=True,
    ),
}
"""By the type's name in SQL."""

WHY_NOT: Final = {
    "text": "texts sort by a collation, which may change, and rarely grow",
    "character varying": "texts sort by a collation, which may change, and rarely grow",
    "date": "rows go on coming with the date that was already read",
    "uuid": "uuids do not grow",
    "double precision": "its values are not exact",
    "real": "its values are not exact",
}


def refusal(type_name: str) -> str:
    """Why a column of this type cannot carry a watermark, and what can."""
    reason = WHY_NOT.get(type_name, "its values do not grow")
    return f"is {type_name}: {reason}; name an integer or timestamp column that only grows"
