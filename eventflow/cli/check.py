"""`eventflow check PATH`: is the rule set right? Every problem at its place, without touching anything.

Systems behind sources are only asked, and only for a moment: one that is away is not `check`'s business.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eventflow.cli.options import Json, examples
from eventflow.cli.output import line, note, print_json

if TYPE_CHECKING:
    from eventflow.errors import Problem
    from eventflow.rulefile.ruleset import RuleSet


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        name="check",
        epilog=examples(
            "eventflow check rules/            a folder is one set, subfolders included",
            "eventflow check orders.yaml       a file alone is a whole set",
            "eventflow check rules/ --json     one object per problem, for editors",
        ),
    )(_command)


def _command(
    path: Annotated[
        Path, typer.Argument(help="A folder of rule files, or one rule file.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Read rule files and test files and print what is wrong with them.

    Exits 2 where something is; warnings alone exit 0.
    """
    raise typer.Exit(check(path, as_json))


def check(path: Path, as_json: bool) -> int:
    """Print the problems of a rule set, warnings included; the exit code.

    Raises `UsageError` where there is no such path.
    """
    from eventflow.rulefile.examine import examine

    examined = examine(path)
    problems = [*examined.problems]
    if examined.ruleset is not None and not examined.errors:
        problems += _of_systems(path, examined.ruleset)
    if as_json:
        words = ("file", "line", "column", "message", "warning")
        print_json([{word: getattr(problem, word) for word in words} for problem in problems])
    else:
        for problem in problems:
            line(str(problem))
    if examined.errors:
        sys.stdout.flush()  # in one pipe with stderr the problems stand above their sum
        note(f"{_count(len(examined.errors), 'error')} in {path}")
        return 2
    if examined.ruleset is not None and not as_json:
        line(f"{summary(examined.ruleset)}: ok")
    return 0


def _of_systems(path: Path, ruleset: RuleSet) -> list[Problem]:
    """What the systems behind sources cannot deliver, as warnings at the sources."""
    if not any(hasattr(spec.factory, "examine") for spec in ruleset.sources.values()):
        return []
    import asyncio

    from eventflow.cli.systems import ask_systems
    from eventflow.rulefile.folder import as_given

    return [as_given(path, problem) for problem in asyncio.run(ask_systems(ruleset))]


def summary(ruleset: RuleSet) -> str:
    """`3 rules, 1 workflow, 2 sources`."""
    counts = {"rule": len(ruleset.rules), "workflow": len(ruleset.workflows), "source": len(ruleset.sources)}
    return ", ".join(_count(number, word) for word, number in counts.items())


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
