"""The whole path as its users judge it: real files, real requests, real processes, real signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from eventflow.store.pool import Pool
from tests.acceptance.serving import Place, fetch, run_counts, until

RENAMES = int(os.environ.get("EVENTFLOW_TEST_RENAMES", "2000"))
"""The README's test command keeps it short; 10000 and more are run by hand."""


@pytest.fixture
def place(tmp_path: Path, database: str) -> Place:
    return Place(tmp_path / "place", database)


def rename_many(place: Place, first: int, number: int) -> None:
    """As fast as one writer can."""
    staging = place.folder / f"staging-{first}"
    staging.mkdir()
    for n in range(first, first + number):
        (staging / f"f{n}.bin").write_bytes(b"%d" % n)
    for n in range(first, first + number):
        os.rename(staging / f"f{n}.bin", place.landing / f"f{n}.bin")


async def succeeded(pool: Pool, number: int, seconds: float = 120) -> None:
    """All of `number` runs, and not one more or one failed."""

    async def all_ended() -> bool:
        counts = await run_counts(pool)
        return sum(counts.values()) >= number and not counts.get("running")

    await until(all_ended, seconds)
    assert await run_counts(pool) == {"succeeded": number}


async def one_run_each(pool: Pool) -> None:
    doubled = await fetch(pool, "SELECT event_uid FROM run GROUP BY event_uid HAVING count(*) > 1")
    assert doubled == []
    twice = await fetch(pool, "SELECT id FROM event GROUP BY source, id HAVING count(*) > 1")
    assert twice == []


async def test_many_files_renamed_into_place_are_as_many_runs(place: Place, pool: Pool) -> None:
    async with place.serve():
        await asyncio.to_thread(rename_many, place, 0, RENAMES)
        await succeeded(pool, RENAMES)
        await one_run_each(pool)


async def test_files_that_land_while_the_process_is_stopped_run_when_it_goes_on(
    place: Place, pool: Pool
) -> None:
    async with place.serve() as served:
        await asyncio.to_thread(rename_many, place, 0, 100)
        await succeeded(pool, 100)
        served.signal(signal.SIGSTOP)
        await asyncio.to_thread(rename_many, place, 100, 2 * RENAMES)
        served.signal(signal.SIGCONT)
        await succeeded(pool, 100 + 2 * RENAMES)
        await one_run_each(pool)


async def test_files_that_land_while_nobody_serves_run_at_the_next_start(place: Place, pool: Pool) -> None:
    async with place.serve() as served:
        assert await served.stop() == 0
    for n in range(500):
        place.drop(f"down-{n}.bin", b"%d" % n)
    async with place.serve():
        await succeeded(pool, 500)
        await one_run_each(pool)


async def test_a_file_written_in_small_steps_is_one_run_with_its_whole_content(
    place: Place, pool: Pool
) -> None:
    async with place.serve():
        with (place.landing / "slow.bin").open("wb", buffering=0) as file:
            for step in range(25):
                file.write(bytes([step]) * 1024)
                await asyncio.sleep(0.2)
        await succeeded(pool, 1)
        (event,) = await fetch(pool, "SELECT data FROM event")
        assert json.loads(event["data"])["size"] == 25 * 1024


async def test_overwrites_deletes_and_bytes_that_come_back(place: Place, pool: Pool) -> None:
    async def types() -> list[tuple[str, str]]:
        rows = await fetch(pool, "SELECT id, type FROM event ORDER BY uid")
        return [(row["id"], row["type"]) for row in rows]

    async def seen(number: int) -> None:
        async def enough() -> bool:
            return len(await types()) >= number

        await until(enough)

    async with place.serve():
        place.drop("a.csv", b"one")
        await seen(1)
        place.drop("a.csv", b"two")
        await seen(2)
        place.drop("a.csv", b"two")  # the same bytes: nothing
        place.drop("a.csv", b"one")  # compared with the latest only: a change
        await seen(3)
        (place.landing / "a.csv").unlink()

        async def noticed() -> bool:
            query = "SELECT present FROM mark WHERE item = 'a.csv'::bytea"  # the folder has a row as well
            return (await fetch(pool, query))[0]["present"] is False

        await until(noticed)
        place.drop("a.csv", b"one")  # seen removed, and it returns
        await seen(4)
        await succeeded(pool, 4)
    assert await types() == [
        ("a.csv#1", "file.arrived"),
        ("a.csv#2", "file.changed"),
        ("a.csv#3", "file.changed"),
        ("a.csv#4", "file.arrived"),
    ]


async def test_a_thousand_webhooks_at_once_are_a_thousand_runs(place: Place, pool: Pool) -> None:
    async with place.serve() as served:
        answers = await asyncio.gather(*(served.post("/hooks/hook", b'{"n": %d}' % n) for n in range(1000)))
        assert {status for status, _ in answers} == {202}
        await succeeded(pool, 1000)


async def test_parallel_duplicates_are_one_run(place: Place, pool: Pool) -> None:
    async with place.serve() as served:
        answers = await asyncio.gather(*(served.post("/hooks/keyed", b'{"key": "k"}') for _ in range(50)))
        assert {status for status, _ in answers} == {202}
        assert len({json.loads(body)["id"] for _, body in answers}) == 1
        await succeeded(pool, 1)


async def test_sigterm_lets_running_tasks_end_and_exits_0(place: Place, pool: Pool) -> None:
    async with place.serve() as served:
        assert (await served.post("/hooks/hook", b'{"slow": true}'))[0] == 202
        await until(started(place))
        assert await served.stop() == 0
    assert await run_counts(pool) == {"succeeded": 1}
    assert await fetch(pool, "SELECT id FROM node") == []


async def test_a_second_sigterm_ends_it_at_once(place: Place, pool: Pool) -> None:
    async with place.serve() as served:
        assert (await served.post("/hooks/hook", b'{"slow": true}'))[0] == 202
        await until(started(place))
        served.signal(signal.SIGTERM)
        await until(lambda: logged(served.log, "stopping"))
        asked = time.monotonic()
        served.signal(signal.SIGTERM)
        assert await asyncio.wait_for(served.child.wait(), 30) != 0
        assert time.monotonic() - asked < 1


def started(place: Place) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return (place.folder / "slow.log").exists() or any(
            "started" in path.read_text() for path in place.folder.rglob("slow.log")
        )

    return look


async def logged(log: Path, event: str) -> bool:
    return f'"event": "{event}"' in log.read_text()


async def test_two_nodes_share_the_work_and_survive_the_death_of_one(place: Place, pool: Pool) -> None:
    lease = {"EVENTFLOW_LEASE": "3s"}
    async with place.serve(settings=lease) as one, place.serve(path=None, settings=lease) as two:
        answers = await asyncio.gather(
            *(node.post("/hooks/hook", b'{"n": %d}' % n) for n in range(200) for node in (one, two))
        )
        assert {status for status, _ in answers} == {202}
        await asyncio.to_thread(rename_many, place, 0, 200)
        await succeeded(pool, 600)
        await one.kill()
        await asyncio.to_thread(rename_many, place, 200, 200)
        await succeeded(pool, 800)
        await one_run_each(pool)


async def test_embedded_postgres_outlives_a_killed_serve_and_comes_back_when_killed(tmp_path: Path) -> None:
    place = Place(tmp_path / "place", None)
    async with place.serve() as served:
        assert (await served.post("/hooks/hook", b'{"n": 1}'))[0] == 202
        await served.kill()
    code, out, _ = await place.command("runs", "--json")
    assert (code, len(json.loads(out))) == (0, 1)
    async with place.serve() as served:
        code, out, _ = await place.command("db", "status", "--json")
        assert code == 0
        pid = int((tmp_path / "place/data/postgres/postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)

        async def answered() -> bool:
            return (await served.post("/hooks/hook", b'{"n": 2}'))[0] == 202

        await until(answered)
        assert await served.stop() == 0
    code, out, _ = await place.command("runs", "--json")
    assert len(json.loads(out)) >= 2


async def test_a_server_that_may_lose_what_it_acknowledged_is_refused(place: Place, pool: Pool) -> None:
    async with pool.acquire() as conn:
        name = await conn.fetchval("SELECT current_database()")
        await conn.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')  # type: ignore[arg-type]
    async with place.serve(ready=False) as served:
        assert await asyncio.wait_for(served.child.wait(), 30) == 1
        assert "synchronous_commit" in served.log.read_text()
    async with place.serve(settings={"EVENTFLOW_ALLOW_UNSAFE_DURABILITY": "true"}) as served:
        assert await served.stop() == 0


async def test_an_edited_rule_file_is_applied_and_a_broken_one_changes_nothing(
    place: Place, pool: Pool
) -> None:
    rules = place.folder / "rules" / "rules.yaml"
    good = rules.read_text()
    async with place.serve() as served:
        rules.write_text("rules: [")
        await until(lambda: logged(served.log, "ruleset_refused"))
        assert (await served.post("/hooks/hook", b'{"n": 1}'))[0] == 202
        await succeeded(pool, 1)
        rules.write_text(good.replace("data.slow: {exists: false}", "data.n: 2"))

        async def applied() -> bool:
            return bool(await fetch(pool, "SELECT 1 FROM ruleset WHERE revision = 2"))

        await until(applied)
        await served.post("/hooks/hook", b'{"n": 1}')
        await served.post("/hooks/hook", b'{"n": 2}')
        await succeeded(pool, 2)
