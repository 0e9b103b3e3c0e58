"""Shell tasks: argument lists, environment, results, and the end of everything they started."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structlog.testing import capture_logs

from eventflow.store import runs
from tests.integration.conftest import DEADLINE, task

if TYPE_CHECKING:
    from uuid import UUID

    from tests.integration.conftest import Stage


async def run_one(stage: Stage, call: list[str], **more: Any) -> UUID:
    stage.workflow(task("task", call, timeout=more.pop("timeout", None)), params={"text": "string"})
    async with stage.worker():
        run = await stage.start(params=more)
        await stage.ended(run)
    return run


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until_dead(pid: int) -> None:
    async with asyncio.timeout(DEADLINE):
        while alive(pid):
            await asyncio.sleep(0.02)


async def pid_in(file: Path) -> int:
    async with asyncio.timeout(DEADLINE):
        while not file.exists() or not file.read_text().endswith("\n"):
            await asyncio.sleep(0.02)
    return int(file.read_text())


async def test_arguments_from_data_are_never_read_by_a_shell(stage: Stage) -> None:
    text = "a b'; touch hacked; echo \"$HOME ${x}\n*"
    run = await run_one(stage, ["printf", "%s|", "${params.text}", "n=${params.text}"], text=text)
    assert await stage.log(run) == f"{text}|n={text}|"


async def test_the_environment_says_which_attempt_it_is_and_the_folder_is_that_of_the_code(
    stage: Stage,
) -> None:
    stage.code("ANSWER = 42")
    names = ("RUN_ID", "TASK", "ATTEMPT", "IDEMPOTENCY_KEY")
    shown = " ".join(f"$EVENTFLOW_{name}" for name in names)
    run = await run_one(
        stage, ["sh", "-c", f"echo {shown}; pwd; python -c 'import jobs; print(jobs.ANSWER)'"]
    )
    assert (await stage.log(run)).splitlines() == [
        f"{run} task 1 {run}:task", str(await stage.code_folder(1)), "42",
    ]  # fmt: skip
    assert await stage.result(run) == 42


async def test_a_last_line_that_is_no_json_makes_no_result(stage: Stage) -> None:
    assert await stage.result(await run_one(stage, ["echo", "all done"])) is None


async def test_another_exit_than_zero_fails_with_the_end_of_its_errors(stage: Stage) -> None:
    run = await run_one(stage, ["sh", "-c", "echo looking; echo no such table >&2; exit 3"])
    assert (await stage.row(run))["error"] == "exit status 3: no such table"
    assert sorted((await stage.log(run)).splitlines()) == ["looking", "no such table"]
    run = await run_one(stage, ["sh", "-c", "echo where >&2; echo what >&2; exit 1"])
    assert (await stage.row(run))["error"] == "exit status 1: what\nwhere\nwhat"
    assert (await stage.ended(run))["error"] == "task 'task' failed: exit status 1: what"


async def test_a_signal_is_named(stage: Stage) -> None:
    run = await run_one(stage, ["sh", "-c", "kill -SEGV $$"])
    assert (await stage.row(run))["error"] == "killed by signal 11 (SIGSEGV)"


async def test_a_program_that_is_not_there_fails_its_task(stage: Stage) -> None:
    run = await run_one(stage, ["no-such-program", "x"])
    assert "cannot start 'no-such-program'" in (await stage.row(run))["error"]


async def test_a_timeout_ends_the_command_and_all_it_started(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    run = await run_one(stage, ["sh", "-c", f"sh -c 'echo $$ > {file}; exec sleep 1000' & wait"], timeout=1.0)
    assert (await stage.row(run))["error"] == "timed out after 1 s"
    await until_dead(await pid_in(file))


async def test_what_a_command_leaves_behind_ends_with_it(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    run = await run_one(stage, ["sh", "-c", f"sleep 1000 >&- 2>&- & echo $! > {file}"])
    assert (await stage.ended(run))["state"] == "succeeded"
    await until_dead(await pid_in(file))


async def test_a_cancelled_run_ends_its_command_with_the_next_heartbeat(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    stage.workflow(task("task", ["sh", "-c", f"echo $$ > {file}; exec sleep 1000"]))
    with capture_logs() as logged:
        async with stage.worker(lease=1):
            run = await stage.start()
            pid = await pid_in(file)
            async with stage.pool.acquire() as conn:
                assert await runs.cancel_run(conn, run, stage.wanted.__contains__)
            await until_dead(pid)
    (told,) = [line for line in logged if line["event"] in ("run_cancelled", "lease_lost")]
    assert (told["event"], told["log_level"], told["run_id"]) == ("run_cancelled", "info", str(run))


async def test_a_killed_serving_process_takes_its_commands_and_functions_with_it(
    stage: Stage, tmp_path: Path
) -> None:
    """The parent is a process of its own that starts two slots and is killed with -9."""
    program = f"""
import asyncio, os
from types import SimpleNamespace as N
from eventflow.worker.call import Call
from eventflow.worker.slot import Slot

def attempt(**more):
    call = Call("r", "w", "t", 1, {str(tmp_path)!r}, **more)
    return N(call=call, log=N(write=lambda _: None))

async def main():
    await asyncio.gather(
        Slot().execute(attempt(argv=("sh", "-c", "echo $$ > command; exec sleep 1000"))),
        Slot().execute(attempt(target="spin:forever")),
    )
asyncio.run(main())
"""
    (tmp_path / "spin.py").write_text(
        "import os\ndef forever():\n  open('function', 'w').write(f'{os.getpid()}\\n')\n  while True: pass\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, cwd=tmp_path)
    pids = [await pid_in(tmp_path / name) for name in ("command", "function")]
    parent.kill()
    await parent.wait()
    for pid in pids:
        await until_dead(pid)
