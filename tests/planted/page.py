"""The tables of docs/failures.md, made of `planted.toml`. The words around them are written by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from tests.planted.rows import NUMBERS, REPOSITORY, Row

PAGE: Final = REPOSITORY / "docs" / "failures.md"
_TABLE: Final = re.compile(r"(<!-- rows ([a-z]) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled_in(page: str, rows: list[Row]) -> str:
    """The page with its tables made anew."""

    def table(found: re.Match[str]) -> str:
        lines = _table([row for row in rows if row.area == found[2]])
        return found[1] + "\n".join(lines) + "\n" + found[3]

    missing = NUMBERS.keys() - {found[2] for found in _TABLE.finditer(page)}
    if missing:
        raise ValueError(f"docs/failures.md has no place for the rows {', '.join(sorted(missing))}")
    return _TABLE.sub(table, page)


def _table(rows: list[Row]) -> Iterator[str]:
    yield "| row | what goes wrong | what happens | test, and the bug it was seen to notice |"
    yield "|---|---|---|---|"
    for row in rows:
        yield f"| {row.name.upper()} | {_cell(row.title)} | {_cell(row.expected)} | {_proof(row)} |"


def _proof(row: Row) -> str:
    if row.reason:
        return f"none: {_cell(row.reason)}"
    tests = "; ".join(_link(test) for test in row.tests)
    bug = row.patch.removeprefix(f"{row.name}-").removesuffix(".patch")
    return f"{tests}. [{bug}](../tests/planted/{row.patch})"


def _link(test: str) -> str:
    path, _, name = test.partition("::")
    words = " ".join(part.removeprefix("test_") for part in name.split("::"))
    words = words.replace("_", " ").replace("[", " (").replace("]", ")")
    return f"[{words}](../{path})"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
