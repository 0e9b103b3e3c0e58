"""What `planted.toml` says: the rows of docs/failures.md, their tests and their bugs."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[2]
HERE: Final = Path(__file__).parent
NUMBERS: Final = {"f": 14, "k": 15, "c": 14, "w": 12, "t": 7}
"""The rows of each area, counted from 1: files, Kafka, change data capture, webhooks, times and tables."""

_NAME: Final = re.compile(r"([fkcwt])(\d+)([b-z]?)")
_WORDS: Final = {"title", "expected", "test", "patch", "reason"}


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that can go wrong. `tests` are pytest's names; without any, `reason` says why."""

    name: str
    title: str
    expected: str
    tests: tuple[str, ...] = ()
    patch: str = ""
    reason: str = ""

    @property
    def area(self) -> str:
        return self.name[0]

    @property
    def order(self) -> tuple[int, str]:
        """Where it stands among the rows of its area."""
        found = _NAME.fullmatch(self.name)
        return (int(found[2]), found[3]) if found else (0, self.name)


def read(folder: Path = HERE) -> list[Row]:
    """All rows, in the order of the page. What does not fit the format is for `complaints` to say."""
    tables = tomllib.loads((folder / "planted.toml").read_text(encoding="utf-8"))
    rows = [
        Row(
            name=name,
            title=table.get("title", ""),
            expected=table.get("expected", ""),
            tests=tuple(_listed(table.get("test", []))),
            patch=table.get("patch", ""),
            reason=table.get("reason", ""),
        )
        for name, table in tables.items()
    ]
    areas = list(NUMBERS)
    return sorted(rows, key=lambda row: (areas.index(row.area) if row.area in areas else 9, row.order))


def _listed(tests: str | list[str]) -> list[str]:
    return [tests] if isinstance(tests, str) else tests


def complaints(folder: Path = HERE, repository: Path = REPOSITORY) -> Iterator[str]:
    """What is wrong with the rows, one line each."""
    tables = tomllib.loads((folder / "planted.toml").read_text(encoding="utf-8"))
    for name, table in tables.items():
        yield from (f"{name}: no such word: {word}" for word in table.keys() - _WORDS)
    rows = read(folder)
    for row in rows:
        yield from _complaints_of(row, folder, repository)
    there = {row.name for row in rows}
    for area, last in NUMBERS.items():
        yield from (f"{area}{n}: no such row" for n in range(1, last + 1) if f"{area}{n}" not in there)
    used = {row.patch for row in rows}
    yield from (f"{p.name}: no row uses it" for p in sorted(folder.glob("*.patch")) if p.name not in used)


def _complaints_of(row: Row, folder: Path, repository: Path) -> Iterator[str]:
    found = _NAME.fullmatch(row.name)
    if not found or not 1 <= int(found[2]) <= NUMBERS[found[1]]:
        yield f"{row.name}: no row of this name is on the page"
    if not row.title or not row.expected:
        yield f"{row.name}: wants a title and what is expected"
    if bool(row.tests) == bool(row.reason) or bool(row.tests) != bool(row.patch):
        yield f"{row.name}: wants either a test and a patch, or a reason"
    if row.patch and not (folder / row.patch).is_file():
        yield f"{row.name}: there is no {row.patch}"
    elif row.patch and not row.patch.startswith(f"{row.name}-"):
        yield f"{row.name}: its patch should be called {row.name}-..., not {row.patch}"
    for test in row.tests:
        if not exists(test, repository):
            yield f"{row.name}: there is no test {test}"


def exists(test: str, repository: Path = REPOSITORY) -> bool:
    """Whether `path::Class::name[parameters]` is there to be collected; bases in the same file count."""
    path, *names = test.partition("[")[0].split("::")
    if not names or not (repository / path).is_file():
        return False
    body: list[ast.stmt] = ast.parse((repository / path).read_bytes()).body
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    *outer, name = names
    if not outer:
        return name in _functions(body)
    if len(outer) > 1 or outer[0] not in classes:
        return False
    return any(name in _functions(each.body) for each in _with_bases(classes[outer[0]], classes))


def _with_bases(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    yield node
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in classes:
            yield from _with_bases(classes[base.id], classes)


def _functions(body: list[ast.stmt]) -> set[str]:
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
