"""`eventflow apply PATH`: load, compare, replace, all or nothing."""

from __future__ import annotations

import asyncio
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
        ask_pool(lambda pool: _plan(pool, path, files, wanted, take_over=take_over))
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


async def _plan(
    pool: Pool, path: Path, files: Mapping[str, bytes], wanted: RuleSet, *, take_over: bool
) -> None:
    """Say what `_apply` would do, and refuse what it would refuse."""
    from eventflow.store import rulesets

    origin = rulesets.origin_of(await asyncio.to_thread(path.resolve))
    async with pool.acquire() as conn:
        latest = await rulesets.replaceable(conn, origin, take_over=take_over)
    if latest is None:
        line(f"{path} would become the first revision")
    elif (latest["digest"], latest["origin"]) == (rulesets.digest_of(files), origin):
        line(f"nothing would change: revision {latest['revision']} is this very rule set")
        return
    else:
        before = f"revision {latest['revision']} from {latest['origin']}"
        line(f"{path} would become revision {latest['revision'] + 1} or later, in place of {before}")
    block(await _changes(pool, wanted))
    line(f"{len(wanted.sources)} sources, {len(wanted.workflows)} workflows, {len(wanted.rules)} rules")


async def _changes(pool: Pool, wanted: RuleSet) -> list[str]:
    from eventflow.cli.ruleset import stored
    from eventflow.errors import RuleSetError

    try:
        before = (await stored(pool)).current
    except RuleSetError as error:
        return [f"the current set does not load here, so nothing is compared: {error.problems[0]}"]
    changes = differences(before, wanted)
    return changes or ["only texts change: comments, places, files without meaning"]


def differences(old: RuleSet, new: RuleSet) -> list[str]:
    """A line per source, workflow and rule that is new (+), removed (-) or changed (~), each kind by name."""
    kinds: list[tuple[str, Mapping[str, object], Mapping[str, object]]] = [
        ("source", old.sources, new.sources),
        ("workflow", old.workflows, new.workflows),
        ("rule", {rule.name: rule for rule in old.rules}, {rule.name: rule for rule in new.rules}),
    ]
    changes = [
        f"{'+' if name not in before else '-' if name not in after else '~'} {kind} {name}"
        for kind, before, after in kinds
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    return changes + (["~ the Python code of tasks"] if old.code_version != new.code_version else [])
