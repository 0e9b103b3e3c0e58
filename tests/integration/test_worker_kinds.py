"""Tasks of kinds that connectors bring, on a real worker: their config, secrets, connections and ends."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pytest
from pydantic import BaseModel, ConfigDict, StrictInt

from eventflow.errors import TaskError
from eventflow.expression import Template
from eventflow.task import Context, Kind
from eventflow.worker import kinds
from eventflow.workflow.definition import OfKind, Retry, Task
from tests.integration.conftest import VARIABLES, task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eventflow.event import JSON
    from tests.integration.conftest import Stage


class Recorder:
    """A kind that keeps what it gets; what it does is said by `do`."""

    class Config(BaseModel):
        """Its words."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        do: str = "return"
        n: StrictInt = 0
        password: str = ""
        data: Any = None

    made: ClassVar[list[Recorder]] = []
    begun: ClassVar[threading.Event]

    def __init__(self) -> None:
        self.made.append(self)
        self.loop = asyncio.get_running_loop()
        self.got: list[tuple[Any, Context]] = []
        self.cancelled = False
        self.closed = False

    async def run(self, config: Any, ctx: Context, /) -> object:
        assert asyncio.get_running_loop() is self.loop
        self.got.append((config, ctx))
        match config.do:
            case "fail once" if ctx.attempt == 1:
                raise TaskError(f"refused {config.password}")
            case "raise":
                raise RuntimeError(f"connection with password {config.password} refused")
            case "wait":
                self.begun.set()
                try:
                    await asyncio.sleep(1000)
                except asyncio.CancelledError:
                    self.cancelled = True
                    raise
            case "tell":
                print(f"logging in with {config.password}")
                ctx.log.info("password: %s", config.password)
                return {"used": [config.password], config.password: 1}
            case _:
                pass
        return {"n": config.n, "data": config.data}

    async def close(self) -> None:
        assert asyncio.get_running_loop() is self.loop
        if self.got[-1][0].data == "stays open":
            await asyncio.sleep(1000)
        self.closed = True


@pytest.fixture(autouse=True)
def _nothing_made() -> None:
    Recorder.made = []
    Recorder.begun = threading.Event()


def recorded(name: str = "task", *, after: tuple[str, ...] = (), **more: Any) -> Task:
    """A task of that kind; `words` are its block."""
    words: Mapping[str, JSON] = more.pop("words", {})
    compiled = {key: Template.compile(value, VARIABLES, secrets=True) for key, value in words.items()}
    return Task(name, OfKind("record", cast("type[Kind]", Recorder)), compiled, after, **more)


async def test_a_kind_gets_its_config_with_typed_values_and_gives_a_result(stage: Stage) -> None:
    stage.code("async def profile(): return {'rows': 3}")
    words = {"n": "${tasks.profile.result.rows}", "data": {"day": "${params.day}", "all": ["${params}"]}}
    stage.workflow(
        task("profile", "jobs:profile"),
        recorded(words=words, after=("profile",)),
        task("next", ["echo", "${tasks.task.result.n}"], after=("task",)),
        params={"day": "date"},
    )
    uid = await stage.taken_in({"x": 1})
    async with stage.worker():
        run = await stage.start(params={"day": "2026-01-31"}, event_uid=uid)
        data = {"day": "2026-01-31", "all": [{"day": "2026-01-31"}]}
        assert await stage.result(run) == {"n": 3, "data": data}
        assert await stage.result(run, "next") == 3
    _, ctx = Recorder.made[0].got[0]
    assert (ctx.run_id, ctx.task, ctx.attempt) == (str(run), "task", 1)
    assert ctx.idempotency_key == f"{run}:task"
    assert ctx.event is not None
    assert ctx.event.data == {"x": 1}


async def test_one_instance_serves_all_tasks_and_is_closed_with_the_worker(stage: Stage) -> None:
    stage.workflow(recorded())
    async with stage.worker():
        runs = [await stage.start() for _ in range(20)]
        for run in runs:
            await stage.result(run)
        (kind,) = Recorder.made
        assert len(kind.got) == 20
        assert not kind.closed
    assert kind.closed


async def test_a_kind_that_does_not_close_does_not_keep_the_worker(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "CLOSE_SECONDS", 0.1)
    stage.workflow(recorded(words={"data": "stays open"}))
    async with stage.worker():
        await stage.ended(await stage.start())
        before = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - before < 1.5
    assert not Recorder.made[0].closed


async def test_what_holes_bring_is_checked_when_they_are_filled(stage: Stage) -> None:
    stage.workflow(recorded(words={"n": "${params.n}", "password": "${params.n}"}), params={"n": "string"})
    async with stage.worker():
        run = await stage.start(params={"n": "three"})
        await stage.ended(run)
        assert (await stage.row(run))["error"] == "record: 'n': input should be a valid integer"
    assert Recorder.made == []


async def test_failures_are_retried_with_the_same_idempotency_key(stage: Stage) -> None:
    stage.workflow(recorded(words={"do": "fail once"}, retry=Retry(attempts=2)))
    async with stage.worker():
        await stage.result(await stage.start())
    first, second = (ctx for _, ctx in Recorder.made[0].got)
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.idempotency_key == second.idempotency_key


async def test_a_timeout_cancels_and_so_does_the_end_of_the_worker(stage: Stage) -> None:
    stage.workflow(recorded(words={"do": "wait"}, timeout=timedelta(seconds=0.2)), name="limited")
    stage.workflow(recorded(words={"do": "wait"}), name="endless")
    async with stage.worker() as worker:
        run = await stage.start("limited")
        assert (await stage.ended(run))["error"] == "task 'task' failed: timed out after 0.2 s"
        (kind,) = Recorder.made
        assert kind.cancelled
        kind.cancelled = False
        kind.begun.clear()
        run = await stage.start("endless")
        await asyncio.to_thread(kind.begun.wait, 10)
        await worker.drain(timedelta(0))
        assert (await stage.row(run))["state"] == "ready"
    assert kind.cancelled
    assert kind.closed


@pytest.mark.parametrize("do", ["raise", "tell", "fail once"])
async def test_the_value_of_a_secret_reaches_the_kind_and_nothing_that_is_kept(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, do: str
) -> None:
    monkeypatch.setenv("STORE_PASSWORD", 's3cret "quoted"')
    stage.workflow(recorded(words={"do": do, "password": "${secret.STORE_PASSWORD}"}))
    async with stage.worker():
        run = await stage.start()
        await stage.ended(run)
        assert Recorder.made[0].got[0][0].password == 's3cret "quoted"'
        row = await stage.row(run)
        if do == "tell":
            assert await stage.result(run) == {"used": ["***"], "***": 1}
            assert "logging in with ***\n" in await stage.log(run)
        else:
            assert "***" in row["error"]
    async with stage.pool.acquire() as conn:
        for table in ("task_run", "run", "task_log", "dead_letter"):
            for row in await conn.fetch(f"SELECT * FROM {table}"):
                for kept in row.values():
                    assert b"s3cret" not in (kept if isinstance(kept, bytes) else str(kept).encode())


async def test_a_secret_that_is_not_set_fails_the_task_by_its_name(stage: Stage) -> None:
    stage.workflow(recorded(words={"password": "${secret.NOT_SET_ANYWHERE}"}))
    async with stage.worker():
        run = await stage.start()
        await stage.ended(run)
        assert "secret NOT_SET_ANYWHERE is not set; set NOT_SET_ANYWHERE" in (await stage.row(run))["error"]
