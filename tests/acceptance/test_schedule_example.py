"""Schedules as users judge them: the example in rules/, and three nodes of which none may tick twice."""

from __future__ import annotations

import asyncio
import shutil
import signal
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path

from eventflow.event import decode_json
from eventflow.store.pool import Pool
from tests.acceptance.serving import Place, Served, fetch, until

EXAMPLE = Path(__file__).parents[2] / "rules"
TICKING = """
sources:
  clock: {connector: schedule, every: 1s}
workflows:
  note: {tasks: {note: {python: "steps:enter", with: {item: "x"}}}}
rules:
  each-second: {from: clock, match: {type: schedule.tick}, run: note}
"""
LEASE = {"EVENTFLOW_LEASE": "3s"}


async def ticks(pool: Pool, source: str) -> list[datetime]:
    """Scheduled times of all events, in the order of their commits."""
    rows = await fetch(pool, "SELECT id FROM event WHERE source = $1 ORDER BY ingested, uid", source)
    return [datetime.fromisoformat(row["id"]) for row in rows]


async def test_the_example_runs_on_every_tick(tmp_path: Path, database: str, pool: Pool) -> None:
    place = Place(tmp_path / "place", database, (EXAMPLE / "schedule.yaml").read_text())
    shutil.copy(EXAMPLE / "schedule_tasks.py", place.folder / "rules")
    shutil.copy(EXAMPLE / "schedule.test.yaml", place.folder / "rules" / "rules.test.yaml")
    code, out, err = await place.command("test", "rules")
    assert code == 0, out + err

    async def measured() -> bool:
        return len(await fetch(pool, "SELECT id FROM run WHERE state = 'succeeded'")) >= 3

    async with place.serve():
        await until(measured, what="three pulses")
    found = await ticks(pool, "pulse")
    assert found == [found[0] + n * timedelta(seconds=2) for n in range(len(found))]
    assert all(tick.second % 2 == 0 for tick in found)
    (event,) = await fetch(pool, "SELECT type, subject, data FROM event WHERE source = 'pulse' LIMIT 1")
    data = decode_json(event["data"])
    assert (event["type"], event["subject"]) == ("schedule.tick", "pulse")
    assert [datetime.fromisoformat(data[name]) - found[0] for name in ("scheduled", "previous", "next")] == [
        timedelta(0), timedelta(seconds=-2), timedelta(seconds=2),
    ]  # fmt: skip


async def test_three_nodes_hand_over_each_tick_exactly_once(
    tmp_path: Path, database: str, pool: Pool
) -> None:
    """The owner is stopped past its lease and goes on later; meanwhile its successor is killed."""
    place = Place(tmp_path / "place", database, TICKING)
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(place.serve(settings=LEASE))]
        nodes += [await stack.enter_async_context(place.serve(path=None, settings=LEASE)) for _ in range(2)]
        stopped = await owner(pool, nodes)
        await handed_over(pool, 2)
        stopped.signal(signal.SIGSTOP)
        successor = await owner(pool, [node for node in nodes if node is not stopped])
        await handed_over(pool, 2)
        stopped.signal(signal.SIGCONT)
        await handed_over(pool, 1)
        successor.signal(signal.SIGKILL)
        await owner(pool, [node for node in nodes if node is not successor])
        await handed_over(pool, 2)
    found = await ticks(pool, "clock")
    assert found == [found[0] + n * timedelta(seconds=1) for n in range(len(found))]
    assert len(found) >= 7
    (runs,) = await fetch(pool, "SELECT count(*) AS n, count(DISTINCT event_uid) AS events FROM run")
    assert (runs["n"], runs["events"]) == (len(found), len(found))


async def owner(pool: Pool, among: list[Served]) -> Served:
    """The node of `among` that owns the clock, as soon as one does."""
    query = """
        SELECT n.name FROM source_partition AS p JOIN node AS n ON n.id = p.owner
        WHERE p.source = 'clock' AND p.lease_until > clock_timestamp()
    """
    by_pid = {node.child.pid: node for node in among}
    async with asyncio.timeout(30):
        while True:
            for row in await fetch(pool, query):
                pid = int(row["name"].rpartition(":")[2])
                if pid in by_pid:
                    return by_pid[pid]
            await asyncio.sleep(0.05)


async def handed_over(pool: Pool, more: int) -> None:
    """That many further ticks."""
    wanted = len(await ticks(pool, "clock")) + more

    async def enough() -> bool:
        return len(await ticks(pool, "clock")) >= wanted

    await until(enough, 30)
