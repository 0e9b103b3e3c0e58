"""Attempts of dead workers are taken back, and only those."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from eventflow.event import new_uid
from eventflow.store import task_runs
from eventflow.store.finish import Finished, finish
from eventflow.store.outcomes import succeeded
from eventflow.store.rescue import Rescuer, rescue
from tests.integration.conftest import task

if TYPE_CHECKING:
    from eventflow.store.pool import Connection
    from tests.integration.conftest import Stage

NODE = new_uid()
EXPIRE = "UPDATE task_run SET lease_until = now() WHERE task = 'deadly' AND state = 'running'"
SHORT, LONG = timedelta(milliseconds=1), timedelta(seconds=30)


async def take_back(conn: Connection, stage: Stage, lease: timedelta = SHORT) -> Finished:
    return await rescue(conn, lease, stage.workflow_of, stage.wanted.__contains__)


async def test_an_expired_attempt_is_ready_again_and_has_used_up_no_retry(stage: Stage) -> None:
    stage.workflow(task("task", "m:f"))
    run = await stage.start()
    async with stage.pool.acquire() as conn:
        await task_runs.claim(conn, 1, NODE, SHORT)
        await take_back(conn, stage)
        row = await stage.row(run)
        assert (row["state"], row["attempt"], row["failures"], row["crashes"]) == ("ready", 1, 0, 1)
        [again] = await task_runs.claim(conn, 1, NODE, LONG)
        assert again.attempt == 2


async def test_a_lease_that_is_kept_is_left_alone(stage: Stage) -> None:
    stage.workflow(task("task", "m:f"))
    run = await stage.start()
    async with stage.pool.acquire() as conn:
        [claimed] = await task_runs.claim(conn, 1, NODE, SHORT)
        assert await task_runs.heartbeat(conn, [claimed], NODE, LONG) == []
        assert await take_back(conn, stage) == Finished()
    assert (await stage.row(run))["state"] == "running"


async def test_a_heartbeat_between_look_and_rescue_saves_the_attempt(stage: Stage) -> None:
    stage.workflow(task("task", "m:f"))
    run = await stage.start()
    async with stage.pool.acquire() as conn, stage.pool.acquire() as other:
        [claimed] = await task_runs.claim(conn, 1, NODE, SHORT)

        async def renew(_revision: int, _name: str) -> None:
            raise AssertionError("no workflow is needed for a first crash")

        transaction = other.transaction()
        await transaction.start()
        await task_runs.heartbeat(other, [claimed], NODE, LONG)
        finished = await asyncio.wait_for(
            rescue(conn, SHORT, renew, stage.wanted.__contains__),  # type: ignore[arg-type]
            5,
        )
        await transaction.commit()
    assert finished == Finished()
    assert (await stage.row(run))["state"] == "running"


async def test_the_zombie_that_comes_back_is_refused(stage: Stage) -> None:
    stage.workflow(task("task", "m:f"))
    run = await stage.start()
    async with stage.pool.acquire() as conn:
        [zombie] = await task_runs.claim(conn, 1, NODE, SHORT)
        await take_back(conn, stage)
        [second] = await task_runs.claim(conn, 1, new_uid(), LONG)
        for claimed, result in ((zombie, b'"late"'), (second, b'"right"')):
            await finish(conn, [succeeded(claimed, result)], stage.workflows, stage.wanted.__contains__)
    assert (await stage.row(run))["result"] == b'"right"'


async def test_the_third_rescue_ends_the_run_and_its_other_branches_go_on_first(stage: Stage) -> None:
    stage.workflow(task("deadly", "m:f"), task("other", "m:f"), task("next", "m:f", after=("other",)))
    run = await stage.start()
    seen: dict[str, task_runs.Claimed] = {}
    async with stage.pool.acquire() as conn:
        for _ in range(3):
            claimed = await task_runs.claim(conn, 9, NODE, LONG)
            seen |= {c.task: c for c in claimed}
            await conn.execute(EXPIRE)
            await take_back(conn, stage)
            outcomes = [succeeded(c, b"1") for c in claimed if c.task == "other"]
            await finish(conn, outcomes, stage.workflows, stage.wanted.__contains__)
        row = await conn.fetchrow("SELECT state, crashes, attempt FROM task_run WHERE task = 'deadly'")
        assert row is not None
        assert tuple(row) == ("failed", 3, 3)
        await finish(conn, [succeeded(seen["next"], b"1")], stage.workflows, stage.wanted.__contains__)
        assert await conn.fetchval("SELECT stage FROM dead_letter") == "task"
    ended = await stage.ended(run)
    assert (ended["state"], ended["error"]) == (
        "failed",
        "task 'deadly' failed: its worker died or lost touch",
    )


async def test_nothing_is_rescued_while_postgres_is_up_for_less_than_a_lease(stage: Stage) -> None:
    stage.workflow(task("task", "m:f"))
    await stage.start()
    async with stage.pool.acquire() as conn:
        await task_runs.claim(conn, 1, NODE, SHORT)
        assert await take_back(conn, stage, timedelta(days=365)) == Finished()
        assert await take_back(conn, stage) != Finished()


async def test_nothing_is_rescued_within_one_lease_of_the_rescuers_own_connection(stage: Stage) -> None:
    stage.workflow(task("task", "m:f"))
    run = await stage.start()
    lease = timedelta(seconds=0.5)
    ready = asyncio.Event()
    async with stage.pool.acquire() as conn:
        await task_runs.claim(conn, 1, NODE, SHORT)
    rescuer = Rescuer(stage.pool, lease, stage.workflow_of, stage.wanted.__contains__, ready.set, ready.set)
    started = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(rescuer.run())
        await asyncio.wait_for(ready.wait(), 10)
        assert asyncio.get_running_loop().time() - started >= lease.total_seconds()
        running.cancel()
    assert (await stage.row(run))["state"] == "ready"
