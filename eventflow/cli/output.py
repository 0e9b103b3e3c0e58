"""What commands print: tables for people, JSON for programs, and nothing that a terminal would obey.

Everything that arrives as an event is hostile: names and payloads pass `visible` before a person sees
them. On a terminal tables are drawn with rich; piped they are plain columns, two spaces apart, never cut.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

if TYPE_CHECKING:
    from rich.console import Console

Row = Mapping[str, Any]
"""One line of a view: the table's words as keys."""

# Cc and Cf hold escape sequences and text that reorders what is around it; Cs is no text; Zl, Zp break lines.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_TEXTS: Final = frozenset({"error", "reason", "message", "result", "subject", "event", "missing"})
"""Columns whose text may go on in a second line."""
_NARROWEST_TEXT: Final = 16
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_STATE_STYLES: Final = {
    "succeeded": "green", "running": "cyan", "admitted": "green", "matched": "green", "yes": "green",
    "failed": "red", "stopped": "red", "dead": "red", "open": "yellow", "waiting": "yellow", "held": "yellow",
    "cancelled": "magenta", "no": "red",
}  # fmt: skip


def visible(text: str, keep: str = "") -> str:
    r"""Text with everything that a terminal might obey shown as `\x1b` instead; `keep` is let through."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c in keep or unicodedata.category(c) not in _UNSEEN else _escape(ord(c)) for c in text
    )


def _escape(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def payload_text(raw: bytes) -> str:
    """Bytes as a person can read them: UTF-8 with control characters shown, else hexadecimal, 32 a line."""
    try:
        return visible(raw.decode(), keep="\n\t")
    except UnicodeDecodeError:
        return "\n".join(raw[at : at + 32].hex(" ") for at in range(0, len(raw), 32))


def duration(value: timedelta) -> str:
    """The two largest units: `3d 4h`, `1m 5s`, below ten seconds `0.25s`."""
    seconds = max(value.total_seconds(), 0.0)
    if seconds < 10:
        return f"{seconds:.3g}s"
    whole, parts = int(seconds), list[str]()
    for size, unit in _UNITS:
        count, whole = divmod(whole, size)
        if count or parts:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def moment(value: datetime, now: datetime) -> str:
    """A time in UTC with its age: `2026-11-21T07:35:51Z 3m ago`."""
    return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} {age(value, now)}"


def age(value: datetime, now: datetime) -> str:
    """`3m ago`, or `in 3m` for what is to come."""
    seconds = int(abs(now - value).total_seconds())
    units = f"{seconds}s" if seconds < 10 else duration(timedelta(seconds=seconds)).split()[0]
    return f"in {units}" if value > now else f"{units} ago"


def cell(value: Any, now: datetime) -> str:
    """One value of a table as a single line of printable text; `-` for nothing."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return moment(value, now)
        case timedelta():
            return duration(value)
        case bytes():
            return visible(payload_text(value))
        case dict():
            return visible(json.dumps(value, default=plain_value, ensure_ascii=False))
        case list() | tuple():
            return ", ".join(cell(item, now) for item in value) or "-"  # pyright: ignore[reportUnknownVariableType]
        case _:
            return visible(str(value)) or '""'


def plain_value(value: Any) -> Any:
    """What JSON has no word for: times as RFC 3339 in UTC, durations in seconds, bytes as text or hex."""
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case UUID():
            return str(value)
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return value.hex()
        case _:
            raise TypeError(f"{type(value).__name__} is no value of a view")


def print_json(value: Sequence[Row] | Row) -> None:
    """One array or object. ASCII only, so that no terminal and no locale can go wrong with it."""
    whole: Any = dict(value) if isinstance(value, Mapping) else [dict(row) for row in value]
    sys.stdout.write(json.dumps(whole, default=plain_value, indent=2) + "\n")


def print_rows(rows: Sequence[Row], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """A list command's answer. `columns` are the words that the table shows; JSON has all of them.

    `empty` is said on stderr where there is no row, so that a pipe stays clean.
    """
    if as_json:
        print_json(rows)
    elif not rows:
        note(empty)
    else:
        print_table(columns, cells(rows, columns))


def cells(rows: Sequence[Row], columns: Sequence[str]) -> list[list[str]]:
    """The printable cells of a table; on a terminal a time is its age alone, for room."""
    now = datetime.now(UTC)
    brief = sys.stdout.isatty()
    return [
        [
            age(value, now) if brief and isinstance(value, datetime) else cell(value, now)
            for value in (row[name] for name in columns)
        ]
        for row in rows
    ]


def print_table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Cells must be printable already."""
    if sys.stdout.isatty():
        _draw(columns, lines)
        return
    widths = _widths(columns, lines)
    for line in (columns, *lines):
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


def _widths(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(columns, *lines, strict=True)]


def _draw(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """A table where the terminal is wide enough, else a paragraph for each line; ids are never cut in two."""
    from rich.console import Console

    console = Console(highlight=False)
    widths = _widths(columns, lines)
    stiff = sum(
        min(width, _NARROWEST_TEXT) if name in _TEXTS else width
        for name, width in zip(columns, widths, strict=True)
    )
    if stiff + 2 * len(columns) <= console.width:
        _draw_table(console, columns, lines)
    else:
        _draw_paragraphs(console, columns, lines)


def _draw_table(console: Console, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name not in _TEXTS)
    for line in lines:
        table.add_row(*(Text(text, style=_STATE_STYLES.get(text, "")) for text in line))
    console.print(table)


def _draw_paragraphs(console: Console, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    head = next((name for name in reversed(columns) if name.endswith("id")), columns[0])
    for line in lines:
        row = dict(zip(columns, line, strict=True))
        console.print(Text(row.pop(head), style="bold"), overflow="fold")
        told = Text()
        for name, text in row.items():
            if text != "-":
                told.append(f"{name} ", style="dim").append(text, style=_STATE_STYLES.get(text, "")).append(
                    "  "
                )
        console.print(Padding(told, (0, 0, 0, 2)))


def print_fields(fields: Row) -> None:
    """One object for a person: a line per word, longer text indented below its word."""
    now = datetime.now(UTC)
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        text = _field(value, now)
        if "\n" in text:
            text = "\n" + "\n".join(f"    {line}" for line in text.splitlines())
        sys.stdout.write(f"{name.ljust(width)}  {text}\n")


def _field(value: Any, now: datetime) -> str:
    if isinstance(value, bytes):
        return payload_text(value)
    return visible(value, keep="\n\t") if isinstance(value, str) and value else cell(value, now)


def some_of(names: Sequence[str], count: int) -> str:
    """The first three of `count`."""
    return ", ".join(names[:3]) + (", ..." if count > 3 else "")


def line(text: str) -> None:
    """One line of an answer, on stdout."""
    sys.stdout.write(visible(text) + "\n")


def print_text(text: str) -> None:
    """Text of several lines as it stands, on stdout: statements, to be read or piped on."""
    sys.stdout.write(visible(text, keep="\n\t").rstrip("\n") + "\n")


def block(lines: Iterable[str], indent: str = "  ") -> None:
    """Lines below a heading, on stdout."""
    for text in lines:
        sys.stdout.write(f"{indent}{visible(text)}\n")


def note(text: str) -> None:
    """Something beside the answer: progress, an empty list, a warning. On stderr."""
    sys.stderr.write(visible(text, keep="\n") + "\n")
    sys.stderr.flush()
