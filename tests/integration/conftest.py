"""A worker on a real database, with workflows written down in the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any
from uuid import UUID

import pytest

from eventflow.event import JSON, Event, decode_json, encode_json, new_uid
from eventflow.expression import Template, VarType
from eventflow.matching.effects import Taken
from eventflow.store import effects, task_logs
from eventflow.store.partitions import ensure_event_partitions
from eventflow.store.pool import Pool, Row
from eventflow.store.runs import NewRun, start_runs
from eventflow.worker.worker import Worker
from eventflow.workflow.advance import roots
from eventflow.workflow.definition import Param, ParamType, Retry, Task, Workflow

DEADLINE = 20.0
VARIABLES = {"params": VarType.map, "tasks": VarType.map, "run": VarType.map}


def task(
    name: str,
    call: str | list[str],
    inputs: Mapping[str, JSON] | None = None,
    *,
    after: tuple[str, ...] = (),
    retry: Retry | None = None,
    timeout: float | None = None,
) -> Task:
    """A python task where `call` is "module:function", else a shell task."""
    compiled = {key: Template.compile(value, VARIABLES) for key, value in (inputs or {}).items()}
    shell = call if isinstance(call, str) else tuple(Template.compile(one, VARIABLES) for one in call)
    limit = None if timeout is None else timedelta(seconds=timeout)
    return Task(name, shell, compiled, after, retry or Retry(), limit)


class Stage:
    """Workflows by (revision, name), code folders by revision, runs, and workers that execute them."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool = pool
        self.folder = folder
        self.workflows: dict[tuple[int, str], Workflow] = {}
        self.wanted: set[str] = set()
        self.announced = asyncio.Event()
        self.wake = asyncio.Event()

    def code(self, source: str, revision: int = 1, module: str = "jobs") -> None:
        folder = self.folder / f"v{revision}"
        folder.mkdir(exist_ok=True)
        (folder / f"{module}.py").write_text(dedent(source))

    def workflow(
        self, *tasks: Task, name: str = "flow", revision: int = 1, params: Mapping[str, str] | None = None
    ) -> None:
        declared = {key: Param(key, ParamType(kind)) for key, kind in (params or {}).items()}
        self.workflows[revision, name] = Workflow(name, declared, {t.name: t for t in tasks})

    async def workflow_of(self, revision: int, name: str) -> Workflow:
        return self.workflows[revision, name]

    async def code_folder(self, revision: int) -> Path:
        (self.folder / f"v{revision}").mkdir(exist_ok=True)
        return self.folder / f"v{revision}"

    async def start(
        self, name: str = "flow", params: Mapping[str, JSON] | None = None, *, revision: int = 1, **more: Any
    ) -> UUID:
        now = datetime.now(UTC)
        workflow = self.workflows.get((revision, name))
        first = roots(workflow) if workflow else ("task",)
        run = NewRun(new_uid(), name, revision, encode_json(params or {}), first, now, now, **more)
        async with self.pool.acquire() as conn:
            await start_runs(conn, [run])
        self.wake.set()
        return run.id

    async def taken_in(self, data: JSON) -> UUID:
        """An event as ingest would have written it: a file that landed."""
        now, uid = datetime.now(UTC), new_uid()
        event = Event(
            source="landing", id="a.csv#1", type="file.arrived", data=data, raw=encode_json(data),
            subject="a.csv", meta={"inode": 7},
        )  # fmt: skip
        async with self.pool.acquire() as conn:
            await ensure_event_partitions(conn, now.date(), 2)
            await effects.write_events(conn, [Taken(event, uid, now)], ["m"], "")
        return uid

    @asynccontextmanager
    async def worker(self, *, lease: float = 30, **more: Any) -> AsyncIterator[Worker]:
        settings: dict[str, Any] = {"processes": 2, **more}
        worker = Worker(
            self.pool, node=new_uid(), workflow_of=self.workflow_of, code_folder=self.code_folder,
            lease=timedelta(seconds=lease), wake=self.wake, wanted=self.wanted.__contains__,
            announce=self.announced.set, **settings,
        )  # fmt: skip
        async with asyncio.TaskGroup() as group:
            running = group.create_task(worker.run())
            try:
                yield worker
            finally:
                running.cancel()

    async def ended(self, run_id: UUID) -> Row:
        return await self.until("SELECT * FROM run WHERE id = $1 AND ended IS NOT NULL", run_id)

    async def until(self, query: Any, *args: Any) -> Row:
        """The first row, as soon as there is one."""
        async with asyncio.timeout(DEADLINE):
            while True:
                async with self.pool.acquire() as conn:
                    row = await conn.fetchrow(query, *args)
                if row is not None:
                    return row
                await asyncio.sleep(0.02)

    async def row(self, run_id: UUID, name: str = "task") -> Row:
        return await self.until("SELECT * FROM task_run WHERE run_id = $1 AND task = $2", run_id, name)

    async def result(self, run_id: UUID, name: str = "task") -> JSON:
        """The task's result; fails where its run did not succeed."""
        run = await self.ended(run_id)
        assert run["state"] == "succeeded", run["error"]
        return decode_json((await self.row(run_id, name))["result"])

    async def log(self, run_id: UUID) -> str:
        async with self.pool.acquire() as conn:
            return b"".join(content for _, _, content in await task_logs.read(conn, run_id)).decode()


@pytest.fixture
def stage(pool: Pool, tmp_path: Path) -> Stage:
    """Nothing on it yet."""
    return Stage(pool, tmp_path)
