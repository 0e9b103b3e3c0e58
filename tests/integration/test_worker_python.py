"""Python tasks: what they get, what they give back, what of theirs goes wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from eventflow.workflow.definition import Retry
from tests.integration.conftest import task

if TYPE_CHECKING:
    from uuid import UUID

    from tests.integration.conftest import Stage

KINDS = pytest.mark.parametrize("kind", ["async def", "def"])


async def run_one(
    stage: Stage, kind: str, body: str, inputs: dict[str, Any] | None = None, **more: Any
) -> UUID:
    """A run of one task whose function has this signature and body."""
    stage.code(f"import logging, os, subprocess, sys\nfrom datetime import *\n{kind} {body}\n")
    params = more.pop("params", {})
    stage.workflow(task("task", "jobs:f", inputs), params=more.pop("types", {}))
    async with stage.worker():
        run = await stage.start(params=params, **more)
        await stage.ended(run)
    return run


async def error_of(stage: Stage, run: UUID) -> str:
    assert (await stage.ended(run))["state"] == "failed"
    return (await stage.row(run))["error"]


async def test_async_functions_plain_ones_and_commands_give_results(stage: Stage) -> None:
    stage.code("""
        async def waits(n):
            return {"n": n + 1}

        def computes(n):
            return {"n": n + 2}
    """)
    number = {"n": "${params.n}"}
    stage.workflow(task("task", "jobs:waits", number), name="one", params={"n": "int"})
    stage.workflow(task("task", "jobs:computes", number), name="two", params={"n": "int"})
    stage.workflow(task("task", ["sh", "-c", "echo reading; echo '{\"n\": 4}'"]), name="three")
    async with stage.worker():
        runs = [await stage.start(name, {"n": 1}) for name in ("one", "two", "three")]
        assert [await stage.result(run) for run in runs] == [{"n": 2}, {"n": 3}, {"n": 4}]
        assert await stage.log(runs[2]) == 'reading\n{"n": 4}\n'


@KINDS
async def test_arguments_arrive_with_the_types_of_their_parameters(stage: Stage, kind: str) -> None:
    run = await run_one(
        stage, kind, "f(day, at, wait, n, text, same): return list(map(repr, locals().values()))",
        {
            "day": "${params.day}", "at": "${params.at}", "wait": "${params.wait}", "n": "${params.n}",
            "text": "on ${params.day}", "same": {"a": [1, None]},
        },
        types={"day": "date", "at": "datetime", "wait": "duration", "n": "int"},
        params={"day": "2026-01-31", "at": "2026-01-31T06:00:00Z", "wait": "90s", "n": 10**30},
    )  # fmt: skip
    assert await stage.result(run) == [
        "datetime.date(2026, 1, 31)",
        "datetime.datetime(2026, 1, 31, 6, 0, tzinfo=datetime.timezone.utc)",
        "datetime.timedelta(seconds=90)", str(10**30), "'on 2026-01-31'", "{'a': [1, None]}",
    ]  # fmt: skip


async def test_a_result_is_handed_to_the_next_task(stage: Stage) -> None:
    stage.code("""
        async def profile():
            return {"rows": [1, 2, 3], "name": "x"}

        def check(rows):
            return sum(rows)
    """)
    stage.workflow(
        task("profile", "jobs:profile"),
        task("check", "jobs:check", {"rows": "${tasks.profile.result.rows}"}, after=("profile",)),
        task("tell", ["echo", "${tasks.check.result}", "${tasks.profile.result}"], after=("check",)),
    )
    async with stage.worker():
        run = await stage.start()
        assert await stage.result(run, "check") == 6
        assert await stage.log(run) == '6 {"rows":[1,2,3],"name":"x"}\n'


async def test_a_result_that_lacks_the_field_asked_for_fails_the_task_that_asks(stage: Stage) -> None:
    stage.code("async def profile(): return {}\nasync def check(rows): return rows")
    stage.workflow(
        task("profile", "jobs:profile"),
        task("check", "jobs:check", {"rows": "${tasks.profile.result.rows}"}, after=("profile",)),
    )
    async with stage.worker():
        run = await stage.start()
        assert "rows" in (await stage.ended(run))["error"]
        assert "arguments" in (await stage.row(run, "check"))["error"]


@KINDS
async def test_the_context_says_what_the_attempt_is_and_what_triggered_it(stage: Stage, kind: str) -> None:
    uid = await stage.taken_in({"n": 1})
    run = await run_one(
        stage, kind,
        "f(ctx): e = ctx.event; return [ctx.run_id, ctx.workflow, ctx.task, ctx.attempt, ctx.idempotency_key,"
        " dict(ctx.params), e.source, e.id, e.type, e.subject, e.data, e['data'], e.meta]",
        event_uid=uid, params={"p": 1},
    )  # fmt: skip
    assert await stage.result(run) == [
        str(run), "flow", "task", 1, f"{run}:task", {"p": 1},
        "landing", "a.csv#1", "file.arrived", "a.csv", {"n": 1}, {"n": 1}, {"inode": 7},
    ]  # fmt: skip


@KINDS
async def test_open_takes_the_file_of_the_event_and_refuses_it_once_changed(
    stage: Stage, kind: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.csv"
    file.write_text("a,b\n")
    uid = await stage.taken_in({
        "path": str(file), "size": 4, "sha256": hashlib.sha256(b"a,b\n").hexdigest(),
    })  # fmt: skip
    body = "f(path, ctx):\n  with ctx.open(path) as file: return file.read()"
    run = await run_one(stage, kind, body, {"path": str(file)}, event_uid=uid)
    assert await stage.result(run) == "a,b\n"
    file.write_text("a;b\n")
    run = await run_one(stage, kind, body, {"path": str(file)}, event_uid=uid)
    error = await error_of(stage, run)
    for content in (b"a,b\n", b"a;b\n"):
        assert hashlib.sha256(content).hexdigest() in error


@KINDS
async def test_what_a_task_prints_and_logs_is_its_log(stage: Stage, kind: str) -> None:
    run = await run_one(
        stage, kind,
        "f(ctx):\n"
        "  print('out'); print('err', file=sys.stderr)\n"
        "  logging.getLogger('lib').info('by %s', 'lib'); ctx.log.warning('by ctx')",
    )  # fmt: skip
    assert await stage.result(run) is None
    lines = (await stage.log(run)).splitlines()
    assert lines[:2] == ["out", "err"]
    assert [line.split(" ", 2)[2] for line in lines[2:]] == ["INFO lib: by lib", "WARNING task: by ctx"]


async def test_what_programs_write_that_a_process_task_starts_is_in_its_log(stage: Stage) -> None:
    run = await run_one(
        stage, "def", "f(): subprocess.run(['sh', '-c', 'echo deep; echo deeper >&2'], check=True)"
    )
    await stage.result(run)
    assert await stage.log(run) == "deep\ndeeper\n"


@KINDS
async def test_two_tasks_at_once_have_a_log_each(stage: Stage, kind: str) -> None:
    stage.code(f"""
        import asyncio, time
        {kind} f(n):
            for _ in range(5):
                print(n)
                {"await asyncio.sleep(0.01)" if kind == "async def" else "time.sleep(0.01)"}
    """)
    stage.workflow(task("task", "jobs:f", {"n": "${params.n}"}), params={"n": "int"})
    async with stage.worker():
        runs = [await stage.start(params={"n": n}) for n in range(4)]
        for n, run in enumerate(runs):
            await stage.ended(run)
            assert await stage.log(run) == f"{n}\n" * 5


async def test_a_log_ends_at_its_limit_and_says_so(stage: Stage) -> None:
    run = await run_one(stage, "def", "f():\n  for _ in range(300): print('x' * 9999)")
    await stage.result(run)
    log = await stage.log(run)
    assert log.endswith("ends here, at 1 MiB]\n")
    assert len(log) < 1024 * 1024 + 100


@KINDS
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("f(): raise ValueError('bad row 7')", "ValueError: bad row 7"),
        ("f(): return object()", "no JSON"),
        ("f(): return float('nan')", "NaN"),
        ("f(): return 'x' * 2_000_000", "the limit is 1048576"),
        ("f(): sys.exit(3)", "SystemExit: 3"),
        ("f(): raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("g(): pass", "has no attribute 'f'"),
        ("f(a): pass", "missing 1 required positional argument: 'a'"),
        ("f(): yield 1", "generator"),
    ],
)
async def test_what_goes_wrong_in_a_task_is_its_error(
    stage: Stage, kind: str, body: str, message: str
) -> None:
    assert message in await error_of(stage, await run_one(stage, kind, body))


async def test_an_error_shows_the_lines_of_the_task_and_none_of_eventflow(stage: Stage) -> None:
    for kind in ("async def", "def"):
        error = await error_of(stage, await run_one(stage, kind, "f():\n  deep()\ndef deep():\n  1 / 0"))
        assert error.startswith("ZeroDivisionError: division by zero")
        assert "in f\n" in error
        assert "in deep\n" in error
        assert "eventflow/worker" not in error
        assert 'File "jobs.py", line' in error


async def test_a_module_that_is_not_there_or_does_not_load_fails_its_task(stage: Stage) -> None:
    stage.code("raise RuntimeError('half installed')\nasync def f(): pass", module="broken")
    stage.workflow(task("task", "broken:f"), name="broken")
    stage.workflow(task("task", "nowhere:f"), name="missing")
    async with stage.worker():
        assert "half installed" in await error_of(stage, await stage.start("broken"))
        assert "No module named 'nowhere'" in await error_of(stage, await stage.start("missing"))


async def test_a_workflow_that_the_node_cannot_load_fails_its_runs_with_the_reason(stage: Stage) -> None:
    async with stage.worker():
        run = await stage.start("gone", revision=7)
        assert "revision 7 has no workflow 'gone'" in (await stage.ended(run))["error"]


async def test_a_failed_task_is_tried_again_with_the_same_key(stage: Stage) -> None:
    stage.code("""
        async def f(ctx):
            print(ctx.attempt, ctx.idempotency_key)
            if ctx.attempt < 3:
                raise ValueError("not yet")
            return ctx.attempt
    """)
    stage.workflow(task("task", "jobs:f", retry=Retry(3, backoff=Retry().backoff / 20)))
    async with stage.worker():
        run = await stage.start()
        assert await stage.result(run) == 3
        assert await stage.log(run) == "".join(f"{n} {run}:task\n" for n in (1, 2, 3))
        assert (await stage.row(run))["failures"] == 2


async def test_results_of_any_size_of_integer_and_text_come_back_whole(stage: Stage) -> None:
    value = {"n": 10**60, "text": "é\U0001f600", "list": [1.5, None, True]}
    for kind in ("async def", "def"):
        run = await run_one(stage, kind, "f(v): return v", {"v": "${params.v}"}, params={"v": value})
        assert await stage.result(run) == value


async def test_an_async_task_may_start_programs_and_threads(stage: Stage) -> None:
    stage.code("""
        import asyncio, threading

        async def f():
            program = await asyncio.create_subprocess_exec("echo", "hello", stdout=asyncio.subprocess.PIPE)
            out, _ = await program.communicate()
            return [out.decode(), await asyncio.to_thread(in_thread)]

        def in_thread():
            print("in thread")
            return threading.current_thread().name
    """)
    stage.workflow(task("task", "jobs:f"))
    async with stage.worker():
        run = await stage.start()
        out, name = await stage.result(run)
        assert out == "hello\n"
        assert name != "eventflow-tasks"
        assert await stage.log(run) == "in thread\n"
