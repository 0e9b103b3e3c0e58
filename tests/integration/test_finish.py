"""The end of attempts: one result counts, runs move on, a failed run is a dead letter."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
import pytest

from eventflow.event import Event, decode_json, new_uid
from eventflow.matching.effects import Taken
from eventflow.store import effects, outbox, runs, task_runs
from eventflow.store.finish import Finished, finish
from eventflow.store.outcomes import Outcome, as_text, crashed, failed, handed_back, succeeded
from eventflow.store.partitions import ensure_event_partitions
from eventflow.workflow.definition import Retry
from tests.integration.conftest import task

if TYPE_CHECKING:
    from eventflow.store.task_runs import Claimed
    from tests.integration.conftest import Stage

NODE, OTHER = new_uid(), new_uid()
LEASE = timedelta(seconds=30)


async def claim(stage: Stage, limit: int = 100, node: UUID = NODE) -> list[Claimed]:
    async with stage.pool.acquire() as conn:
        return await task_runs.claim(conn, limit, node, LEASE)


async def end(stage: Stage, *outcomes: Outcome) -> Finished:
    async with stage.pool.acquire() as conn:
        return await finish(conn, outcomes, stage.workflows, stage.wanted.__contains__)


async def letters(stage: Stage) -> list[tuple[str, str, bytes, int]]:
    async with stage.pool.acquire() as conn:
        rows = await conn.fetch("SELECT stage, reason, raw, attempts FROM dead_letter ORDER BY created, id")
    return [tuple(row) for row in rows]


async def task_states(stage: Stage, run_id: UUID) -> dict[str, str]:
    async with stage.pool.acquire() as conn:
        rows = await conn.fetch("SELECT task, state FROM task_run WHERE run_id = $1 ORDER BY task", run_id)
    return {row["task"]: row["state"] for row in rows}


async def make_due(stage: Stage) -> None:
    async with stage.pool.acquire() as conn:
        await conn.execute("UPDATE task_run SET due = now() WHERE state = 'ready'")


@pytest.fixture
def one_task(stage: Stage) -> Stage:
    stage.workflow(task("task", "m:f"))
    return stage


async def test_only_the_attempt_that_holds_the_task_run_can_end_it(one_task: Stage) -> None:
    run = await one_task.start()
    [first] = await claim(one_task)
    await end(one_task, handed_back(first))
    [second] = await claim(one_task)  # by the same worker: only the attempt tells them apart
    stale = succeeded(first, b'"stale"')
    assert (await end(one_task, stale)).refused == [stale]
    assert await task_states(one_task, run) == {"task": "running"}
    assert (await end(one_task, succeeded(second, b'"good"'))).ended == 1
    assert (await end(one_task, stale)).refused == [stale]
    assert (await one_task.row(run))["result"] == b'"good"'


async def test_an_outcome_written_twice_counts_once(one_task: Stage) -> None:
    await one_task.start()
    [claimed] = await claim(one_task)
    assert (await end(one_task, succeeded(claimed, b"1"))).ended == 1
    assert (await end(one_task, succeeded(claimed, b"1"))).ended == 0


async def test_the_same_attempt_number_of_another_worker_is_refused(one_task: Stage) -> None:
    await one_task.start()
    [claimed] = await claim(one_task)
    forged = succeeded(msgspec.structs.replace(claimed, worker=OTHER), b"1")
    assert (await end(one_task, forged)).refused == [forged]


async def test_a_task_becomes_ready_when_all_before_it_have_succeeded(stage: Stage) -> None:
    stage.workflow(task("a", "m:f"), task("b", "m:f"), task("c", "m:f", after=("a", "b")))
    run = await stage.start()
    a, b = sorted(await claim(stage), key=lambda c: c.task)
    assert (await end(stage, succeeded(a, b"1"))).readied == 0
    assert (await end(stage, succeeded(b, b"2"))).readied == 1
    [c] = await claim(stage)
    assert c.task == "c"
    assert (await end(stage, succeeded(c, b"3"))).ended == 1
    assert (await stage.ended(run))["state"] == "succeeded"


async def test_two_workers_that_end_two_siblings_at_once_make_the_next_task_once(stage: Stage) -> None:
    stage.workflow(task("a", "m:f"), task("b", "m:f"), task("c", "m:f", after=("a", "b")))
    run = await stage.start()
    a, b = sorted(await claim(stage), key=lambda c: c.task)
    async with stage.pool.acquire() as conn:
        async with conn.transaction():
            first = await finish(conn, [succeeded(a, b"1")], stage.workflows, stage.wanted.__contains__)
            second = asyncio.ensure_future(end(stage, succeeded(b, b"2")))
            await stage.until(
                "SELECT 1 FROM pg_stat_activity "
                "WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        assert (first.readied, (await second).readied) == (0, 1)
    assert [c.run_id for c in await claim(stage)] == [run]


async def test_a_rescue_counts_only_if_the_lease_has_still_run_out(one_task: Stage) -> None:
    await one_task.start()
    [claimed] = await claim(one_task)
    late = crashed(claimed, "its lease had run out a moment ago", expired=True)
    assert (await end(one_task, late)).refused == [late]
    assert (await end(one_task, succeeded(claimed, b"1"))).ended == 1


async def test_a_failure_is_tried_again_after_its_wait_and_counts_apart_from_attempts(
    one_task: Stage,
) -> None:
    run = await one_task.start()
    retry = Retry(attempts=2, backoff=timedelta(seconds=60))
    [claimed] = await claim(one_task)
    await end(one_task, handed_back(claimed))
    [claimed] = await claim(one_task)
    finished = await end(one_task, failed(claimed, "no luck", retry, 0.0))
    assert finished.soonest == timedelta(seconds=60)
    row = await one_task.row(run)
    assert (row["state"], row["attempt"], row["failures"], row["error"]) == ("ready", 2, 1, "no luck")
    assert timedelta(seconds=50) < row["due"] - datetime.now(UTC) <= timedelta(seconds=60)
    assert await claim(one_task) == []
    await make_due(one_task)
    [claimed] = await claim(one_task)
    await end(one_task, failed(claimed, "no luck again", retry, 0.0))
    ended = await one_task.ended(run)
    assert (ended["state"], ended["error"]) == ("failed", "task 'task' failed: no luck again")


async def test_the_third_crash_gives_a_task_run_up(one_task: Stage) -> None:
    run = await one_task.start(params={"n": 1})
    for attempt in (1, 2, 3):
        [claimed] = await claim(one_task)
        assert (claimed.attempt, claimed.failures) == (attempt, 0)
        await end(one_task, crashed(claimed, "killed"))
    assert (await one_task.ended(run))["state"] == "failed"
    assert await letters(one_task) == [("task", "task 'task' failed: killed", b'{"n":1}', 3)]


async def test_a_failed_run_is_a_dead_letter_with_its_event(one_task: Stage) -> None:
    raw = b'{"path": "x.csv"}'
    now, uid, firing = datetime.now(UTC), new_uid(), new_uid()
    event = Event(source="landing", id="x.csv#1", type="file.arrived", data={}, raw=raw, subject="x.csv")
    async with one_task.pool.acquire() as conn:
        await ensure_event_partitions(conn, now.date(), 2)
        await effects.write_events(conn, [Taken(event, uid, now)], ["m"], "p")
    run = await one_task.start(rule="orders", firing_id=firing, event_uid=uid)
    [claimed] = await claim(one_task)
    await end(one_task, failed(claimed, "broken file", Retry(), 0.0))
    async with one_task.pool.acquire() as conn:
        [letter] = await conn.fetch("SELECT * FROM dead_letter")
    expected = {
        "stage": "run", "reason": "task 'task' failed: broken file", "source": "landing", "partition": "p",
        "event_uid": uid, "rule": "orders", "firing_id": firing, "run_id": run, "task": "task",
        "raw": raw, "attempts": 1, "state": "open",
    }  # fmt: skip
    assert {name: letter[name] for name in expected} == expected
    kept = effects.decode_attributes(letter["attributes"])
    assert (kept.type, kept.id, kept.subject) == ("file.arrived", "x.csv#1", "x.csv")


async def test_a_run_fails_for_the_task_that_failed_and_not_for_the_last_that_ended(stage: Stage) -> None:
    stage.workflow(task("bad", "m:f"), task("slow", "m:f"))
    run = await stage.start()
    bad, slow = sorted(await claim(stage), key=lambda c: c.task)
    assert (await end(stage, failed(bad, "rotten", Retry(), 0.0))).ended == 0
    assert (await end(stage, succeeded(slow, b"1"))).ended == 1
    assert (await stage.ended(run))["error"] == "task 'bad' failed: rotten"


async def test_an_outcome_becomes_an_event_only_where_somebody_wants_it(stage: Stage) -> None:
    stage.workflow(task("a", "m:f"), task("b", "m:f", after=("a",)))
    first, second = await stage.start(params={"n": 1}, rule="r"), await stage.start()
    stage.wanted.add("eventflow.run.succeeded")
    for _ in range(2):
        for claimed in await claim(stage):
            outcome = (
                succeeded(claimed, b'{"rows": 3}')
                if claimed.run_id == first
                else failed(claimed, "no", Retry(), 0.0)
            )
            await end(stage, outcome)
    assert (await stage.ended(second))["state"] == "failed"
    async with stage.pool.acquire() as conn, conn.transaction():
        [event] = await outbox.take(conn, 10)
    assert (event.source, event.type, event.subject) == ("eventflow", "eventflow.run.succeeded", "r")
    assert event.data == decode_json(event.raw)
    assert event.data == {
        "run_id": str(first), "workflow": "flow", "rule": "r", "state": "succeeded", "params": {"n": 1},
        "error": None, "results": {"a": {"rows": 3}, "b": {"rows": 3}},
    }  # fmt: skip


async def test_what_an_attempt_says_after_its_run_was_cancelled_is_refused(one_task: Stage) -> None:
    run = await one_task.start()
    [claimed] = await claim(one_task)
    async with one_task.pool.acquire() as conn:
        assert await runs.cancel_run(conn, run, one_task.wanted.__contains__)
        assert [c.key for c in await task_runs.heartbeat(conn, [claimed], NODE, LEASE)] == [claimed.key]
    assert (await end(one_task, succeeded(claimed, b"1"))).ended == 0
    assert (await one_task.ended(run))["state"] == "cancelled"
    assert await task_states(one_task, run) == {"task": "cancelled"}
    assert await letters(one_task) == []


async def test_a_retried_run_runs_only_what_failed(stage: Stage) -> None:
    stage.workflow(task("a", "m:f"), task("b", "m:f", after=("a",)))
    run = await stage.start()
    for outcome in (lambda c: succeeded(c, b"1"), lambda c: failed(c, "no", Retry(), 0.0)):
        [claimed] = await claim(stage)
        await end(stage, outcome(claimed))
    async with stage.pool.acquire() as conn:
        assert await runs.retry_run(conn, run)
        assert not await runs.retry_run(conn, run)
        assert await conn.fetchval("SELECT state FROM dead_letter") == "replayed"
    [claimed] = await claim(stage)
    assert (claimed.task, claimed.attempt, claimed.failures) == ("b", 2, 0)
    await end(stage, succeeded(claimed, b"2"))
    assert (await stage.ended(run))["state"] == "succeeded"


async def test_claims_go_by_priority_then_by_age_and_never_twice(one_task: Stage) -> None:
    first, urgent, second = await one_task.start(), await one_task.start(priority=5), await one_task.start()
    assert [c.run_id for c in await claim(one_task, 2)] == [urgent, first]
    claimed = await asyncio.gather(*(claim(one_task, 1, node) for node in (NODE, OTHER)))
    assert [c.run_id for each in claimed for c in each] == [second]


async def test_tasks_that_need_a_busy_process_are_left_to_others(stage: Stage) -> None:
    stage.workflow(task("task", "m:f"), name="slow")
    stage.workflow(task("task", "m:f"), name="quick")
    await stage.start("slow")
    quick = await stage.start("quick")
    async with stage.pool.acquire() as conn:
        claimed = await task_runs.claim_others(conn, 10, NODE, LEASE, [(1, "slow", "task")])
        assert [c.run_id for c in claimed] == [quick]
        assert await task_runs.claim_others(conn, 10, NODE, LEASE, [(1, "slow", "task")]) == []


def test_an_error_is_kept_as_text_that_postgres_takes() -> None:
    assert as_text("a\0b\udc80c") == "a\ufffdb\ufffdc"
    assert as_text("x" * 9000).startswith("... xxx")
    assert len(as_text("x" * 9000)) < 8200
