"""A transaction that is prepared for two-phase commit is still open, though no session holds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest_asyncio

from connectors.sql_watermark import SqlWatermarkSource
from connectors.sql_watermark.config import SqlWatermarkConfig
from eventflow.embedded import Embedded
from eventflow.event import Event
from eventflow.testing.reading import Core, Reading


@pytest_asyncio.fixture(loop_scope="session")
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """Of a server that allows them; none does by itself."""
    async with (
        Embedded(tmp_path) as server,
        await psycopg.AsyncConnection.connect(server.url, autocommit=True) as conn,
    ):
        await conn.execute("ALTER SYSTEM SET max_prepared_transactions = 5")
        await conn.execute("CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY, note text)")
    async with Embedded(tmp_path) as server:
        yield server.url


async def test_a_transaction_that_is_prepared_while_it_is_waited_for_is_waited_for(
    url: str, tmp_path: Path
) -> None:
    words = {"url": url, "table": "public.orders", "column": "id", "initial": "earliest", "every": "20ms"}
    core = Core(tmp_path)
    source = SqlWatermarkSource("orders", SqlWatermarkConfig.model_validate(words), core.context())

    async def held_back_by(name: str) -> None:
        async with asyncio.timeout(20):
            while True:
                told = await source.progress("", core.cursor(""))
                assert not asked.done(), "it did not wait"
                if name in (told.note or ""):
                    return
                await asyncio.sleep(0.02)

    async with (
        await psycopg.AsyncConnection.connect(url, autocommit=True) as conn,
        await psycopg.AsyncConnection.connect(url) as late,
        Reading(source, core) as reading,
    ):
        await late.execute("INSERT INTO orders (note) VALUES ('1, commits last')")
        await conn.execute("INSERT INTO orders (note) VALUES ('2')")
        asked = asyncio.ensure_future(reading.take(1))
        await held_back_by("waits for process")
        await late.execute("PREPARE TRANSACTION 'left over'")
        await held_back_by("waits for the prepared transaction 'left over'")
        await conn.execute("COMMIT PREPARED 'left over'")
        (event,) = await asked
    assert isinstance(event, Event)
    assert event.data == {"new_rows": 2, "from": None, "to": 2}
