"""Event to commit, at a low rate, of the sources that no other group times: row changes, ticks, new rows.

From the row's own COMMIT, or the time that a tick is due, to the moment at which another session sees the
event. The watermark looks once a second, and each row comes just after a look: that much is waiting.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Final, LiteralString

from bench.figure import Figure
from bench.serving import serve
from connectors.postgres_cdc import PostgresCdcSource
from connectors.postgres_cdc.config import PostgresCdcConfig, TableConfig
from eventflow.store.pool import Connection, connect_once
from eventflow.testing.reading import Core

CHANGES: Final = 200
GROWN: Final = 8
TICKS: Final = 8
RULES: Final = """
sources:
  shop: {connector: postgres_cdc, url: "${secret.SHOP}", tables: [public.orders]}
  grown:
    {connector: sql_watermark, url: "${secret.SHOP}", table: public.lines, column: id, initial: latest,
     every: 1s}
  clock: {connector: schedule, every: 1s}
rules:
  never: {from: shop, match: {type: row.deleted}, emit: bench.never}
"""


async def figures(url: str) -> list[Figure]:
    """Medians, one source after the other."""
    conn = await connect_once(url)
    await conn.execute("CREATE DATABASE shop")
    shop_url = url.replace(f"/{await conn.fetchval('SELECT current_database()')}?", "/shop?")
    shop = await connect_once(shop_url)
    try:
        await shop.execute(
            "CREATE TABLE public.orders (id int PRIMARY KEY); CREATE TABLE public.lines (id int PRIMARY KEY)"
        )
        await _prepare(shop_url)
        async with serve(url, {"sources.yaml": RULES}, {"SHOP": shop_url}):
            changes = await _inserted(conn, shop, "shop", "INSERT INTO public.orders VALUES ($1)", CHANGES)
            grown = await _inserted(conn, shop, "grown", "INSERT INTO public.lines VALUES ($1)", GROWN)
            ticks = await _ticked(conn)
    finally:
        await shop.close()
        await conn.close()
    found = {"cdc": changes, "sql_watermark": grown, "schedule": ticks}
    return [Figure(f"{name}_event_to_commit_p50", ms, "ms", None, ms) for name, ms in found.items()]


async def _prepare(url: str) -> None:
    """Publication and slot, as `sources setup` makes them."""
    config = PostgresCdcConfig(url=url, tables=[TableConfig(table="public.orders")])
    with tempfile.TemporaryDirectory() as folder:
        await PostgresCdcSource("shop", config, Core(Path(folder)).context()).prepare()


_COUNT: Final = "SELECT count(*) FROM event WHERE source = $1"


async def _inserted(
    conn: Connection, shop: Connection, source: str, insert: LiteralString, count: int
) -> float:
    """One row after the other; the first ones are repeated until the source is read."""
    number = seen = 0
    while not seen:
        number += 1
        await shop.execute(insert, number)
        await asyncio.sleep(0.1)
        seen = await conn.fetchval(_COUNT, source)
    await asyncio.sleep(2)  # whatever was on its way is over
    found = list[float]()
    for _ in range(count):
        number, before = number + 1, await conn.fetchval(_COUNT, source)
        await shop.execute(insert, number)
        began = time.perf_counter()
        async with asyncio.timeout(30):
            while await conn.fetchval(_COUNT, source) == before:
                await asyncio.sleep(0)
        found.append((time.perf_counter() - began) * 1000)
    return sorted(found)[count // 2]


_LAST: Final = """
SELECT count(*), (extract(epoch FROM clock_timestamp() - max(id)::timestamptz) * 1000)::float8
  FROM event
 WHERE source = 'clock'
"""


async def _ticked(conn: Connection) -> float:
    """From the time that a tick bears to its being seen."""
    row = await conn.fetchrow(_LAST)
    assert row is not None
    count, found = row[0], list[float]()
    async with asyncio.timeout(60):
        while len(found) < TICKS:
            await asyncio.sleep(0.001)
            row = await conn.fetchrow(_LAST)
            assert row is not None
            if row[0] > count:
                count = row[0]
                found.append(row[1])
    return sorted(found)[TICKS // 2]
