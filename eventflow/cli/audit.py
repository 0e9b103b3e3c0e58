"""`eventflow audit`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from eventflow.cli.options import Json, Limit, Since, examples
from eventflow.cli.output import cells, line, note, print_json, print_table

if TYPE_CHECKING:
    from eventflow.rulefile.ruleset import RuleSet
    from eventflow.source import Audited
    from eventflow.store.audit import Balance
    from eventflow.store.pool import Pool

CLASSES = ("matched", "open", "late", "dead", "resolved", "unmatched")
COLUMNS = ("source", "taken", *CLASSES, "retired", "missing", "outside", "unknown", "ignored", "balanced")
EXAMPLES = examples(
    "eventflow audit                           is everything that came in still accounted for?",
    "eventflow audit --inside                  the books only; do not ask folders and other systems",
    "eventflow audit --json | jq '.[] | select(.balanced | not)'",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(audit)


def audit(
    inside: Annotated[
        bool, typer.Option("--inside", help="Check the books only, not the systems outside.")
    ] = False,
    since: Since = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """Check that nothing was lost.

    For each source, taken = matched + open + late + dead + resolved + unmatched + retired: `taken` is
    counted when an event is taken in, the classes are counted from its rows: a row that has gone shows as
    missing. An event is dead while it has an open dead letter; a broken record is resolved once its letter
    was replayed or discarded.
    Beside them stands what the source's system holds: for a file source the files that its pattern takes
    (outside), those of them not taken in (unknown), and those that no pattern takes (ignored). Exits 1
    where anything does not balance. `--since` shows sources that something came from since then.
    """
    from eventflow.cli.session import ask_pool

    rows, problems = ask_pool(lambda pool: _audit(pool, outside=not inside))
    if since is not None:
        rows = [
            row for row in rows if (row["last_event"] and row["last_event"] >= since) or not row["balanced"]
        ]
    rows = rows[:limit]
    if json:
        print_json(rows)
    elif rows:
        print_table(COLUMNS, cells(rows, COLUMNS))
        for row in rows:
            if row["ignored"]:
                some = _some(row["ignored_names"], row["ignored"])
                note(f"source '{row['source']}': no pattern takes {some}")
    else:
        note("nothing has been taken in yet")
    for problem in problems:
        note(problem)
    if problems:
        raise typer.Exit(1)
    if not json and rows:
        line("everything is accounted for")


async def _audit(pool: Pool, *, outside: bool) -> tuple[list[dict[str, Any]], list[str]]:
    from eventflow.cli.ruleset import current
    from eventflow.errors import UsageError
    from eventflow.settings import load_settings
    from eventflow.store import audit as store
    from eventflow.store.retention import cutoff

    async with pool.acquire() as conn:
        balances = await store.balances(conn)
        orphans = await store.orphans(conn, await cutoff(conn, load_settings().retention))
    problems = orphans.sentences
    rows = [_row(balance) for balance in balances]
    for row in rows:
        if row["missing"]:
            problems.append(_gap(row["source"], row["missing"]))
    if outside:
        try:
            ruleset = await current(pool)
        except UsageError:
            return rows, problems
        await _compare(pool, ruleset, rows, problems)
    return rows, problems


def _row(balance: Balance) -> dict[str, Any]:
    from dataclasses import asdict

    fields = asdict(balance)
    return {
        **fields, "missing": balance.missing, "outside": None, "unknown": None, "ignored": None,
        "ignored_names": [],
        "balanced": balance.missing == 0,
    }  # fmt: skip


def _gap(source: str, missing: int) -> str:
    if missing > 0:
        return f"source '{source}': {missing} events or dead letters are gone from the database"
    return f"source '{source}': {-missing} more events and dead letters than were ever taken in"


async def _compare(pool: Pool, ruleset: RuleSet, rows: list[dict[str, Any]], problems: list[str]) -> None:
    """Ask the systems of sources that can say what they hold. Files still settling count as unknown."""
    from eventflow.context import context_of
    from eventflow.errors import SourceError

    by_source = {row["source"]: row for row in rows}
    for name, spec in ruleset.sources.items():
        if not hasattr(spec.factory, "outside"):
            continue
        source = cast("Audited", spec.factory(name, spec.config, context_of(spec, pool)))
        try:
            found = await source.outside()
        except SourceError as error:
            problems.append(f"source '{name}': cannot be compared with its system: {error}")
            continue
        row = by_source.get(name)
        if row is not None:
            row.update(outside=found.there, unknown=found.unknown_count, ignored=found.ignored)
            row["ignored_names"] = list(found.ignored_names)
            row["balanced"] = row["balanced"] and not found.unknown_count
        if found.unknown_count:
            some = _some(found.unknown, found.unknown_count)
            problems.append(f"source '{name}': {found.unknown_count} are there and were not taken in: {some}")


def _some(names: Sequence[str], count: int) -> str:
    return ", ".join(names[:3]) + (", ..." if count > 3 else "")
