"""`eventflow explain EVENT [RULE]`: why did this event start that, and why not this?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from eventflow.cli.options import Json, examples
from eventflow.cli.output import block, cell, line, print_json

if TYPE_CHECKING:
    from eventflow.explained import Explained
    from eventflow.store.pool import Pool

NEAREST: Final = 5
EXAMPLES = examples(
    "eventflow explain 05387648b861            the end of its uid is enough, or its beginning",
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
            help="A uid or its beginning or end, an id, SOURCE/ID, or a file's path.", show_default=False
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
    from eventflow.cli.naming import event_named
    from eventflow.cli.ruleset import revisions, unknown
    from eventflow.explained import explain_stored, matched_revision

    known = await revisions(pool)
    uid = await event_named(pool, name)
    async with pool.acquire() as conn:
        revision = 0 if current else await matched_revision(conn, uid)
    ruleset = await known.get(revision) if revision else known.current
    if rule is not None and rule not in {one.name for one in ruleset.rules}:
        raise unknown("rule", rule, (one.name for one in ruleset.rules), f"revision {ruleset.revision}")
    return await explain_stored(pool, ruleset, uid, only=rule, limit=limit)


def _print(found: Explained, *, named: bool) -> None:
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    event = found.event
    line(f"event {event['uid']}: {event['type']} {event['subject'] or event['id']!r} from {event['source']}")
    line(f"taken in {cell(event['ingested'], now)}, {event['class']}; rule set revision {found.revision}")
    if found.cause:
        line(f"it is {cause_told(found.cause)}")
    for verdict in found.verdicts:
        line("")
        line(f"{verdict.rule}: {verdict.sentence}")
        block(text for firing in verdict.firings for text in effects(firing))
        if named or not verdict.firings:
            block(list(verdict.explanation.lines())[1:], indent="")
    if not found.verdicts:
        line("nothing fired, and no rule is near: not one of their conditions holds; --all shows every rule")
    for letter in found.letters:
        line("")
        line(f"dead letter {letter['id']} ({letter['stage']}, {letter['state']}): {letter['reason']}")


def effects(firing: dict[str, Any]) -> list[str]:
    """A line for the run that a firing started, and one for the event that it emitted."""
    again = " by a replay" if firing["replayof"] else ""
    told: list[str] = []
    if firing["run_id"] is not None:
        told.append(f"run {firing['run_id']}{again}: {firing['workflow']} {firing['run_state']}")
    if firing["emitted_uid"] is not None:
        told.append(f"event {firing['emitted_uid']}{again}: {firing['emitted_type']} emitted")
    return told or [f"firing {firing['firing_id']}{again}: {firing['state']}"]


def cause_told(cause: dict[str, Any]) -> str:
    """What made an event, in words that follow `it is`: `emitted by rule 'x' on event ... (web 'e1')`."""
    event = (
        f" on event {cause['event_uid']} ({cause['source']} {cause['event']!r})" if cause["event_uid"] else ""
    )
    again = f"a replay of {cause['replayof']}" if cause["replayof"] else ""
    if cause["run_id"]:
        by = f", started by rule '{cause['rule']}'{event}" if cause["rule"] else ", started by hand"
        told = f"the end of run {cause['run_id']} of {cause['workflow']}{by}"
    elif cause["rule"]:
        told = f"emitted by rule '{cause['rule']}'{event}, firing {cause['firing_id']}"
    else:
        return again or "from a firing that is gone"
    return f"{again}, {told}" if again else told
