"""`eventflow sources [pause|resume|setup|gaps]`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from json import dumps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventflow.cli.options import Json, Limit, Since, examples, row_limit
from eventflow.cli.output import line, note, print_rows, print_text

if TYPE_CHECKING:
    from eventflow.cli.going_on import GoingOn
    from eventflow.rulefile.ruleset import SourceSpec
    from eventflow.store.pool import Pool

COLUMNS = (
    "source", "partition", "state", "owner", "position", "lag", "unit", "last_event", "rate", "silence",
    "rhythm", "taken", "duplicates", "stalled",
)  # fmt: skip
GAP_COLUMNS = ("at", "source", "partition", "missing", "before", "after", "who", "reason")

group = typer.Typer(
    invoke_without_command=True,
    epilog=examples(
        "eventflow sources                         who reads what, how far, how fast",
        "eventflow sources --since 10m             only those that something came from lately",
        "eventflow sources pause landing           nobody reads it; its position stays",
        "eventflow sources resume landing          after a pause, or after it has stopped and was mended",
        "eventflow sources resume orders --from earliest    over a gap, which is written down",
        "eventflow sources gaps                    what was passed over like that",
        "eventflow sources setup shop | psql       prepare the system behind a source",
        "eventflow sources --json | jq '.[] | select(.state == \"stopped\") | .missing'",
    ),
)


def register(app: typer.Typer) -> None:
    """Add the group."""
    app.add_typer(group, name="sources")


@group.callback()
def sources(ctx: typer.Context, since: Since = None, limit: Limit = None, json: Json = False) -> None:
    """List sources: state, owner, position, lag, rate, silence against the usual rhythm, counters.

    A source partition a line, and why it waits or has stopped.

    States: running, waiting (nobody can read it now; tried again by itself), paused, stopped (waits for a
    person), removed (not in the current rule set any more). The owner is a node's host and process; what is
    pushed every node serves. Partition 'outbox' holds eventflow's own events and what is replayed.
    Lag is what is there and not taken in, where the system can tell. Rate is events a second over about the
    last minute, rhythm how long it usually is from one batch with events to the next. Stalled since: not
    readable for longer than a lease, or silent for more than ten times its rhythm.
    """
    if ctx.invoked_subcommand is not None:
        return
    from eventflow.cli.session import ask_pool

    rows, specs = ask_pool(lambda pool: _rows(pool, since, row_limit(limit, json)))
    shown = rows if json else _spelled(rows, specs, "position")
    print_rows(
        shown, COLUMNS, as_json=json, empty="no sources: none has been opened yet; is a `serve` running?"
    )
    for row in () if json else rows:
        name = f"{row['source']} {row['partition']}".rstrip()
        if row["message"]:
            note(f"{name}: {row['state']}: {row['message']}")
        if row["missing"] is not None:
            note(f"{name}: missing: {dumps(row['missing'], ensure_ascii=False)}")
        if row["note"]:
            note(f"{name}: {row['note']}")


async def _rows(
    pool: Pool, since: datetime | None, limit: int | None
) -> tuple[list[dict[str, Any]], Mapping[str, SourceSpec]]:
    """What the database knows, beside the sources of the current rule set."""
    from eventflow.event import EVENTFLOW_SOURCE
    from eventflow.store.views import sources as views

    async with pool.acquire() as conn:
        rows = await views.sources(conn, since=since, limit=limit)
    specs = await _specs(pool)
    if specs is None:
        return rows, {}
    for row in rows:
        if row["source"] not in {EVENTFLOW_SOURCE, *specs}:
            row.update(state="removed", owner=None, message=None, stalled=None)
    return rows, specs


async def _specs(pool: Pool) -> Mapping[str, SourceSpec] | None:
    """The sources of the current rule set; None where there is none yet, or none that can be loaded here."""
    from eventflow.cli.ruleset import current
    from eventflow.errors import UsageError

    try:
        return (await current(pool)).sources
    except UsageError:
        return None


def _spelled(
    rows: Iterable[dict[str, Any]], specs: Mapping[str, SourceSpec], *names: str
) -> list[dict[str, Any]]:
    """The rows with these positions, and ranges, in their short forms: JSON would make the table too wide."""
    from eventflow.cli.positions import position_text, range_text

    def spelled(row: dict[str, Any], position: str | None) -> str | None:
        spec = specs.get(row["source"])
        return position if position is None or spec is None else position_text(spec.factory, position)

    return [
        row | {name: spelled(row, row[name]) for name in names} | {"missing": range_text(row["missing"])}
        for row in rows
    ]


SourceName = Annotated[str, typer.Argument(metavar="SOURCE", help="A source's name.", show_default=False)]


@group.command(epilog=examples("eventflow sources pause landing"))
def pause(source: SourceName) -> None:
    """Stop reading a source until `resume`: its position stays, and nothing is lost.

    Who pushes to a paused source is told to come again.
    """
    from eventflow.cli.going_on import pause_source
    from eventflow.cli.session import ask_pool

    if ask_pool(lambda pool: pause_source(pool, source)):
        line(f"paused {source}; `eventflow sources resume {source}` lets it go on")
    else:
        line(f"{source} is paused already")


@group.command(
    epilog=examples(
        "eventflow sources resume landing                            from where it stood",
        "eventflow sources resume orders --from earliest             from the first that is still there",
        "eventflow sources resume orders --from latest               only what comes from now on",
        "eventflow sources resume orders --from 48211 --partition orders.v1/3",
        "eventflow sources resume shop --from 0/1B5BE58              an LSN, of a postgres_cdc source",
    )
)
def resume(
    source: SourceName,
    where: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="WHERE",
            help="earliest, latest, or a position in its short form, as `sources` shows it: an offset, "
            "an LSN, a value, a time.",
        ),
    ] = None,
    partition: Annotated[
        str | None, typer.Option("--partition", metavar="PARTITION", help="This partition only.")
    ] = None,
) -> None:
    """Read a paused or stopped source again, from where it stood or from elsewhere.

    One that stopped at a gap stops again unless `--from` says where to go on; without `--partition` that is
    for every partition that has stopped, or where none has for every paused one. What is passed over is
    written down: `sources gaps`.
    """
    from eventflow.cli.going_on import resume_source
    from eventflow.cli.session import ask_pool

    _say(source, ask_pool(lambda pool: resume_source(pool, source, where, partition)))


def _say(source: str, gone_on: GoingOn) -> None:
    if not gone_on.count:
        line(f"{source} is neither paused nor stopped")
    for move in gone_on.moves:
        name = f"{source} {move.partition}".rstrip()
        if move.missing is None:
            line(f"{name}: reads again from {move.after}")
        else:
            line(f"{name}: goes on at {move.after}; passed over: {move.missing}")
    if gone_on.count and not gone_on.moves:
        line(f"resumed {source}")
    if gone_on.at_gap:
        note(
            f"{source} had stopped at a gap: if it stops again, "
            f"`eventflow sources resume {source} --from earliest|latest|POSITION` passes over it"
        )


@group.command(epilog=examples("eventflow sources gaps", "eventflow sources gaps orders --json"))
def gaps(
    source: Annotated[
        str | None, typer.Argument(metavar="[SOURCE]", help="Of this source only.", show_default=False)
    ] = None,
    since: Since = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List what was passed over with `resume --from`, newest first: which range, by whom, and why.

    `--json` has ranges and positions whole, as their connector writes them.
    """
    from eventflow.cli.session import ask_pool

    rows, specs = ask_pool(lambda pool: _gaps(pool, source, since, row_limit(limit, json)))
    shown = rows if json else _spelled(rows, specs, "before", "after")
    print_rows(shown, GAP_COLUMNS, as_json=json, empty="no gaps: nothing was ever passed over")


async def _gaps(
    pool: Pool, source: str | None, since: datetime | None, limit: int | None
) -> tuple[list[dict[str, Any]], Mapping[str, SourceSpec]]:
    from eventflow.store.views import sources as views

    async with pool.acquire() as conn:
        rows = await views.gaps(conn, source=source, since=since, limit=limit)
    return rows, await _specs(pool) or {}


@group.command(
    epilog=examples(
        "eventflow sources setup shop              what is still needed, to read and to run by hand",
        "eventflow sources setup shop | psql       the same, piped to the system",
        "eventflow sources setup shop --run        run it with the source's own access",
    )
)
def setup(
    source: SourceName,
    run: Annotated[bool, typer.Option("--run", help="Run the statements instead of printing them.")] = False,
) -> None:
    """Print what the system behind a source still needs, or run it.

    Then, on stderr, what that system cannot deliver. Exits 1 where it cannot be asked.
    """
    from eventflow.cli.preparing import prepare_source
    from eventflow.cli.session import ask_pool

    done = ask_pool(lambda pool: prepare_source(pool, source, run=run))
    if not done.statements:
        note(f"{source}: nothing is needed")
    for statement in done.statements:
        print_text(statement.rstrip().removesuffix(";") + ";")
    if run and done.statements:
        note(f"{source}: that was run")
    for warning in done.warnings:
        note(f"{source}: warning: {warning}")
