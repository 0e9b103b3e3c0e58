"""`eventflow sources`."""

from __future__ import annotations

import typer

from eventflow.cli.options import Json, Limit, Since, examples, row_limit
from eventflow.cli.output import note, print_rows

COLUMNS = (
    "source", "partition", "state", "owner", "position", "taken", "duplicates", "last_event", "silence",
)  # fmt: skip
EXAMPLES = examples(
    "eventflow sources                         who reads what, and how far",
    "eventflow sources --since 10m             only those that something came from lately",
    "eventflow sources --json | jq '.[] | select(.state == \"stopped\") | .message'",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(sources)


def sources(since: Since = None, limit: Limit = None, json: Json = False) -> None:
    """List source partitions: state, owner, position, counters, and why one waits or has stopped.

    States: running, waiting (nobody can read it now; tried again by itself), paused, stopped (waits for a
    person). Partition 'outbox' holds eventflow's own events and what is replayed.
    """
    from eventflow.cli.session import ask
    from eventflow.store.views import events as views

    rows = ask(lambda conn: views.sources(conn, since=since, limit=row_limit(limit, json)))
    print_rows(
        rows, COLUMNS, as_json=json, empty="no sources: none has been opened yet; is a `serve` running?"
    )
    if not json:
        for row in rows:
            if row["message"]:
                note(f"{row['source']} {row['partition']}: {row['state']}: {row['message']}")
