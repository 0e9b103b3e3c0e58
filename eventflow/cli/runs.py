"""`eventflow runs [show|logs|cancel|retry]`."""

from __future__ import annotations

import json as json_text
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventflow.cli.explain import cause_told
from eventflow.cli.options import Json, Limit, Since, examples, row_limit
from eventflow.cli.output import (
    block,
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
    from datetime import datetime
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
        "eventflow runs show 05387648b861          one run with its tasks; the end of its id is enough",
        "eventflow runs logs 05387648b861 --task load",
        "eventflow runs retry 05387648b861         run what failed in it again, keep what succeeded",
    ),
)


def register(app: typer.Typer) -> None:
    """Add the group."""
    app.add_typer(group, name="runs")


RunId = Annotated[
    str,
    typer.Argument(metavar="RUN", help="The run's id, or the beginning or end of it.", show_default=False),
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
    from eventflow.cli.naming import listed
    from eventflow.cli.session import ask_pool
    from eventflow.store.views import runs as views

    async def read(conn: Connection) -> views.View:
        return await views.runs(
            conn, since=since, state=state, workflow=workflow, rule=rule, limit=row_limit(limit, json)
        )

    rows = ask_pool(lambda pool: listed(pool, read, rule=rule, workflow=workflow))
    print_rows(rows, COLUMNS, as_json=json, empty="no runs: nothing has started that fits")


@group.command(
    epilog=examples("eventflow runs show 05387648b861", "eventflow runs show 05387648b861 --json | jq .tasks")
)
def show(run: RunId, json: Json = False) -> None:
    """Show one run: parameters, what triggered it, its tasks with their results and errors.

    Tasks that never started are shown as `not started`, or, while the run goes on, as `blocked`.
    """
    from eventflow.cli.session import ask_pool

    found = ask_pool(lambda pool: _read(pool, run))
    if json:
        print_json(found)
        return
    beside = ("tasks", "cause")
    print_fields({name: value for name, value in found.items() if name not in beside and value is not None})
    if found["cause"]:
        line(f"its event is {cause_told(found['cause'])}")
    line("")
    brief = [{**task, "error": _first_line(task["error"])} for task in found["tasks"]]
    print_table(TASK_COLUMNS, cells(brief, TASK_COLUMNS))
    for task in found["tasks"]:
        if task["error"] and "\n" in task["error"]:
            line("")
            line(f"{task['task']}:")
            block(task["error"].splitlines())


def _first_line(error: str | None) -> str | None:
    return error and error.partition("\n")[0]


async def _read(pool: Pool, name: str) -> dict[str, Any]:
    from eventflow.errors import UsageError
    from eventflow.store.effects import decode_attributes
    from eventflow.store.views import causes, events
    from eventflow.store.views import runs as views

    async with pool.acquire() as conn:
        found = await views.run(conn, await views.find_run(conn, name))
        found["cause"] = None
        if found["event_id"] is not None:
            event = await events.event(conn, found["event_uid"])
            attributes = decode_attributes(event["attributes"])
            found["cause"] = await causes.cause(
                conn, event["source"], event["type"], event["data"], attributes
            )
    found["params"] = json_text.loads(found["params"])
    for task in found["tasks"]:
        task["result"] = None if task["result"] is None else json_text.loads(task["result"])
    try:
        names = await _tasks(pool, found)
    except UsageError:  # the rule set that it is pinned to is gone, or needs a connector that is not here
        return found
    begun = {task["task"] for task in found["tasks"]}
    state = "blocked" if found["ended"] is None else "not started"
    found["tasks"] += [_not_begun(task, state) for task in names if task not in begun]
    return found


async def _tasks(pool: Pool, found: dict[str, Any]) -> list[str]:
    """The names of the tasks of the workflow that a run is pinned to. Raises `UsageError`."""
    from eventflow.cli.ruleset import revisions

    known = await revisions(pool)
    return list((await known.workflow(found["revision"], found["workflow"])).tasks)


def _not_begun(task: str, state: str) -> dict[str, Any]:
    nothing = ("started", "ended", "duration", "worker", "result", "error")
    return {"task": task, "state": state, "attempt": 0, "crashes": 0, **dict.fromkeys(nothing)}


@group.command(
    epilog=examples(
        "eventflow runs logs 05387648b861", "eventflow runs logs 05387648b861 --task load --since 5m"
    )
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
    """Print what the tasks of a run wrote, oldest first, each followed by its error where it failed.

    Control characters are shown, not obeyed. Lines of an error begin with `TASK !`.
    """
    from eventflow.cli.session import ask_pool

    chunks = ask_pool(lambda pool: _logs(pool, run, task, since))
    if json:
        print_json(chunks[-limit:] if limit else chunks)
        return
    if not chunks:
        note("no log: the run's tasks have written nothing that fits")
    lines = _log_lines(chunks)
    sys.stdout.writelines(f"{text}\n" for text in (lines[-limit:] if limit else lines))


async def _logs(pool: Pool, name: str, task: str | None, since: datetime | None) -> list[dict[str, Any]]:
    """Chunks of `kind` log, and the last error of each task of `kind` error behind them."""
    from eventflow.cli.ruleset import unknown
    from eventflow.store.views import runs as views

    async with pool.acquire() as conn:
        run_id = await views.find_run(conn, name)
        found = await views.run(conn, run_id)
        chunks = await views.logs(conn, run_id, task=task, since=since)
        errors = await views.task_errors(conn, run_id, task=task, since=since)
    if task is not None and task not in {one["task"] for one in found["tasks"]}:
        known = await _tasks(pool, found)
        if task not in known:
            raise unknown("task", task, known, f"workflow '{found['workflow']}'")
    return [{**chunk, "kind": "log"} for chunk in chunks] + [
        {"task": one["task"], "attempt": one["attempt"], "chunk": None, "at": one["at"],
         "content": one["error"].encode(), "kind": "error"} for one in errors
    ]  # fmt: skip


def _log_lines(chunks: list[dict[str, Any]]) -> list[str]:
    """Whole lines, each with its task; the chunks of one attempt are joined, for lines may span them."""
    text: dict[tuple[str, int], dict[str, bytes]] = {}
    for chunk in chunks:
        of_attempt = text.setdefault((chunk["task"], chunk["attempt"]), {"log": b"", "error": b""})
        of_attempt[chunk["kind"]] += chunk["content"]
    return [
        f"{task}{'' if attempt == 1 else f' #{attempt}'} {mark} {printed}"
        for (task, attempt), content in text.items()
        for mark, kind in (("|", "log"), ("!", "error"))
        for printed in payload_text(content[kind]).splitlines()
    ]


@group.command(epilog=examples("eventflow runs cancel 05387648b861"))
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


@group.command(epilog=examples("eventflow runs retry 05387648b861"))
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
