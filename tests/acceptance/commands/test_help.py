"""Every command teaches by example, and help does not wait for what it does not need."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from typer.main import get_command

from eventflow.cli.main import app
from tests.acceptance.commands.conftest import Command


def commands() -> list[str]:
    root: Any = get_command(app)
    return ["", *(name for name in root.commands)] + [
        f"{name} {sub}" for name, group in root.commands.items() for sub in getattr(group, "commands", {})
    ]


@pytest.mark.parametrize("command", commands())
def test_help_teaches_by_example(eventflow: Command, command: str) -> None:
    answer = eventflow(*command.split(), "--help")
    assert answer.code == 0
    assert "Examples:" in answer.out
    assert f"eventflow {command}".strip() in answer.out.partition("Examples:")[2]


def test_help_imports_neither_the_database_nor_the_rules() -> None:
    heavy = "asyncpg|pydantic|cel_expr_python|ruamel|uvicorn|structlog|rich"
    script = "import sys; import eventflow.cli.main; print(' '.join(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert [name for name in loaded if re.fullmatch(heavy, name)] == []
