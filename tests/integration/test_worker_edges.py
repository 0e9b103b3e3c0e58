"""A worker and a rescuer at their edges: drained in mid-claim, standing still, retried beside itself."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from eventflow.event import Event, new_uid
from eventflow.store import outbox, task_runs
from eventflow.store.pool import connect
from eventflow.store.rescue import Rescuer, rescue
from eventflow.store.runs import cancel_run, retry_run
from eventflow.worker.plan import PlanBook
from tests.chaos.link import Link
from tests.integration.conftest import DEADLINE, task
from tests.integration.test_worker_life import content

if TYPE_CHECKING:
    import pytest

    from eventflow.store.pool import Pool
    from tests.integration.conftest import Stage

LONG = timedelta(seconds=30)


async def test_what_was_just_claimed_is_handed_back_by_a_drain(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.code("async def f():\n    return 1\n")
    stage.workflow(task("task", "jobs:f"))
    claimed, go_on = asyncio.Event(), asyncio.Event()
    prepare = stage.workflow_of

    async def slowly(revision: int, name: str) -> object:
        claimed.set()
        await go_on.wait()
        return await prepare(revision, name)

    monkeypatch.setattr(stage, "workflow_of", slowly)
    async with stage.worker() as worker:
        run = await stage.start()
        await claimed.wait()
        draining = asyncio.ensure_future(worker.drain(timedelta(seconds=5)))
        await asyncio.sleep(0.1)
        go_on.set()
        await draining
    row = await stage.row(run)
    assert (row["state"], row["crashes"], row["lease_until"]) == ("ready", 0, None)


async def test_a_run_that_no_node_can_load_leaves_no_task_behind(stage: Stage) -> None:
    stage.workflow(task("a", "m:f"), task("b", "m:f"))
    run = await stage.start()
    stage.workflows.clear()
    async with stage.worker(batch=1):
        assert (await stage.ended(run))["state"] == "failed"
        states = {(await stage.row(run, name))["state"] for name in ("a", "b")}
    assert states == {"failed", "cancelled"}


async def test_a_retry_on_the_same_node_stops_the_attempt_before_it(stage: Stage, tmp_path: Path) -> None:
    file, stopped = tmp_path / "said", tmp_path / "stopped"
    stage.code(f"""
        import asyncio
        async def f():
            with open({str(file)!r}, "a") as said:
                said.write("begun ")
            try:
                await asyncio.sleep(1000)
            finally:
                with open({str(stopped)!r}, "a") as said:
                    said.write("stopped")
    """)
    stage.workflow(task("task", "jobs:f"))
    async with stage.worker():
        run = await stage.start()
        await content(file)
        async with stage.pool.acquire() as conn:
            await cancel_run(conn, run, stage.wanted.__contains__)
            await retry_run(conn, run)
        stage.wake.set()
        async with asyncio.timeout(DEADLINE):
            while file.read_text() != "begun begun ":
                await asyncio.sleep(0.01)
        async with asyncio.timeout(3):
            assert await content(stopped) == "stopped"


async def test_one_outcome_that_cannot_be_written_stops_no_other_rescue(stage: Stage) -> None:
    stage.workflow(task("good", "m:f"), name="good")
    stage.workflow(task("bad", "m:f"), name="bad")
    good, bad = await stage.start("good"), await stage.start("bad")
    async with stage.pool.acquire() as conn:
        await task_runs.claim(conn, 9, new_uid(), timedelta(milliseconds=1))
        await conn.execute("""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
            CREATE TRIGGER refuse BEFORE UPDATE ON task_run FOR EACH ROW WHEN (NEW.task = 'bad')
                EXECUTE FUNCTION refuse()
        """)
        finished = await rescue(conn, timedelta(milliseconds=1), stage.workflow_of, stage.wanted.__contains__)
    assert finished.soonest is not None
    assert (await stage.row(good, "good"))["state"] == "ready"
    assert (await stage.row(bad, "bad"))["state"] == "running"


async def test_a_postgres_that_stood_still_gives_everybody_time_to_renew(stage: Stage, database: str) -> None:
    stage.workflow(task("task", "m:f"))
    run = await stage.start()
    node, lease = new_uid(), timedelta(seconds=1)
    at = urlsplit(database)
    link = Link(Path(parse_qs(at.query)["host"][0]), database=at.path[1:])
    await link.start()
    async with stage.pool.acquire() as conn, await connect(link.url) as pool:
        [claimed] = await task_runs.claim(conn, 1, node, LONG)
        rescuer = Rescuer(
            pool, lease, stage.workflow_of, stage.wanted.__contains__, lambda: None, lambda: None
        )
        looking = asyncio.ensure_future(rescuer.run())
        await asyncio.sleep(1.3)
        link.stall()
        await task_runs.heartbeat(conn, [claimed], node, timedelta(milliseconds=100))
        await asyncio.sleep(0.9)
        link.flow()
        await asyncio.sleep(0.3)
        lost = await task_runs.heartbeat(conn, [claimed], node, LONG)
        looking.cancel()
        await asyncio.wait([looking])
    await link.close()
    assert lost == []
    assert (await stage.row(run))["crashes"] == 0


async def test_plans_of_old_revisions_are_forgotten_but_not_those_in_use(stage: Stage) -> None:
    for revision in range(300):
        stage.workflow(task("task", "jobs:f"), revision=revision)
    stage.code("async def f():\n    return 1\n")

    async def code_folder(_revision: int) -> Path:
        return await stage.code_folder(1)

    book = PlanBook(stage.workflow_of, code_folder, lambda: {(0, "flow")})
    for revision in range(300):
        await book.get(revision, "flow")
    assert book.workflow(0, "flow") is not None
    assert book.workflow(1, "flow") is None
    assert book.workflow(299, "flow") is not None


async def test_the_outbox_gives_out_no_more_than_fits(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "BYTES_AT_ONCE", 500)
    events = [
        Event(source="eventflow", id=str(n), type="t", subject="s", data="x" * 200, raw=b"x" * 200)
        for n in range(5)
    ]
    async with pool.acquire() as conn:
        await outbox.put(conn, events)
        taken = [event.id for event in await outbox.take(conn, 100)]
        while more := await outbox.take(conn, 100):
            assert len(more) < 5
            taken += [event.id for event in more]
    assert taken == ["0", "1", "2", "3", "4"]
