"""The options that commands share, and how their values are read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

import typer

TABLE_ROWS: Final = 50
"""How many rows a table shows where `--limit` says nothing. JSON has no default limit."""


def moment(text: str) -> datetime:
    """An age (`90s 30m 2h 7d`) before now, or a time in RFC 3339 (UTC where it names no offset)."""
    from eventflow.units import parse_duration

    age = parse_duration(text)
    try:
        if age is not None:
            return datetime.now(UTC) - age
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is neither an age like 30m, 2h or 7d nor a time like 2026-01-31T06:00Z"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Limit = Annotated[
    int | None,
    typer.Option("--limit", "-n", min=1, help="Most rows to print: 50 unless said, all of them with --json."),
]
Since = Annotated[
    datetime | None,
    typer.Option(
        "--since", parser=moment, metavar="AGE|TIME", help="Only what is newer: 30m, 2h, 7d or a time."
    ),
]


def row_limit(limit: int | None, as_json: bool) -> int | None:
    """The limit that counts; None: all rows."""
    return limit if limit is not None or as_json else TABLE_ROWS


def examples(*lines: str) -> str:
    """An `epilog` that shows real commands. The backspace keeps click from refilling the lines."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
