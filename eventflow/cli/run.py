"""`eventflow run WORKFLOW -p k=v [--wait]`."""

from __future__ import annotations

import asyncio
import json as json_text
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from eventflow.cli.options import Json, examples
from eventflow.cli.output import duration, line, note, print_json

if TYPE_CHECKING:
    from uuid import UUID

    from eventflow.store.pool import Connection, Pool
    from eventflow.workflow.definition import Workflow

LOOK_SECONDS: Final = 0.2
EXAMPLES = examples(
    "eventflow run load-orders -p path=/data/orders.csv -p day=2026-01-31",
    "eventflow run load-orders -p path=/data/orders.csv --wait && echo loaded",
    'eventflow run clean-up -p \'keep=["eu", "us"]\'',
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(run)


def run(
    workflow: Annotated[str, typer.Argument(help="A workflow of the current rule set.", show_default=False)],
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param", "-p", metavar="NAME=VALUE", help="A parameter; lists and maps as JSON. Repeatable."
        ),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Show progress until the run has ended; exit 1 unless it succeeded."),
    ] = False,
    json: Json = False,
) -> None:
    """Start a run of a workflow by hand, on the current rule set.

    Parameters are checked against the workflow's types. A running `serve` on the same database executes it.
    """
    from eventflow.cli.session import ask_pool

    given = _given(param or [])
    found = ask_pool(lambda pool: _run(pool, workflow, given, wait=wait))
    if json:
        print_json(found)
    elif not wait:
        line(f"started run {found['run_id']}; `eventflow runs show {found['run_id']}` tells how far it is")
    else:
        because = f": {found['error']}" if found["error"] else ""
        line(f"run {found['run_id']} {found['state']} in {duration(found['duration'])}{because}")
    if wait and found["state"] != "succeeded":
        raise typer.Exit(1)


def _given(params: list[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in map(_pair, params):
        if name in given:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint="--param")
        given[name] = value
    return given


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} is no NAME=VALUE", param_hint="--param")
    return name, value


async def _run(pool: Pool, name: str, given: dict[str, str], *, wait: bool) -> dict[str, Any]:
    from eventflow.cli.ruleset import current, unknown
    from eventflow.store.views import runs as views

    ruleset = await current(pool)
    workflow = ruleset.workflows.get(name)
    if workflow is None:
        raise unknown("workflow", name, ruleset.workflows, f"revision {ruleset.revision}")
    async with pool.acquire() as conn:
        run_id = await _start(conn, workflow, given, ruleset.revision, ruleset.roots(name))
        if not await views.nodes_alive(conn):
            note("no `eventflow serve` is running on this database; the run waits until one does")
        if wait:
            await _wait(conn, run_id)
        found = await views.run(conn, run_id)
    found["params"] = json_text.loads(found["params"])
    del found["tasks"]
    return found


async def _start(
    conn: Connection, workflow: Workflow, given: dict[str, str], revision: int, roots: tuple[str, ...]
) -> UUID:
    from datetime import UTC, datetime

    from eventflow.event import encode_json, new_uid
    from eventflow.store import runs as store
    from eventflow.store.signals import Signal, tell
    from eventflow.workflow import params

    values = params.bind(workflow, {name: _value(workflow, name, text) for name, text in given.items()})
    now = datetime.now(UTC)
    run_id = new_uid()
    await store.start_runs(
        conn,
        [store.NewRun(run_id, workflow.name, revision, encode_json(values), roots, created=now, due=now)],
    )
    await tell(conn, Signal.tasks)
    return run_id


def _value(workflow: Workflow, name: str, text: str) -> Any:
    """A command line has only text: what is no text, date or duration is read as JSON where it is some."""
    from eventflow.workflow.definition import ParamType

    declared = workflow.params.get(name)
    if declared is None or declared.type in (
        ParamType.string, ParamType.date, ParamType.datetime, ParamType.duration
    ):  # fmt: skip
        return text
    try:
        return json_text.loads(text)
    except ValueError:
        return text


async def _wait(conn: Connection, run_id: UUID) -> None:
    """Print each change on stderr until the run has ended."""
    from eventflow.store.views import runs as views

    seen: dict[str, str] = {}
    while True:
        rows = await views.states(conn, run_id)
        for row in rows:
            state = f"{row['task_state']}" + (f" (attempt {row['attempt']})" if row["attempt"] > 1 else "")
            if row["task"] and seen.get(row["task"]) != state and row["task_state"] != "ready":
                seen[row["task"]] = state
                note(f"{row['task']}: {state}{': ' + row['task_error'] if row['task_error'] else ''}")
        if not rows or rows[0]["state"] != "running":
            return
        await asyncio.sleep(LOOK_SECONDS)
