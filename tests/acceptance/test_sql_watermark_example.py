"""The watermark example in rules/, on a table that several sessions write to while the node is killed."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

from eventflow.event import decode_json
from eventflow.store.pool import Pool
from eventflow.testing.postgres import DatabaseServer
from tests.acceptance.serving import Place, fetch, until

EXAMPLE = Path(__file__).parents[2] / "rules"
WRITERS, ROWS = 4, 10_000


@pytest_asyncio.fixture(loop_scope="session")
async def orders(database_server: DatabaseServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The URL of a database with the table of the example."""
    async with database_server.empty_database() as url:
        monkeypatch.setenv("ORDERS_URL", url)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
            await conn.execute(
                "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, amount int)"
            )
        yield url


async def write(url: str, rows: int) -> None:
    """In transactions of 50 rows, which overlap those of other writers: numbers commit out of order."""
    async with await psycopg.AsyncConnection.connect(url) as conn:
        for _ in range(rows // 50):
            for _ in range(5):
                await conn.execute("INSERT INTO orders (amount) SELECT n FROM generate_series(1, 10) AS n")
                await asyncio.sleep(0.015)
            await conn.commit()


async def test_every_row_is_loaded_once_though_the_node_is_killed(
    tmp_path: Path, database: str, orders: str, pool: Pool
) -> None:
    place = Place(tmp_path / "place", database, (EXAMPLE / "sql_watermark.yaml").read_text())
    shutil.copy(EXAMPLE / "watermark_tasks.py", place.folder / "rules")
    shutil.copy(EXAMPLE / "sql_watermark.test.yaml", place.folder / "rules" / "rules.test.yaml")
    code, out, err = await place.command("test", "rules")
    assert code == 0, out + err

    async def told() -> int:
        rows = await fetch(pool, "SELECT data FROM event WHERE source = 'orders'")
        return sum(decode_json(row["data"])["new_rows"] for row in rows)

    async def some_told() -> bool:
        return await told() > 0

    async def all_loaded() -> bool:
        return await loaded() >= ROWS

    async def loaded() -> int:
        rows = await fetch(pool, "SELECT result FROM task_run WHERE state = 'succeeded'")
        return sum(decode_json(row["result"])["rows"] for row in rows)

    settings = {"EVENTFLOW_LEASE": "3s"}
    async with place.serve(settings=settings) as served:
        writers = [asyncio.ensure_future(write(orders, ROWS // WRITERS)) for _ in range(WRITERS)]
        await until(some_told)
        await served.kill()
        assert not all(writer.done() for writer in writers)
    async with place.serve(settings=settings):
        await asyncio.gather(*writers)
        await until(all_loaded)
    assert (await told(), await loaded()) == (ROWS, ROWS)
    ids = [row["id"].split("..") for row in await fetch(pool, "SELECT id FROM event ORDER BY ingested, uid")]
    assert [first for first, _ in ids[1:]] == [last for _, last in ids[:-1]]
    assert ids[0][0] == ""
