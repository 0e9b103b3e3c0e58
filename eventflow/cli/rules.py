"""`eventflow rules [pause|resume]`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from eventflow.cli.options import Json, Limit, Since, examples, row_limit
from eventflow.cli.output import print_rows

if TYPE_CHECKING:
    from eventflow.store.pool import Pool

COLUMNS = ("rule", "state", "does", "firings", "last_fired", "where_errors", "loop_skips", "dead_letters")
group = typer.Typer(
    invoke_without_command=True,
    epilog=examples(
        "eventflow rules                           every rule of the current set, and how often it fired",
        "eventflow rules --since 1d --json",
    ),
)


def register(app: typer.Typer) -> None:
    """Add the group."""
    app.add_typer(group, name="rules")


@group.callback()
def rules(ctx: typer.Context, since: Since = None, limit: Limit = None, json: Json = False) -> None:
    """List rules, and how often each fired.

    With errors in `where`, loop skips and open dead letters.

    States: live, or removed (not in the current rule set any more). `--since` bounds firings and dead
    letters; the counters of errors and skips are totals.
    """
    if ctx.invoked_subcommand is not None:
        return
    from eventflow.cli.session import ask_pool

    rows = ask_pool(lambda pool: _rows(pool, since))
    print_rows(
        rows[: row_limit(limit, json)], COLUMNS, as_json=json,
        empty="no rules: `eventflow apply PATH` brings a rule set in",
    )  # fmt: skip


async def _rows(pool: Pool, since: datetime | None) -> list[dict[str, Any]]:
    """The rules of the current set in file order, then those that only the past knows."""
    from eventflow.cli.ruleset import current
    from eventflow.store.views import events as views

    ruleset = await current(pool)
    async with pool.acquire() as conn:
        known = {row["rule"]: row for row in await views.rules(conn, since=since)}
    quiet = {"firings": 0, "last_fired": None, "where_errors": 0, "loop_skips": 0, "dead_letters": 0}
    rows = [
        {
            "rule": rule.name, "state": "live", "revision": ruleset.revision,
            "does": f"run {rule.run}" if rule.run else f"emit {rule.emit}",
            "owner": rule.owner, "tags": list(rule.tags), "description": rule.description,
            **quiet, **known.pop(rule.name, {}),
        }
        for rule in ruleset.rules
    ]  # fmt: skip
    gone: dict[str, Any] = {
        "state": "removed",
        "revision": None,
        "does": None,
        "owner": None,
        "tags": [],
        "description": None,
    }
    return rows + [{**gone, **row} for row in known.values()]


RuleName = Annotated[str, typer.Argument(metavar="RULE", help="A rule's name.", show_default=False)]


@group.command(epilog=examples("eventflow rules pause orders-landed"))
def pause(rule: RuleName) -> None:
    """Not supported yet: hold a rule's firings while matching goes on."""
    _not_yet("pause", rule)


@group.command(epilog=examples("eventflow rules resume orders-landed"))
def resume(rule: RuleName) -> None:
    """Not supported yet: start what a paused rule has held."""
    _not_yet("resume", rule)


def _not_yet(what: str, rule: str) -> NoReturn:
    from eventflow.errors import UsageError

    raise UsageError(f"rules {what} {rule}: not supported yet; take the rule out of its file and apply that")
