"""`eventflow check PATH`: is the rule set right? Every problem at its place, without touching anything."""

from __future__ import annotations

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
    path: Annotated[Path, typer.Argument(help="A folder of rule files, or one rule file.")],
    as_json: Json = False,
) -> None:
    """Read rule files and test files and print what is wrong with them. Exits 2 where something is."""
    raise typer.Exit(check(path, as_json))


def check(path: Path, as_json: bool) -> int:
    """Print the problems of a rule set, warnings included; the exit code.

    Raises `UsageError` where there is no such path.
    """
    from eventflow.rulefile.folder import as_given

    ruleset, problems = examine(path)
    shown = [as_given(path, problem) for problem in problems]
    if as_json:
        print_json(
            [
                {"file": p.file, "line": p.line, "column": p.column, "message": p.message, "warning": p.warning}
                for p in shown
            ]
        )
    else:
        for problem in shown:
            line(str(problem))
    errors = sum(not problem.warning for problem in problems)
    if errors:
        note(f"{errors} {'error' if errors == 1 else 'errors'}")
        return 2
    if ruleset is not None and not as_json:
        line(f"{summary(ruleset)}: ok")
    return 0


def examine(path: Path) -> tuple[RuleSet | None, list[Problem]]:
    """Load a set with its test files: the set where it has no errors, and every problem."""
    from eventflow.errors import RuleSetError
    from eventflow.rulefile.cases import read_cases
    from eventflow.rulefile.connectors import find_connectors
    from eventflow.rulefile.folder import read_folder, read_tests, set_folder
    from eventflow.rulefile.load import load

    try:
        ruleset = load(read_folder(path), set_folder(path), find_connectors())
    except RuleSetError as error:
        return None, list(error.problems)
    try:
        read_cases(read_tests(path), ruleset)
    except RuleSetError as error:
        return None, [*ruleset.warnings, *error.problems]
    return ruleset, list(ruleset.warnings)


def summary(ruleset: RuleSet) -> str:
    """`3 rules, 1 workflow, 2 sources`."""
    counts = ((len(ruleset.rules), "rule"), (len(ruleset.workflows), "workflow"), (len(ruleset.sources), "source"))
    return ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts)
