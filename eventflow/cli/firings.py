"""`eventflow firings`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from eventflow.cli.options import Json, Limit, Since, examples, row_limit
from eventflow.cli.output import print_rows

if TYPE_CHECKING:
    from eventflow.store.pool import Connection

COLUMNS = ("at", "rule", "state", "event", "run_state", "run_id", "firing_id")
EXAMPLES = examples(
    "eventflow firings                         the last 50",
    "eventflow firings --rule orders-landed --since 1d",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(firings)


def firings(
    rule: Annotated[str | None, typer.Option("--rule", help="Only of this rule.")] = None,
    since: Since = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List when rules fired, and on what; newest first.

    States: admitted (its run exists; an emit has none, its event has the firing's id), held (not started yet;
    `reason` says why), skipped.
    """
    from eventflow.cli.naming import listed
    from eventflow.cli.session import ask_pool
    from eventflow.store.views import events as views

    async def read(conn: Connection) -> views.View:
        return await views.firings(conn, since=since, rule=rule, limit=row_limit(limit, json))

    rows = ask_pool(lambda pool: listed(pool, read, rule=rule))
    print_rows(rows, COLUMNS, as_json=json, empty="no firings: no rule was satisfied by anything that fits")
