"""The file source through the real transaction: what is in Postgres after restarts and a change of owner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors.file import FileSource
from eventflow.context import context_of
from eventflow.errors import OwnershipLost
from eventflow.event import new_uid
from eventflow.ingest import Ingest
from eventflow.revisions import Revisions
from eventflow.rulefile.connectors import find_connectors
from eventflow.store import ownership, rulesets
from eventflow.store.pool import Pool
from eventflow.store.signals import Signals

LEASE = timedelta(seconds=30)
RULES = """
sources:
  landing: {connector: file, path: landing, initial: process, settle: {quiet: 100ms}}
workflows:
  load:
    params: {path: string}
    tasks: {load: {shell: ["true"]}}
rules:
  landed: {from: landing, match: {type: file.arrived}, run: load, with: {path: "${event.data.path}"}}
"""


class Node:
    """One node that reads the source `landing` of the rule set."""

    def __init__(self, pool: Pool, revisions: Revisions) -> None:
        self.id = new_uid()
        self.pool = pool
        self.ingest = Ingest(pool, LEASE, revisions, Signals(str(self.id)))
        spec = revisions.current.sources["landing"]
        self.source = FileSource(spec.name, spec.config, context_of(spec, pool))  # type: ignore[arg-type]

    async def claim(self) -> ownership.Claim | None:
        async with self.pool.acquire() as conn:
            return await ownership.claim(conn, "landing", "", self.id, LEASE, await self.source.origin())

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[asyncio.Task[None]]:
        claim = await self.claim()
        assert claim
        task = asyncio.create_task(self.ingest.run_partition(self.source, claim))
        try:
            yield task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, OwnershipLost):
                await task


@pytest.fixture
async def revisions(pool: Pool, tmp_path: Path) -> Revisions:
    (tmp_path / "landing").mkdir()
    async with pool.acquire() as conn:
        await rulesets.apply(
            conn, {"r.yaml": RULES.encode()}, folder=tmp_path, origin="test", code_version="0", take_over=True
        )
    revisions = Revisions(pool, find_connectors(), tmp_path / "code")
    await revisions.refresh()
    return revisions


async def ids(pool: Pool) -> list[str]:
    async with pool.acquire() as conn:
        rows: list[Any] = await conn.fetch("SELECT id FROM event WHERE source = 'landing' ORDER BY id")
    return [row["id"] for row in rows]


async def until(pool: Pool, count: int) -> None:
    async with asyncio.timeout(20):
        while len(await ids(pool)) < count:
            await asyncio.sleep(0.02)


def land(folder: Path, names: range) -> None:
    for number in names:
        beside = folder / f"beside-{number}"
        beside.write_bytes(b"%d" % number)
        beside.rename(folder / "landing" / f"{number:04}")


async def test_each_file_is_one_event_and_one_run_through_a_restart(
    pool: Pool, revisions: Revisions, tmp_path: Path
) -> None:
    land(tmp_path, range(300))
    async with Node(pool, revisions).reading():
        await until(pool, 1)  # and perhaps more: wherever the cancellation hits
    land(tmp_path, range(300, 600))
    again = Node(pool, revisions)
    async with pool.acquire() as conn:
        await conn.execute("UPDATE source_partition SET owner = NULL WHERE source = 'landing'")
    async with again.reading():
        await until(pool, 600)
    assert await ids(pool) == [f"{number:04}#1" for number in range(600)]
    async with pool.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM run") == 600
    outside = await again.source.outside()
    assert (outside.there, outside.unknown_count) == (600, 0)


async def test_only_the_owner_reads_and_who_lost_the_folder_writes_nothing(
    pool: Pool, revisions: Revisions, tmp_path: Path
) -> None:
    land(tmp_path, range(10))
    first, second = Node(pool, revisions), Node(pool, revisions)
    async with first.reading() as lost:
        await until(pool, 10)
        assert await second.claim() is None
        async with pool.acquire() as conn:
            await conn.execute("UPDATE source_partition SET lease_until = now() - interval '1 s'")
        async with second.reading():
            land(tmp_path, range(10, 20))
            await until(pool, 20)
            with pytest.raises(OwnershipLost):
                await asyncio.wait_for(lost, 20)
    assert await ids(pool) == [f"{number:04}#1" for number in range(20)]
