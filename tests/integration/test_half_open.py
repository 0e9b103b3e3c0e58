"""A network that swallows what is said, and tells nobody: work goes on over new connections."""

from __future__ import annotations

import asyncio
import errno
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

import pytest
import pytest_asyncio

from eventflow.event import new_uid
from eventflow.store import signals
from eventflow.store.failures import is_disconnect
from eventflow.store.pool import connect, connect_once
from eventflow.store.signals import Signals
from tests.integration.conftest import Stage, task

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter

    from eventflow.store.pool import Pool

SOCKET = ".s.PGSQL.5432"
PATIENCE = timedelta(seconds=1)


class Swallower:
    """A proxy that from one moment on drops all that comes over the connections it has; new ones work."""

    def __init__(self, database: str) -> None:
        at = urlsplit(database)
        self._postgres = Path(parse_qs(at.query)["host"][0], SOCKET)
        self.folder = Path(tempfile.mkdtemp(prefix="efs-"))
        self.url = at._replace(query=f"host={quote(str(self.folder), safe='')}").geturl()
        self._generation = 0
        self._pumps: set[asyncio.Task[None]] = set()

    def swallow(self) -> None:
        self._generation += 1

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(str(self._postgres))
        for source, target in ((reader, server_writer), (server_reader, writer)):
            pump = asyncio.ensure_future(self._pump(source, target, self._generation))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: StreamReader, target: StreamWriter, generation: int) -> None:
        try:
            while piece := await source.read(65536):
                if generation == self._generation:
                    target.write(piece)
        finally:
            target.close()
            with suppress(OSError):
                await target.wait_closed()

    async def close(self, server: asyncio.Server) -> None:
        server.close()
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        shutil.rmtree(self.folder)


@pytest_asyncio.fixture(loop_scope="session")
async def network(database: str) -> AsyncIterator[Swallower]:
    network = Swallower(database)
    server = await asyncio.start_unix_server(network.serve, network.folder / SOCKET)
    yield network
    await network.close(server)


async def swallowed(pool: Pool, network: Swallower) -> None:
    async with pool.acquire() as conn, conn.transaction():
        network.swallow()
        await conn.execute("SELECT 1")


async def test_a_statement_without_an_answer_counts_as_a_lost_connection(network: Swallower) -> None:
    async with await connect(network.url, patience=PATIENCE) as pool:
        working = asyncio.ensure_future(swallowed(pool, network))
        await asyncio.wait([working], timeout=5)
        assert working.done()
        assert is_disconnect(working.exception() or Exception())
        async with pool.acquire() as conn:
            assert await conn.fetchval("SELECT 1") == 1


async def test_a_cancelled_statement_without_an_answer_lets_go(network: Swallower) -> None:
    async with await connect(network.url, patience=PATIENCE) as pool:
        working = asyncio.ensure_future(swallowed(pool, network))
        await asyncio.sleep(0.2)
        working.cancel()
        await asyncio.wait([working], timeout=5)
        assert working.done()
        with suppress(asyncio.CancelledError, Exception):
            await working


async def test_a_worker_goes_on(network: Swallower, stage: Stage, tmp_path: Path) -> None:
    stage.code("async def f():\n    return 1\n")
    stage.workflow(task("task", "jobs:f"))
    async with await connect(network.url, patience=PATIENCE) as swallowed_pool:
        over_there = Stage(swallowed_pool, tmp_path)
        over_there.workflows = stage.workflows
        async with over_there.worker(lease=3):
            assert await stage.result(await stage.start()) == 1
            network.swallow()
            async with asyncio.timeout(8):
                assert await stage.result(await stage.start()) == 1


async def test_whoever_only_listens_notices(network: Swallower, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "PROOF_SECONDS", 0.2, raising=False)
    conn = await connect_once(network.url, patience=PATIENCE)
    listening = asyncio.ensure_future(Signals(str(new_uid())).run(conn))
    await asyncio.sleep(0.5)
    network.swallow()
    await asyncio.wait([listening], timeout=5)
    assert listening.done()
    assert is_disconnect(listening.exception() or Exception())


async def test_no_socket_is_a_lost_connection_and_a_full_disk_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError) as caught:
        await connect_once(f"postgresql://eventflow@/postgres?host={quote(str(tmp_path), safe='')}")
    assert is_disconnect(caught.value)
    assert not is_disconnect(OSError(errno.ENOSPC, "No space left on device"))
