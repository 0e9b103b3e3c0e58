"""tasks_batch_10, tasks_batch_100, unanalysed_burst: no-op tasks through one worker, beside a bare queue.

Ours is the whole way of a run: claim, execute an `async def`, write its result, end the run. The floor
claims the same rows with SKIP LOCKED and marks them done.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from bench import floors
from bench.figure import Figure
from eventflow.event import new_uid
from eventflow.store.pool import Connection, Pool, connect, connect_once
from eventflow.store.runs import NewRun, start_runs
from eventflow.worker.worker import Worker
from eventflow.workflow.definition import Task, Workflow

TASKS: Final = 10_000
ROUNDS: Final = 5
LEASE: Final = timedelta(seconds=30)
NOOP: Final = Workflow("noop", {}, {"task": Task("task", "noop:noop")})

EMPTY = "TRUNCATE run CASCADE"
ANALYSE = "ANALYZE run, task_run"
LEFT = "SELECT EXISTS (SELECT FROM run WHERE state = 'running')"
NO_AUTOVACUUM = """
ALTER TABLE run SET (autovacuum_enabled = false);
ALTER TABLE task_run SET (autovacuum_enabled = false)
"""


async def _load(conn: Connection, runs: int) -> None:
    """Runs that wait, each with its one task."""
    for start in range(0, runs, 1_000):
        now = datetime.now(UTC)
        await start_runs(
            conn,
            [
                NewRun(new_uid(), "noop", 1, b"{}", ("task",), now, now)
                for _ in range(start, min(start + 1_000, runs))
            ],
        )


@asynccontextmanager
async def _worker(pool: Pool, folder: Path, batch: int) -> AsyncGenerator[asyncio.Event]:
    async def workflow_of(_revision: int, _name: str) -> Workflow:
        return NOOP

    async def code_folder(_revision: int) -> Path:
        return folder

    wake = asyncio.Event()
    worker = Worker(
        pool, node=new_uid(), workflow_of=workflow_of, code_folder=code_folder, lease=LEASE, wake=wake,
        wanted=lambda _: False, announce=lambda: None, batch=batch,
    )  # fmt: skip
    async with asyncio.TaskGroup() as group:
        running = group.create_task(worker.run())
        try:
            yield wake
        finally:
            running.cancel()


async def _ours(pool: Pool, conn: Connection, folder: Path, tasks: int, batch: int) -> float:
    """Tasks per second from the moment the worker starts until the last task has ended."""
    async with _worker(pool, folder, batch):
        started = time.perf_counter()
        while await conn.fetchval(LEFT):
            await asyncio.sleep(0.005)
        return tasks / (time.perf_counter() - started)


async def _batch(pool: Pool, conn: Connection, folder: Path, batch: int) -> Figure:
    """Ours and the floor in turns, on a table that has been analysed."""
    ours, floor = [], []
    for _ in range(ROUNDS):
        for rates in (floor, ours):
            await conn.execute(EMPTY)
            await _load(conn, TASKS)
            await conn.execute(ANALYSE)
            rate = (
                await floors.claim_complete(conn, TASKS, batch)
                if rates is floor
                else await _ours(pool, conn, folder, TASKS, batch)
            )
            rates.append(rate)
    mine, bare = (sorted(rates)[len(rates) // 2] for rates in (ours, floor))
    return Figure(f"tasks_batch_{batch}", mine, "tasks/s", bare, mine / bare)


async def _burst(admin: Connection, url: str, folder: Path, *, analysed: bool) -> float:
    """10,000 runs in a new database, whose tables were never analysed or were just now."""
    await admin.execute("DROP DATABASE IF EXISTS burst WITH (FORCE)")
    await admin.execute("CREATE DATABASE burst TEMPLATE eventflow_template")
    name = await admin.fetchval("SELECT current_database()")
    async with await connect(url.replace(f"/{name}?", "/burst?")) as pool, pool.acquire() as conn:
        await conn.execute(NO_AUTOVACUUM)
        await _load(conn, TASKS)
        if analysed:
            await conn.execute(ANALYSE)
        return await _ours(pool, conn, folder, TASKS, 100)


async def figures(url: str) -> list[Figure]:
    """The three figures."""
    found: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "noop.py").write_text("async def noop():\n    return None\n")
        async with await connect(url) as pool, pool.acquire() as conn:
            for batch in (10, 100):
                found.append(await _batch(pool, conn, folder, batch))
        admin = await connect_once(url)
        try:
            rates: dict[bool, list[float]] = {True: [], False: []}
            for _ in range(ROUNDS):
                for analysed in (True, False):
                    rates[analysed].append(await _burst(admin, url, folder, analysed=analysed))
        finally:
            await admin.close()
    known, unknown = (sorted(rates[analysed])[ROUNDS // 2] for analysed in (True, False))
    return [*found, Figure("unanalysed_burst", unknown, "tasks/s", known, unknown / known)]
