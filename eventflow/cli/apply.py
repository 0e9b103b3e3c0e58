"""`eventflow apply PATH`: load, compare, replace, all or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eventflow.cli.options import examples
from eventflow.cli.output import block, line, note

if TYPE_CHECKING:
    from eventflow.rulefile.ruleset import RuleSet
    from eventflow.store.pool import Pool

EXAMPLES = examples(
    "eventflow apply rules/ --plan             what would change? Touches nothing",
    "eventflow apply rules/                    make it the current rule set on every node",
    "eventflow apply rules/ --take-over        even where the current one came from elsewhere",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(apply)


def apply(
    path: Annotated[Path, typer.Argument(help="A rule file or a folder of them.", show_default=False)],
    plan: Annotated[bool, typer.Option("--plan", help="Say what would change and change nothing.")] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Replace a rule set that was applied from elsewhere.")
    ] = False,
) -> None:
    """Make the rule set at PATH the current one, all or nothing.

    A set that does not load changes nothing and says why, with file:line:column (exit 2).
    """
    from eventflow.cli.session import ask_pool
    from eventflow.rulefile.folder import as_given

    files, wanted = read(path)
    for warning in wanted.warnings:
        note(str(as_given(path, warning)))
    if plan:
        ask_pool(lambda pool: _plan(pool, path, files, wanted))
    else:
        ask_pool(lambda pool: _apply(pool, path, take_over=take_over), create=True)


def read(path: Path) -> tuple[Mapping[str, bytes], RuleSet]:
    """The files at `path` and what they compile to, before any database is asked.

    Raises `RuleSetError` with files named as the person named them, `UsageError` where there is no such path.
    """
    from eventflow.errors import RuleSetError
    from eventflow.rulefile.connectors import find_connectors
    from eventflow.rulefile.folder import as_given, read_folder, set_folder
    from eventflow.rulefile.load import load

    try:
        files = read_folder(path)
        return files, load(files, folder=set_folder(path).resolve(), connectors=find_connectors())
    except RuleSetError as error:
        raise RuleSetError([as_given(path, problem) for problem in error.problems]) from None


async def _apply(pool: Pool, path: Path, *, take_over: bool) -> None:
    from eventflow.service import apply_folder

    applied = await apply_folder(pool, path, take_over=take_over)
    if applied.changed:
        line(f"applied {path}: revision {applied.revision} is current")
    else:
        line(f"nothing changed: revision {applied.revision} is this very rule set")


async def _plan(pool: Pool, path: Path, files: Mapping[str, bytes], wanted: RuleSet) -> None:
    from eventflow.store import rulesets

    async with pool.acquire() as conn:
        revision = await rulesets.current_revision(conn)
        stored = await rulesets.read(conn, revision) if revision else None
    changes = differences(stored.files if stored else {}, files)
    if stored is not None and not changes:
        line(f"nothing would change: revision {revision} is this very rule set")
        return
    line(
        f"{path} would become revision {revision + 1} or later"
        + (f", in place of revision {revision} from {stored.origin}" if stored else ", the first one")
    )
    block(changes)
    line(f"{len(wanted.sources)} sources, {len(wanted.workflows)} workflows, {len(wanted.rules)} rules")


def differences(old: Mapping[str, bytes], new: Mapping[str, bytes]) -> list[str]:
    """One line per file that is added (+), removed (-) or changed (~), by name."""
    return [
        f"{'+' if name not in old else '-' if name not in new else '~'} {name}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
