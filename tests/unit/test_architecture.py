"""What the house style says of sizes and names, where a tool can see it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("eventflow", "connectors", "tools", "bench", "demo")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

LINES_OF_FILE = 400
LINES_OF_TESTS = 600  # a list of cases is read one at a time
LINES_OF_FUNCTION = 40
EXPORTS = 15
VAGUE = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc", "core"}


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def length(file: Path) -> int:
    return len(file.read_text().splitlines())


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Without the signature and the docstring, which explain and cost no thought."""
    body = function.body
    first = body[1] if ast.get_docstring(function) is not None and len(body) > 1 else body[0]
    return (function.end_lineno or 0) - first.lineno + 1


def test_files_are_short() -> None:
    long = {name(file): lines for file in FILES if (lines := length(file)) > LINES_OF_FILE}
    long |= {name(file): lines for file in TESTS if (lines := length(file)) > LINES_OF_TESTS}
    assert long == {}


def test_functions_are_short() -> None:
    sizes = {
        f"{name(file)}:{function.name}": lines_of_code(function)
        for file in FILES
        for function in functions(file)
    }
    assert {function: lines for function, lines in sizes.items() if lines > LINES_OF_FUNCTION} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [name(file) for file in FILES + TESTS if file.stem in VAGUE] == []


def test_packages_export_few_names() -> None:
    exports = {
        name(file): len(re.findall(r'^    "', found[1], re.MULTILINE))
        for file in FILES
        if (found := re.search(r"^__all__ = \[(.*?)^\]", file.read_text(), re.MULTILINE | re.DOTALL))
    }
    assert {file: count for file, count in exports.items() if count > EXPORTS} == {}


def test_every_file_says_what_it_is() -> None:
    silent = [name(file) for file in FILES + TESTS if file.stat().st_size and not starts_with_docstring(file)]
    assert silent == []


def starts_with_docstring(file: Path) -> bool:
    return ast.get_docstring(ast.parse(file.read_bytes())) is not None


def test_no_sql_is_put_together() -> None:
    """Statements are constants; `noqa: S608` would say that somebody knew better."""
    assert [name(file) for file in FILES if re.search(r"noqa:[^\n]*S608", file.read_text())] == []
