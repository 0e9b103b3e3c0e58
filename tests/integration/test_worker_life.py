"""A worker through timeouts, crashes, lost leases, lost connections and its own end."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from eventflow.event import new_uid
from eventflow.store import task_runs
from eventflow.worker import loops
from tests.integration.conftest import DEADLINE, task

if TYPE_CHECKING:
    from tests.integration.conftest import Stage

RUNNING = "SELECT * FROM task_run WHERE run_id = $1 AND state = 'running'"
KINDS = pytest.mark.parametrize("kind", ["async def", "def"])


async def content(file: Path) -> str:
    async with asyncio.timeout(DEADLINE):
        while not file.exists() or not file.read_text():
            await asyncio.sleep(0.01)
    return file.read_text()


def endless(stage: Stage, kind: str, file: Path) -> None:
    """A task that says it has begun, then waits for ever."""
    waiting = "await asyncio.sleep(1000)" if kind == "async def" else "time.sleep(1000)"
    stage.code(f"""
        import asyncio, time
        {kind} f():
            with open({str(file)!r}, "a") as said:
                said.write("begun ")
            {waiting}
    """)
    stage.workflow(task("task", "jobs:f"))


@KINDS
async def test_a_task_that_outstays_its_timeout_fails(stage: Stage, kind: str) -> None:
    waiting = "await asyncio.sleep(1000)" if kind == "async def" else "time.sleep(1000)"
    stage.code(f"import asyncio, time\n{kind} f():\n  print('begun')\n  {waiting}\n")
    stage.workflow(task("task", "jobs:f", timeout=0.3))
    async with stage.worker():
        run = await stage.start()
        assert (await stage.ended(run))["error"] == "task 'task' failed: timed out after 0.3 s"
        assert await stage.log(run) == "begun\n"


async def test_an_async_task_that_blocks_stops_neither_the_serving_loop_nor_new_tasks(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(loops, "BLOCKED_AFTER", 0.5)
    stop = tmp_path / "stop"
    stage.code(f"""
        import os, time

        async def blocks():
            while not os.path.exists({str(stop)!r}):
                time.sleep(0.01)

        async def quick():
            return "done"
    """)
    stage.workflow(task("task", "jobs:blocks", timeout=0.5), name="blocks")
    stage.workflow(task("task", "jobs:quick"), name="quick")
    async with stage.worker():
        blocked = await stage.start("blocks")
        await stage.until(RUNNING, blocked)
        loop, longest = asyncio.get_running_loop(), 0.0
        for _ in range(100):
            before = loop.time()
            await asyncio.sleep(0.001)
            longest = max(longest, loop.time() - before)
        assert longest < 0.5
        assert "does not let itself be cancelled" in (await stage.ended(blocked))["error"]
        assert await stage.result(await stage.start("quick")) == "done"
        stop.touch()


async def test_a_crashing_process_harms_only_its_task_and_the_third_time_gives_it_up(stage: Stage) -> None:
    stage.code("""
        import os, signal, time

        def crash():
            os.kill(os.getpid(), signal.SIGSEGV)

        def slow():
            time.sleep(0.5)
            return "unharmed"
    """)
    stage.workflow(task("task", "jobs:crash"), name="crash")
    stage.workflow(task("task", "jobs:slow"), name="slow")
    async with stage.worker():
        slow, crash = await stage.start("slow"), await stage.start("crash")
        ended = await stage.ended(crash)
        assert ended["error"] == "task 'task' failed: its process was killed by signal 11 (SIGSEGV)"
        row = await stage.row(crash)
        assert (row["attempt"], row["crashes"], row["failures"]) == (3, 3, 0)
        assert await stage.result(slow) == "unharmed"
        letter = await stage.until("SELECT * FROM dead_letter WHERE run_id = $1", crash)
        assert (letter["stage"], letter["attempts"]) == ("task", 3)


async def test_a_process_that_exits_by_itself_has_crashed(stage: Stage) -> None:
    stage.code("import os\ndef f(ctx):\n  if ctx.attempt < 3: os._exit(7)\n  return ctx.attempt")
    stage.workflow(task("task", "jobs:f"))
    async with stage.worker():
        assert await stage.result(await stage.start()) == 3


async def test_processes_stay_warm_and_one_serves_one_version_of_the_code(stage: Stage) -> None:
    for revision in (1, 2):
        stage.code(f"import os, shared\ndef f(): return [os.getpid(), shared.NAME, {revision}]", revision)
        stage.code(f"NAME = 'v{revision}'", revision, module="shared")
        stage.workflow(task("task", "jobs:f"), revision=revision)
    async with stage.worker(processes=2):
        results = [
            await stage.result(await stage.start(revision=revision)) for revision in (1, 2, 1, 2, 1, 2)
        ]
    assert [(name, version) for _, name, version in results] == [("v1", 1), ("v2", 2)] * 3
    assert len({pid for pid, _, _ in results}) == 2


async def test_two_versions_of_async_code_run_side_by_side(stage: Stage) -> None:
    for revision in (1, 2):
        stage.code(
            "import shared\nCALLS = []\nasync def f():\n  CALLS.append(shared.NAME)\n  return CALLS", revision
        )
        stage.code(f"NAME = 'v{revision}'", revision, module="shared")
        stage.workflow(task("task", "jobs:f"), revision=revision)
    async with stage.worker():
        results = [await stage.result(await stage.start(revision=revision)) for revision in (1, 2, 1, 2)]
    assert results == [["v1"], ["v2"], ["v1", "v1"], ["v2", "v2"]]


@KINDS
async def test_a_task_whose_lease_was_taken_is_stopped_and_says_nothing(
    stage: Stage, kind: str, tmp_path: Path
) -> None:
    endless(stage, kind, tmp_path / "said")
    async with stage.worker(lease=1.0) as worker:
        run = await stage.start()
        await content(tmp_path / "said")
        other = new_uid()
        async with stage.pool.acquire() as conn:
            await conn.execute(
                "UPDATE task_run SET attempt = 2, worker = $1, lease_until = now() + interval '1 h'", other
            )
        async with asyncio.timeout(DEADLINE):
            while worker.busy:
                await asyncio.sleep(0.01)
    row = await stage.row(run)
    assert (row["state"], row["attempt"], row["result"]) == ("running", 2, None)


async def test_leases_are_renewed_for_as_long_as_a_task_runs(stage: Stage, tmp_path: Path) -> None:
    endless(stage, "async def", tmp_path / "said")
    async with stage.worker(lease=0.6):
        run = await stage.start()
        first = (await stage.until(RUNNING, run))["lease_until"]
        later = "SELECT * FROM task_run WHERE run_id = $1 AND lease_until > $2::timestamptz + interval '1 s'"
        assert (await stage.until(later, run, first))["attempt"] == 1


@KINDS
async def test_draining_waits_for_what_ends_in_time(stage: Stage, kind: str, tmp_path: Path) -> None:
    go, begun = tmp_path / "go", tmp_path / "begun"
    waiting = "await asyncio.sleep(0.01)" if kind == "async def" else "time.sleep(0.01)"
    stage.code(f"""
        import asyncio, os, time
        {kind} f():
            with open({str(begun)!r}, "a") as said:
                said.write("begun")
            while not os.path.exists({str(go)!r}):
                {waiting}
            return "done"
    """)
    stage.workflow(task("task", "jobs:f"))
    async with stage.worker() as worker:
        run = await stage.start()
        await content(begun)
        draining = asyncio.ensure_future(worker.drain(timedelta(seconds=20)))
        late = await stage.start()
        go.touch()
        await draining
        assert await stage.result(run) == "done"
    assert (await stage.row(late))["state"] == "ready"


@KINDS
async def test_draining_hands_back_what_does_not_end_in_time(stage: Stage, kind: str, tmp_path: Path) -> None:
    endless(stage, kind, tmp_path / "said")
    async with stage.worker() as worker:
        run = await stage.start()
        await content(tmp_path / "said")
        await worker.drain(timedelta(seconds=0.2))
        row = await stage.row(run)
        assert (row["state"], row["attempt"], row["failures"], row["crashes"]) == ("ready", 1, 0, 0)
        async with stage.pool.acquire() as conn:
            assert len(await task_runs.claim(conn, 1, new_uid(), timedelta(seconds=30))) == 1


async def test_what_waits_for_a_process_is_handed_back_at_once_when_draining(
    stage: Stage, tmp_path: Path
) -> None:
    endless(stage, "def", tmp_path / "said")
    runs = [await stage.start() for _ in range(5)]
    async with stage.worker(processes=1) as worker:
        await content(tmp_path / "said")
        draining = asyncio.ensure_future(worker.drain(timedelta(seconds=DEADLINE)))
        query = "SELECT 1 FROM task_run WHERE state = 'ready' HAVING count(*) = $1"
        await stage.until(query, len(runs) - 1)
        draining.cancel()
    assert (tmp_path / "said").read_text() == "begun "


async def test_a_lost_connection_loses_no_result(stage: Stage, tmp_path: Path) -> None:
    go = tmp_path / "go"
    stage.code(f"""
        import asyncio, os
        async def f():
            while not os.path.exists({str(go)!r}):
                await asyncio.sleep(0.01)
            return "kept"
    """)
    stage.workflow(task("task", "jobs:f"))
    async with stage.worker():
        run = await stage.start()
        await stage.until(RUNNING, run)
        async with stage.pool.acquire() as conn:
            await conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        go.touch()
        assert await stage.result(run) == "kept"
        assert await stage.result(await stage.start()) == "kept"


async def test_two_workers_share_the_work_and_do_nothing_twice(stage: Stage, tmp_path: Path) -> None:
    said = tmp_path / "said"
    stage.code(f"""
        async def f(ctx):
            with open({str(said)!r}, "a") as file:
                file.write(ctx.run_id + "\\n")
    """)
    stage.workflow(task("task", "jobs:f"))
    runs = [await stage.start() for _ in range(200)]
    async with stage.worker(batch=7), stage.worker(batch=7):
        for run in runs:
            assert (await stage.ended(run))["state"] == "succeeded"
    assert sorted(said.read_text().split()) == sorted(map(str, runs))


async def test_quick_async_tasks_are_not_held_up_by_slow_processes(stage: Stage, tmp_path: Path) -> None:
    endless(stage, "def", tmp_path / "said")
    stage.code("async def quick(): return 1", module="other")
    stage.workflow(task("task", "other:quick"), name="quick")
    async with stage.worker(processes=1, concurrency=20):
        for _ in range(30):
            await stage.start()
        await content(tmp_path / "said")
        assert await stage.result(await stage.start("quick")) == 1


async def test_a_signal_for_the_whole_group_of_processes_is_left_to_the_serving_one(
    stage: Stage, tmp_path: Path
) -> None:
    go, pid = tmp_path / "go", tmp_path / "pid"
    stage.code(f"""
        import os, time
        def f():
            with open({str(pid)!r}, "w") as file:
                file.write(str(os.getpid()))
            while not os.path.exists({str(go)!r}):
                time.sleep(0.01)
            return "done"
    """)
    stage.workflow(task("task", "jobs:f"))
    async with stage.worker():
        run = await stage.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(int(await content(pid)), number)
        go.touch()
        assert await stage.result(run) == "done"
        assert (await stage.row(run))["attempt"] == 1
