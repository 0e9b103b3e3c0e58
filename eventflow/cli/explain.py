"""`eventflow explain EVENT [RULE]`: why did this event start that, and why not this?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from eventflow.cli.options import Json, examples
from eventflow.cli.output import block, cell, line, print_json

if TYPE_CHECKING:
    from uuid import UUID

    from eventflow.explained import Explained
    from eventflow.store.pool import Connection, Pool

NEAREST: Final = 5
EXAMPLES = examples(
    "eventflow explain 0199f3a2                the beginning of its uid is enough",
    "eventflow explain landing/orders/eu.csv   a file: its newest event",
    "eventflow explain evt-42 orders-landed    one rule, every condition",
    "eventflow explain evt-42 --current        as the rules are now, not as they were",
    "eventflow explain evt-42 --all --json | jq '.rules[] | select(.outcome == \"matched\")'",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(explain)


def explain(
    event: Annotated[
        str,
        typer.Argument(
            help="A uid or its beginning, an id, SOURCE/ID, or a file's path.", show_default=False
        ),
    ],
    rule: Annotated[
        str | None, typer.Argument(help="Only this rule, with every condition.", show_default=False)
    ] = None,
    current: Annotated[
        bool, typer.Option("--current", help="Ask the rules as they are now, not those that it met.")
    ] = False,
    all_: Annotated[
        bool, typer.Option("--all", help="Every rule, not only those that fired or nearly did.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="Most rules to show of those that did not fire.")
    ] = NEAREST,
    json: Json = False,
) -> None:
    """Say what an event set off, and why not more.

    The rules nearest to it are shown condition by condition. Asks the rule set that the event was matched
    with. A `where` is shown whole, with its result or error and the fields it names.
    """
    from eventflow.cli.session import ask_pool

    found = ask_pool(lambda pool: _explain(pool, event, rule, current=current, limit=None if all_ else limit))
    if json:
        print_json(found.as_json())
    else:
        _print(found, named=rule is not None)


async def _explain(pool: Pool, name: str, rule: str | None, *, current: bool, limit: int | None) -> Explained:
    from eventflow.cli.ruleset import revisions, unknown
    from eventflow.explained import explain_stored, matched_revision

    known = await revisions(pool)
    async with pool.acquire() as conn:
        uid = await _find(conn, name)
        revision = 0 if current else await matched_revision(conn, uid)
    ruleset = await known.get(revision) if revision else known.current
    if rule is not None and rule not in {one.name for one in ruleset.rules}:
        raise unknown("rule", rule, (one.name for one in ruleset.rules), f"revision {ruleset.revision}")
    return await explain_stored(pool, ruleset, uid, only=rule, limit=limit)


async def _find(conn: Connection, name: str) -> UUID:
    """The event's uid. What a sender was answered for a broken record names its dead letter: say so."""
    from eventflow.errors import UsageError
    from eventflow.store.dead_letters import find_letter
    from eventflow.store.views.events import find_event

    try:
        return await find_event(conn, name)
    except UsageError as no_event:
        try:
            letter = await find_letter(conn, name)
        except UsageError:
            raise no_event from None
        raise UsageError(
            f"{name!r} is no event but a dead letter; `eventflow dlq show {letter}` says why"
        ) from None


def _print(found: Explained, *, named: bool) -> None:
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    event = found.event
    line(f"event {event['uid']}: {event['type']} {event['subject'] or event['id']!r} from {event['source']}")
    line(f"taken in {cell(event['ingested'], now)}, {event['class']}; rule set revision {found.revision}")
    for verdict in found.verdicts:
        line("")
        line(f"{verdict.rule}: {verdict.sentence}")
        block(_firing(firing) for firing in verdict.firings)
        if named or not verdict.firings:
            block(list(verdict.explanation.lines())[1:], indent="")
    if not found.verdicts:
        line("nothing fired, and no rule is near: not one of their conditions holds; --all shows every rule")
    for letter in found.letters:
        line("")
        line(f"dead letter {letter['id']} ({letter['stage']}, {letter['state']}): {letter['reason']}")


def _firing(firing: dict[str, Any]) -> str:
    again = " by a replay" if firing["replayof"] else ""
    if firing["run_id"] is None:
        return f"firing {firing['firing_id']}{again}: {firing['state']}"
    return f"run {firing['run_id']}{again}: {firing['workflow']} {firing['run_state']}"
