"""Changes of three tables while eventflow and the tables' own Postgres are killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from eventflow.embedded import Embedded
from eventflow.event import decode_json
from eventflow.store.pool import Pool, connect_once
from tests.acceptance.serving import Place, fetch, until
from tests.integration.cdc_shop import opened

RULES = """
sources:
  shop:
    connector: postgres_cdc
    url: ${secret.SHOP_URL}
    tables: [public.a, public.b, public.c]
rules: {}
"""
TABLES = ("a", "b", "c")
TRANSACTIONS = 250
FAULTS = 3
Said = tuple[str, str, Any, Any]


class Writer:
    """The only one who writes. `history` is what it knows to be committed, in that order.

    Each transaction also raises the number of public.written, which no source reads: after a lost
    connection it tells whether the last one did commit.
    """

    def __init__(self, url: str, seed: int) -> None:
        self.url = url
        self.history: list[Said] = []
        self.number = 0
        self._rng = random.Random(seed)
        self._rows: dict[str, dict[int, int]] = {table: {} for table in TABLES}

    async def run(self) -> None:
        while self.number < TRANSACTIONS:
            with contextlib.suppress(psycopg.Error):
                await self._session()
            await asyncio.sleep(0.05)

    async def _session(self) -> None:
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as conn:
            row = await (await conn.execute("SELECT n FROM public.written")).fetchone()
            assert row is not None
            self._settle(row[0])
            while self.number < TRANSACTIONS:
                statements, self._said, self._after = self._transaction()
                statements.append(f"UPDATE public.written SET n = {self.number + 1}")
                await conn.execute(f"BEGIN; {'; '.join(statements)}; COMMIT")  # type: ignore[arg-type]
                self._settle(self.number + 1)
                await asyncio.sleep(0.005)

    def _settle(self, written: int) -> None:
        if written == self.number + 1:
            self.number = written
            self.history += self._said
            self._rows = self._after

    def _transaction(self) -> tuple[list[str], list[Said], dict[str, dict[int, int]]]:
        statements, said = list[str](), list[Said]()
        rows = {table: dict(held) for table, held in self._rows.items()}
        for _ in range(self._rng.randrange(1, 6)):
            table = self._rng.choice(TABLES)
            held, n, value = rows[table], self._rng.randrange(30), self._rng.randrange(1000)
            if n not in held:
                statements.append(f"INSERT INTO public.{table} VALUES ({n}, {value})")
                said.append(("row.inserted", table, None, {"id": n, "v": value}))
                held[n] = value
            elif self._rng.random() < 0.6:
                statements.append(f"UPDATE public.{table} SET v = {value} WHERE id = {n}")
                said.append(("row.updated", table, None, {"id": n, "v": value}))
                held[n] = value
            else:
                statements.append(f"DELETE FROM public.{table} WHERE id = {n}")
                said.append(("row.deleted", table, {"id": n}, None))
                del held[n]
        return statements, said, rows


@pytest.mark.parametrize("seed", [1])
async def test_what_is_taken_in_is_the_history_in_commit_order(
    tmp_path: Path, database: str, pool: Pool, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    async with Embedded(tmp_path / "shop") as server:
        monkeypatch.setenv("SHOP_URL", server.url)
        conn = await connect_once(server.url)
        for table in TABLES:
            await conn.execute(f"CREATE TABLE public.{table} (id int PRIMARY KEY, v int)")  # type: ignore[arg-type]
        await conn.execute("CREATE TABLE public.written AS SELECT 0 AS n")
        await conn.close()
        async with opened(server.url, tmp_path) as shop:
            shop.slot = "eventflow_shop"
            await shop.begin(tables=[f"public.{table}" for table in TABLES])
            shop.slot = "none"  # it goes with its server
        place = Place(tmp_path / "place", database, RULES)
        writer = Writer(server.url, seed)
        writing = asyncio.ensure_future(writer.run())

        async def taken() -> list[Said]:
            query = "SELECT type, data FROM event WHERE source = 'shop' ORDER BY ingested, uid"
            rows = await fetch(pool, query)
            return [(row["type"], (d := decode_json(row["data"]))["source"]["table"], d["before"], d["after"])
                    for row in rows]  # fmt: skip

        async def caught_up() -> bool:
            return writing.done() and len(await taken()) >= len(writer.history)

        settings = {"EVENTFLOW_LEASE": "2s"}
        for _ in range(FAULTS):
            async with place.serve(settings=settings) as served:
                mark = len(await taken())
                until_moved = lambda mark=mark: _more(taken, mark, writing)  # noqa: E731
                await until(until_moved)
                postmaster = int((tmp_path / "shop/postgres/postmaster.pid").read_text().split("\n", 1)[0])
                if rng.random() < 0.7:
                    os.kill(postmaster, signal.SIGKILL)
                if rng.random() < 0.7:
                    await served.kill()
                await server.ensure_running()
        async with place.serve(settings=settings):
            await until(caught_up)
        await writing
        assert await taken() == writer.history


async def _more(taken: Any, mark: int, writing: asyncio.Future[None]) -> bool:
    return writing.done() or len(await taken()) > mark
