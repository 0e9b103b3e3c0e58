"""What the code imports is declared, and what is declared is explained."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.lock import wanted

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
# Parts of a declared package under a name of their own, released with it.
PARTS = {"pydantic-core": "pydantic"}


def declared(extras: list[str], groups: list[str]) -> set[str]:
    return {canonicalize_name(asked.name) for asked in wanted(PROJECT, extras, groups)}


def imported(folder: Path) -> Iterator[str]:
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            yield from (name.split(".")[0] for name in names)


def foreign(*folders: str) -> set[str]:
    """The distributions that the code in these folders imports directly."""
    names = {name for folder in folders for name in imported(ROOT / folder)}
    ours = {path.name for path in ROOT.iterdir() if path.is_dir()}
    distributions = packages_distributions()
    found = {
        canonicalize_name(distributions.get(name, [name])[0])
        for name in names - ours - sys.stdlib_module_names
    }
    return {PARTS.get(name, name) for name in found}


def test_what_the_package_imports_is_declared() -> None:
    assert foreign("eventflow", "connectors") <= declared(list(EXTRAS), [])


def test_what_tests_and_tools_import_is_declared() -> None:
    beside = {path.stem for path in ROOT.glob("tests/**/*.py")} | {
        path.stem for path in ROOT.glob("rules/*.py")
    }
    assert foreign("bench", "demo", "rules", "tests", "tools") - beside <= declared(list(EXTRAS), ["dev"])


@pytest.mark.parametrize("asked", wanted(PROJECT, EXTRAS, ["dev"]), ids=lambda asked: asked.name)
def test_every_dependency_is_explained(asked: Requirement) -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    assert re.search(rf"^\| [^|]*\b{re.escape(asked.name)}\b[^|]*\|", page, re.MULTILINE)
