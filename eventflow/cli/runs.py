"""`eventflow runs [show|logs|cancel|retry]`."""

from __future__ import annotations

import json as json_text
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventflow.cli.options import Json, Limit, Since, examples, row_limit
from eventflow.cli.output import (
    cells,
    line,
    note,
    payload_text,
    print_fields,
    print_json,
    print_rows,
    print_table,
)

if TYPE_CHECKING:
    from uuid import UUID

    from eventflow.store.pool import Connection, Pool

COLUMNS = ("created", "workflow", "rule", "state", "duration", "event", "error", "run_id")
TASK_COLUMNS = ("task", "state", "attempt", "started", "duration", "result", "error")
STATES = ("running", "succeeded", "failed", "cancelled", "skipped")

group = typer.Typer(
    invoke_without_command=True,
    epilog=examples(
        "eventflow runs                            the last 50, newest first",
        "eventflow runs --state failed --since 1d",
        "eventflow runs show 0199f3a2              one run with its tasks; the beginning of the id is enough",
        "eventflow runs logs 0199f3a2 --task load",
        "eventflow runs retry 0199f3a2             run what failed in it again, keep what succeeded",
    ),
)


def register(app: typer.Typer) -> None:
    """Add the group."""
    app.add_typer(group, name="runs")


RunId = Annotated[
    str, typer.Argument(metavar="RUN", help="The run's id, or the beginning of it.", show_default=False)
]


def _state(text: str) -> str:
    if text not in STATES:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(STATES)}")
    return text


@group.callback()
def runs(
    ctx: typer.Context,
    state: Annotated[
        str | None,
        typer.Option("--state", parser=_state, metavar="STATE", help=f"One of {', '.join(STATES)}."),
    ] = None,
    workflow: Annotated[str | None, typer.Option("--workflow", help="Only of this workflow.")] = None,
    rule: Annotated[str | None, typer.Option("--rule", help="Only those that this rule started.")] = None,
    since: Since = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List runs, newest first; show, cancel, retry one."""
    if ctx.invoked_subcommand is not None:
        return
    from eventflow.cli.session import ask
    from eventflow.store.views import runs as views

    rows = ask(
        lambda conn: views.runs(
            conn, since=since, state=state, workflow=workflow, rule=rule, limit=row_limit(limit, json)
        )
    )
    print_rows(rows, COLUMNS, as_json=json, empty="no runs: nothing has started that fits")


@group.command(
    epilog=examples("eventflow runs show 0199f3a2", "eventflow runs show 0199f3a2 --json | jq .tasks")
)
def show(run: RunId, json: Json = False) -> None:
    """Show one run: parameters, what triggered it, its tasks with their results and errors."""
    from eventflow.cli.session import ask
    from eventflow.store.views import runs as views

    async def read(conn: Connection) -> dict[str, Any]:
        return await views.run(conn, await views.find_run(conn, run))

    found = ask(read)
    found["params"] = json_text.loads(found["params"])
    for task in found["tasks"]:
        task["result"] = None if task["result"] is None else json_text.loads(task["result"])
    if json:
        print_json(found)
        return
    print_fields({name: value for name, value in found.items() if name != "tasks" and value is not None})
    line("")
    print_table(TASK_COLUMNS, cells(found["tasks"], TASK_COLUMNS))


@group.command(
    epilog=examples("eventflow runs logs 0199f3a2", "eventflow runs logs 0199f3a2 --task load --since 5m")
)
def logs(
    run: RunId,
    task: Annotated[str | None, typer.Option("--task", help="Only of this task.")] = None,
    since: Since = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="Only the last so many lines.")
    ] = None,
    json: Json = False,
) -> None:
    """Print what the tasks of a run wrote, oldest first; control characters are shown, not obeyed."""
    from eventflow.cli.session import ask
    from eventflow.store.views import runs as views

    async def read(conn: Connection) -> list[dict[str, Any]]:
        return await views.logs(conn, await views.find_run(conn, run), task=task, since=since)

    chunks = ask(read)
    if json:
        print_json(chunks[-limit:] if limit else chunks)
        return
    if not chunks:
        note("no log: the run's tasks have written nothing that fits")
    lines = _log_lines(chunks)
    sys.stdout.writelines(f"{text}\n" for text in (lines[-limit:] if limit else lines))


def _log_lines(chunks: list[dict[str, Any]]) -> list[str]:
    """Whole lines, each with its task; the chunks of one attempt are joined, for lines may span them."""
    text: dict[tuple[str, int], bytes] = {}
    for chunk in chunks:
        key = (chunk["task"], chunk["attempt"])
        text[key] = text.get(key, b"") + chunk["content"]
    return [
        f"{task}{'' if attempt == 1 else f' #{attempt}'} | {printed}"
        for (task, attempt), content in text.items()
        for printed in payload_text(content).splitlines()
    ]


@group.command(epilog=examples("eventflow runs cancel 0199f3a2"))
def cancel(run: RunId) -> None:
    """Cancel a running run. Tasks in mid-attempt are told to stop; their results no longer count."""
    from eventflow.cli.session import ask_pool

    run_id, done = ask_pool(lambda pool: _cancel(pool, run))
    if not done:
        note(f"eventflow: run {run_id} is not running; nothing to cancel")
        raise typer.Exit(1)
    line(f"cancelled run {run_id}")


async def _cancel(pool: Pool, name: str) -> tuple[UUID, bool]:
    from eventflow.cli.ruleset import current
    from eventflow.store import runs as store
    from eventflow.store.views import runs as views

    ruleset = await current(pool)
    async with pool.acquire() as conn:
        run_id = await views.find_run(conn, name)
        return run_id, await store.cancel_run(conn, run_id, ruleset.wants)


@group.command(epilog=examples("eventflow runs retry 0199f3a2"))
def retry(run: RunId) -> None:
    """Run the failed and cancelled tasks of an ended run again, on the version it is pinned to.

    Tasks that succeeded are kept. For a new run on the current rules use `eventflow dlq replay`.
    """
    from eventflow.cli.session import ask
    from eventflow.store import runs as store
    from eventflow.store.signals import Signal, tell
    from eventflow.store.views import runs as views

    async def again(conn: Connection) -> tuple[UUID, bool]:
        run_id = await views.find_run(conn, run)
        done = await store.retry_run(conn, run_id)
        await tell(conn, Signal.tasks)
        return run_id, done

    run_id, done = ask(again)
    if not done:
        note(f"eventflow: run {run_id} has not failed and was not cancelled; nothing to retry")
        raise typer.Exit(1)
    line(f"run {run_id} goes on; `eventflow runs show {run_id}` tells how far it is")
