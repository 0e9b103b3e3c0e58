"""`eventflow events`."""

from __future__ import annotations

from typing import Annotated

import typer

from eventflow.cli.options import Json, Limit, Since, examples, row_limit
from eventflow.cli.output import print_rows

COLUMNS = ("ingested", "source", "type", "subject", "id", "class", "uid")
EXAMPLES = examples(
    "eventflow events                          the last 50",
    "eventflow events --since 2h --source landing",
    "eventflow events --type file.arrived --json | jq -r '.[].subject'",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(events)


def events(
    source: Annotated[str | None, typer.Option("--source", help="Only of this configured source.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only of this type.")] = None,
    since: Since = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List what was taken in, newest first, each event with its class.

    Classes: dead (it has a dead letter), matched (it set something off), open (part of a condition that is
    half met), late, unmatched.
    """
    from eventflow.cli.session import ask
    from eventflow.store.views import events as views

    rows = ask(
        lambda conn: views.events(conn, since=since, source=source, type_=type_, limit=row_limit(limit, json))
    )
    print_rows(rows, COLUMNS, as_json=json, empty="no events: nothing was taken in that fits")
