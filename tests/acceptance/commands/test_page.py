"""The commands of docs/commands.md are those that exist, with the options that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from eventflow.cli.main import app

PAGE = Path(__file__).parents[3] / "docs" / "commands.md"
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`((?:eventflow )[^`]+)`")


def shown() -> list[str]:
    text = PAGE.read_text()
    blocks = [line for block in SHELL.findall(text) for line in block.splitlines()]
    return [line for line in blocks if line.startswith("eventflow")] + INLINE.findall(text)


@pytest.mark.parametrize("line", shown())
def test_a_command_on_the_page_parses(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command: Any = get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not getattr(command, "commands", {}) or not words or words[0].startswith("-"), words
    options = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    options |= {"--help", "-h"}
    given = [word for word in words if word.startswith("-")]
    assert set(given) <= options
    command.make_context(
        "eventflow", [word for word in words if word not in ("--help", "-h")], resilient_parsing=True
    )


def test_every_command_is_on_the_page() -> None:
    page = PAGE.read_text()
    root: Any = get_command(app)
    for name, command in root.commands.items():
        assert f"eventflow {name}" in page
        for sub in getattr(command, "commands", {}):
            assert re.search(rf"`?(eventflow )?{name} {sub}\b", page), f"{name} {sub}"
