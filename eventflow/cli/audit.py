"""`eventflow audit`."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventflow.cli.options import Json, Limit, Since, examples
from eventflow.cli.output import cells, line, note, print_json, print_table, some_of

if TYPE_CHECKING:
    from eventflow.store.audit import Balance
    from eventflow.store.pool import Pool

CLASSES = ("matched", "open", "late", "dead", "resolved", "unmatched")
COLUMNS = (
    "source", "taken", *CLASSES, "retired", "missing", "outside", "unknown", "ignored", "lag", "gaps",
    "balanced",
)  # fmt: skip
EXAMPLES = examples(
    "eventflow audit                           is everything that came in still accounted for?",
    "eventflow audit --inside                  the books only; do not ask folders and other systems",
    "eventflow audit --deep                    read topics and logs once more and compare record by record",
    "eventflow audit --json | jq '.[] | select(.balanced | not)'",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(audit)


def audit(
    inside: Annotated[
        bool, typer.Option("--inside", help="Check the books only, not the systems outside.")
    ] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also read ordered sources once more and compare each record.")
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
    (outside), those of them not taken in (unknown), and those that no pattern takes (ignored); for a source
    with positions how far its end is away (lag), and how many gaps a person has passed over. `--deep` reads
    what such a source still has up to its position once more: outside and unknown are then its records.
    Exits 1 where anything does not balance. `--since` shows sources that something came from since then.
    """
    from eventflow.cli.session import ask_pool

    rows, problems = ask_pool(lambda pool: _audit(pool, outside=not inside, deep=deep))
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
                some = some_of(row["ignored_names"], row["ignored"])
                note(f"source '{row['source']}': no pattern takes {some}")
            if row["gaps"]:
                were = "1 gap was" if row["gaps"] == 1 else f"{row['gaps']} gaps were"
                note(f"source '{row['source']}': {were} passed over; `eventflow sources gaps` lists them")
    else:
        note("nothing has been taken in yet")
    for problem in problems:
        note(problem)
    if problems:
        raise typer.Exit(1)
    if not json and rows:
        line("everything is accounted for")


async def _audit(pool: Pool, *, outside: bool, deep: bool) -> tuple[list[dict[str, Any]], list[str]]:
    from eventflow.cli.comparing import compare
    from eventflow.cli.ruleset import current
    from eventflow.errors import UsageError
    from eventflow.settings import load_settings
    from eventflow.store import audit as store
    from eventflow.store.retention import cutoff

    async with pool.acquire() as conn:
        balances = await store.balances(conn)
        before = await cutoff(conn, load_settings().retention)
        orphans = await store.orphans(conn, before)
        gaps = await store.gaps(conn)
    problems = orphans.sentences
    rows = [_row(balance, gaps.get(balance.source, 0)) for balance in balances]
    for row in rows:
        if row["missing"]:
            problems.append(_gap(row["source"], row["missing"]))
    if outside:
        try:
            ruleset = await current(pool)
        except UsageError:
            return rows, problems
        whole_days = before.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        by_source = {row["source"]: row for row in rows}
        problems += await compare(pool, ruleset, by_source, kept_from=whole_days, deep=deep)
    return rows, problems


def _row(balance: Balance, gaps: int) -> dict[str, Any]:
    from dataclasses import asdict

    fields = asdict(balance)
    return {
        **fields, "missing": balance.missing, "outside": None, "unknown": None, "ignored": None,
        "ignored_names": [], "lag": None, "gaps": gaps,
        "balanced": balance.missing == 0,
    }  # fmt: skip


def _gap(source: str, missing: int) -> str:
    if missing > 0:
        return f"source '{source}': {missing} events or dead letters are gone from the database"
    return f"source '{source}': {-missing} more events and dead letters than were ever taken in"
