"""`eventflow sources [pause|resume]`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventflow.cli.options import Json, Limit, Since, examples, row_limit
from eventflow.cli.output import line, note, print_rows

if TYPE_CHECKING:
    from eventflow.store.pool import Pool

COLUMNS = (
    "source", "partition", "state", "owner", "position", "taken", "duplicates", "last_event", "silence",
)  # fmt: skip

group = typer.Typer(
    invoke_without_command=True,
    epilog=examples(
        "eventflow sources                         who reads what, and how far",
        "eventflow sources --since 10m             only those that something came from lately",
        "eventflow sources pause landing           nobody reads it; its position stays",
        "eventflow sources resume landing          after a pause, or after it has stopped and was mended",
        "eventflow sources --json | jq '.[] | select(.state == \"stopped\") | .message'",
    ),
)


def register(app: typer.Typer) -> None:
    """Add the group."""
    app.add_typer(group, name="sources")


@group.callback()
def sources(ctx: typer.Context, since: Since = None, limit: Limit = None, json: Json = False) -> None:
    """List sources: state, owner, position, counters.

    A source partition a line, and why it waits or has stopped.

    States: running, waiting (nobody can read it now; tried again by itself), paused, stopped (waits for a
    person), removed (not in the current rule set any more). The owner is a node's host and process; what is
    pushed every node serves. Partition 'outbox' holds eventflow's own events and what is replayed.
    """
    if ctx.invoked_subcommand is not None:
        return
    from eventflow.cli.session import ask_pool

    rows = ask_pool(lambda pool: _rows(pool, since, row_limit(limit, json)))
    print_rows(
        rows, COLUMNS, as_json=json, empty="no sources: none has been opened yet; is a `serve` running?"
    )
    if not json:
        for row in rows:
            if row["message"]:
                note(f"{row['source']} {row['partition']}".rstrip() + f": {row['state']}: {row['message']}")


async def _rows(pool: Pool, since: datetime | None, limit: int | None) -> list[dict[str, Any]]:
    """What the database knows, beside what the current rule set says."""
    from eventflow.cli.ruleset import current
    from eventflow.errors import UsageError
    from eventflow.event import EVENTFLOW_SOURCE
    from eventflow.store.views import events as views

    async with pool.acquire() as conn:
        rows = await views.sources(conn, since=since, limit=limit)
    try:
        configured = {EVENTFLOW_SOURCE, *(await current(pool)).sources}
    except UsageError:  # no rule set yet, or one that this machine cannot load
        return rows
    for row in rows:
        if row["source"] not in configured:
            row.update(state="removed", owner=None, message=None)
    return rows


SourceName = Annotated[str, typer.Argument(metavar="SOURCE", help="A source's name.", show_default=False)]


@group.command(epilog=examples("eventflow sources pause landing"))
def pause(source: SourceName) -> None:
    """Stop reading a source until `resume`: its position stays, and nothing is lost. Not for webhooks."""
    from eventflow.cli.session import ask_pool

    if ask_pool(lambda pool: _pause(pool, source)):
        line(f"paused {source}; `eventflow sources resume {source}` lets it go on")
    else:
        line(f"{source} is paused already")


async def _pause(pool: Pool, source: str) -> int:
    from eventflow.store import pauses
    from eventflow.store.signals import Signal, tell

    await _known(pool, source)
    async with pool.acquire() as conn:
        count = await pauses.pause(conn, source)
        await tell(conn, Signal.ruleset)
    return count


@group.command(epilog=examples("eventflow sources resume landing"))
def resume(source: SourceName) -> None:
    """Read a paused or stopped source again, from where it stood."""
    from eventflow.cli.session import ask_pool

    if ask_pool(lambda pool: _resume(pool, source)):
        line(f"resumed {source}")
    else:
        line(f"{source} is neither paused nor stopped")


async def _resume(pool: Pool, source: str) -> int:
    from eventflow.store import pauses
    from eventflow.store.signals import Signal, tell

    await _known(pool, source)
    async with pool.acquire() as conn:
        count = await pauses.resume(conn, source)
        await tell(conn, Signal.ruleset)
    return count


async def _known(pool: Pool, name: str) -> None:
    """Raise `UsageError` unless there is such a source, read by an owner and opened before."""
    from eventflow.cli.ruleset import current, unknown
    from eventflow.errors import UsageError
    from eventflow.source import Delivery
    from eventflow.store import pauses

    ruleset = await current(pool)
    spec = ruleset.sources.get(name)
    if spec is None:
        raise unknown("source", name, ruleset.sources, f"revision {ruleset.revision}")
    if spec.delivery is Delivery.pushed:
        raise UsageError(
            f"source '{name}' is pushed to by its senders; pausing such a source is not supported yet"
        )
    async with pool.acquire() as conn:
        if not await pauses.partitions(conn, name):
            raise UsageError(f"source '{name}' was never opened; `eventflow serve` does that")
