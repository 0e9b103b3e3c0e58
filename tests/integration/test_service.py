"""The composition root: what a node does when Postgres goes away at the wrong moment."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from eventflow import service
from eventflow.event import new_uid
from eventflow.service import Service, Watcher
from eventflow.settings import Settings
from eventflow.store import rulesets
from eventflow.store.pool import DISCONNECTED, Connection, Pool, connect, connect_once
from eventflow.store.signals import Signals

RULE = "rules: {r: {match: {type: t}, emit: u}}"


class Away:
    """A pool whose first sessions cannot be had."""

    def __init__(self, pool: Pool, times: int) -> None:
        self._pool = pool
        self.times = times

    @asynccontextmanager
    async def acquire(self, *, timeout: float | None = None) -> AsyncIterator[Connection]:
        self.times -= 1
        if self.times >= 0:
            raise ConnectionRefusedError
        async with self._pool.acquire(timeout=timeout) as conn:
            yield conn


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "POLL_SECONDS", 0.01)


@pytest.mark.usefixtures("quick")
async def test_an_edit_saved_while_postgres_is_away_is_applied_when_it_is_back(
    pool: Pool, tmp_path: Path
) -> None:
    (tmp_path / "r.yaml").write_text(RULE)
    away: Any = Away(pool, times=1)
    watcher = Watcher(tmp_path, away, Signals("n"))
    await watcher.run()
    with pytest.raises(ConnectionRefusedError):
        await watcher.run()
    await watcher.run()
    async with pool.acquire() as conn:
        assert await rulesets.current_revision(conn) == 1


@pytest.mark.usefixtures("quick")
async def test_a_set_that_does_not_load_is_refused_once(
    pool: Pool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watcher = Watcher(tmp_path / "gone", pool, Signals("n"))
    for _ in range(3):
        await watcher.run()
    assert capsys.readouterr().out.count("ruleset_refused") == 1


def serving(pool: Pool, url: str, tmp_path: Path) -> Service:
    settings = Settings(
        database_url="postgresql:///", data=tmp_path, http="127.0.0.1:0", lease=timedelta(seconds=6),
        grace=timedelta(seconds=1),
    )  # fmt: skip
    return Service(settings, url, pool, new_uid(), None)


async def test_stopping_ends_although_postgres_hangs(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "OVERDUE_SECONDS", 0.5)
    async with await connect(database) as onlooker, await connect(database) as pool:
        stop = asyncio.Event()
        served = serving(pool, database, tmp_path)
        running = asyncio.create_task(served.run(None, stop))
        while not served._app.ready:
            await asyncio.sleep(0.01)
        async with onlooker.acquire() as conn:
            mine = await conn.fetch(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name LIKE 'eventflow%' AND pid <> pg_backend_pid()"
            )
        backends = [row["pid"] for row in mine]
        codes: list[int] = []

        def go_on(code: int) -> None:
            codes.append(code)
            for backend in backends:
                os.kill(backend, signal.SIGCONT)

        monkeypatch.setattr(service.os, "_exit", go_on)
        for backend in backends:
            os.kill(backend, signal.SIGSTOP)
        stop.set()
        async with asyncio.timeout(20):
            await running
        assert codes == [0]


async def test_stopping_without_postgres_is_no_failure(pool: Pool, database: str, tmp_path: Path) -> None:
    served = serving(pool, database, tmp_path)
    served._pool = Away(pool, times=1)  # type: ignore[assignment]
    await served._leave()


async def test_a_listener_notices_the_end_of_its_connection(pool: Pool, database: str) -> None:
    conn = await connect_once(database)
    listening = asyncio.create_task(Signals("n").run(conn))
    async with asyncio.timeout(10), pool.acquire() as other:
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND pid = $1"
        while not await other.fetchval(end, conn.get_server_pid()):
            await asyncio.sleep(0.01)
        with pytest.raises(DISCONNECTED):
            await listening
