"""`eventflow events [show|replay]`."""

from __future__ import annotations

import json as json_text
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventflow.cli.explain import cause_told, effects
from eventflow.cli.options import Json, Limit, Since, examples, row_limit
from eventflow.cli.output import block, line, payload_text, print_fields, print_json, print_rows

if TYPE_CHECKING:
    from uuid import UUID

    from eventflow.store.pool import Connection, Pool

COLUMNS = ("ingested", "source", "type", "subject", "id", "class", "uid")
group = typer.Typer(
    invoke_without_command=True,
    epilog=examples(
        "eventflow events                          the last 50",
        "eventflow events --since 2h --source landing",
        "eventflow events --type file.arrived --json | jq -r '.[].subject'",
        "eventflow events show orders/eu.csv       one with its content; also by uid or id",
    ),
)


def register(app: typer.Typer) -> None:
    """Add the group."""
    app.add_typer(group, name="events")


@group.callback()
def events(
    ctx: typer.Context,
    source: Annotated[str | None, typer.Option("--source", help="Only of this configured source.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only of this type.")] = None,
    since: Since = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List what was taken in, newest first, each event with its class; show one, send one in again.

    Classes: dead (it has an open dead letter), matched (it set something off), open (part of a
    condition that is half met), late, unmatched.
    """
    if ctx.invoked_subcommand is not None:
        return
    from eventflow.cli.naming import listed
    from eventflow.cli.session import ask_pool
    from eventflow.store.views import events as views

    async def read(conn: Connection) -> views.View:
        return await views.events(conn, since=since, source=source, type_=type_, limit=row_limit(limit, json))

    rows = ask_pool(lambda pool: listed(pool, read, source=source))
    print_rows(rows, COLUMNS, as_json=json, empty="no events: nothing was taken in that fits")


@group.command(
    epilog=examples(
        "eventflow events show 05387648b861        the end of its uid is enough, or its beginning",
        "eventflow events show landing/orders/eu.csv   a file: its newest event",
        "eventflow events show evt-42 --json | jq .data",
    )
)
def show(
    event: Annotated[
        str,
        typer.Argument(
            help="A uid or its beginning or end, an id, SOURCE/ID, or a file's path.", show_default=False
        ),
    ],
    json: Json = False,
) -> None:
    """Show one event: attributes, decoded data, where it came from, and what it set off."""
    from eventflow.cli.session import ask_pool

    found = ask_pool(lambda pool: _show(pool, event))
    if json:
        print_json(found)
    else:
        _print(found)


async def _show(pool: Pool, name: str) -> dict[str, Any]:
    from eventflow.cli.naming import event_named
    from eventflow.cli.ruleset import revisions
    from eventflow.reread import shown

    uid = await event_named(pool, name)
    return await shown(pool, await revisions(pool), uid)


def _print(found: dict[str, Any]) -> None:
    beside = ("data", "raw", "raw_is", "cause", "set_off", "dead_letters")
    print_fields(
        {name: value for name, value in found.items() if name not in beside and value not in (None, {})}
    )
    if found["cause"]:
        line(f"it is {cause_told(found['cause'])}")
    line("")
    if found["raw_is"] == "json":
        block(json_text.dumps(found["data"], indent=2, ensure_ascii=False).splitlines(), indent="")
    else:
        block(payload_text(found["raw"]).splitlines(), indent="")
    for firing in found["set_off"]:
        line("")
        line(f"{firing['rule']}: fired")
        block(effects(firing))
    for letter in found["dead_letters"]:
        line("")
        line(f"dead letter {letter['id']} ({letter['stage']}, {letter['state']}): {letter['reason']}")


@group.command(
    epilog=examples(
        "eventflow events replay 05387648b861      after a rule was mended that should have taken it",
        "eventflow events replay landing/orders/eu.csv",
    )
)
def replay(
    events: Annotated[
        list[str],
        typer.Argument(metavar="EVENT...", help="Events, named as for `show`.", show_default=False),
    ],
) -> None:
    """Send stored events in again, each as a new event, for all rules of the current set.

    All rules: those that fired on the first one fire again. For a dead letter use `eventflow dlq replay`.
    """
    from eventflow.cli.session import ask_pool

    for uid, sent in ask_pool(lambda pool: _replay(pool, events)):
        line(f"{uid}: sent in as event {sent!r}")


async def _replay(pool: Pool, names: list[str]) -> list[tuple[UUID, str]]:
    """All names are looked up first: a wrong one sends nothing."""
    from eventflow.cli.naming import event_named
    from eventflow.cli.ruleset import current
    from eventflow.replay import replay_event

    ruleset = await current(pool)
    uids = dict.fromkeys([await event_named(pool, name) for name in names])
    return [(uid, await replay_event(pool, ruleset, uid)) for uid in uids]
