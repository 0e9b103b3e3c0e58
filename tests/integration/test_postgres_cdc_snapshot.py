"""`snapshot: initial` joined to the stream: neither gap nor double, wherever it is interrupted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from connectors.postgres_cdc import snapshot
from eventflow.event import Record
from eventflow.testing.reading import Core
from tests.integration.cdc_shop import Shop, events, folded, opened

ORDERS = "CREATE TABLE public.orders (id int PRIMARY KEY, state text)"


@pytest_asyncio.fixture(loop_scope="session")
async def shop(empty_database: str, tmp_path: Path) -> AsyncIterator[Shop]:
    async with opened(empty_database, tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small table has many places to stop at."""
    monkeypatch.setattr(snapshot, "BATCH_ROWS", 7)
    monkeypatch.setattr(snapshot, "_FIRST_ROWS", 7)


async def rows(shop: Shop, table: str = "orders") -> dict[Any, Any]:
    found = await shop.conn.fetch(f"SELECT * FROM public.{table}")
    return {row["id"]: dict(row) for row in found}


async def finish(shop: Shop) -> list[Record]:
    """Everything that was taken in, once a change has come by the stream that was made last."""
    async with shop.reading() as reading:
        for n in range(2):  # the first may be read with the table
            await shop.run(f"INSERT INTO public.last_one VALUES ({n})")
            while not (last := [r for r in events(shop.core.taken) if r.subject == "public.last_one"][n:]):
                await reading.take(1)
            if last[0].type == "row.inserted":
                break
    return [r for r in events(shop.core.taken) if r.subject != "public.last_one"]


async def begin(shop: Shop, *statements: str, tables: list[str] | None = None) -> None:
    await shop.begin(
        *statements, "CREATE TABLE public.last_one (id int PRIMARY KEY)",
        tables=[*(tables or ["public.orders"]), "public.last_one"], snapshot="initial",
    )  # fmt: skip


async def test_what_is_there_is_read_once_and_then_the_stream_goes_on(shop: Shop) -> None:
    await begin(shop, ORDERS, "INSERT INTO public.orders SELECT n, 'old' FROM generate_series(1, 20) AS n")
    await shop.run("INSERT INTO public.orders VALUES (21, 'between slot and snapshot')")
    await shop.take(21)
    await shop.run("UPDATE public.orders SET state = 'new' WHERE id = 3")
    taken = events(await finish(shop))
    assert [event.type for event in taken] == ["row.read"] * 21 + ["row.updated"]
    assert taken[0].id.split("/")[2:] == ["public.orders", "1"]
    assert taken[0].data["source"]["snapshot"] == "true"
    assert folded(taken) == await rows(shop)
    assert "snapshot" not in shop.core.cursor(shop.slot)


async def test_a_restart_after_the_snapshot_reads_nothing_again(shop: Shop) -> None:
    await begin(shop, ORDERS, "INSERT INTO public.orders VALUES (1, 'a')")
    await shop.take(1)
    await shop.run("INSERT INTO public.orders VALUES (2, 'b')")
    assert [event.type for event in await shop.take(1)] == ["row.inserted"]


async def test_an_empty_table_has_nothing_to_read(shop: Shop) -> None:
    await begin(shop, ORDERS)
    assert await finish(shop) == []


@pytest.mark.parametrize("seed", range(4))
async def test_c9_interrupted_anywhere_and_changed_meanwhile_the_events_give_the_table(
    shop: Shop, seed: int
) -> None:
    """Rows come, change, change their keys and go between any two batches, many of which are lost."""
    rng = random.Random(seed)
    key = ["int", "text", "text", "int"][seed]
    shop.words["snapshot"] = "initial"
    await begin(
        shop, f"CREATE TABLE public.orders (id {key} PRIMARY KEY, state text)",
        "INSERT INTO public.orders SELECT 2 * n, 'old' FROM generate_series(1, 60) AS n",
        *(["ALTER TABLE public.orders REPLICA IDENTITY FULL"] if seed % 2 else []),
    )  # fmt: skip
    for _ in range(15):
        for _ in range(rng.randrange(4)):
            await change(shop, rng, key)
        async with shop.reading() as reading:
            for _ in range(rng.randrange(3)):
                await change(shop, rng, key)
                try:
                    async with asyncio.timeout(0.3):
                        partition, batch = await reading.next()
                except TimeoutError:  # everything has been read
                    break
                await change(shop, rng, key)
                if rng.random() < 0.7:
                    await reading.commit(partition, batch)
                else:
                    break
    taken = await finish(shop)
    assert folded(taken) == await rows(shop)
    assert len({event.id for event in events(taken)}) == len(taken)


async def change(shop: Shop, rng: random.Random, key: str) -> None:
    def one() -> str:
        n = rng.randrange(1, 130)
        return f"'{n}'" if key == "text" else str(n)

    statement = rng.choice([
        f"INSERT INTO public.orders VALUES ({one()}, 'came') ON CONFLICT DO NOTHING",
        f"UPDATE public.orders SET state = 'changed' WHERE id = {one()}",
        f"DELETE FROM public.orders WHERE id = {one()}",
        f"UPDATE public.orders AS o SET id = k FROM (SELECT {one()}::{key} AS k) AS t WHERE o.id = {one()}"
        " AND NOT EXISTS (SELECT FROM public.orders AS p WHERE p.id = k)",
    ])  # fmt: skip
    await shop.run(statement)


async def test_c9_a_table_that_is_emptied_in_the_middle_is_read_from_its_beginning(shop: Shop) -> None:
    await begin(shop, ORDERS, "INSERT INTO public.orders SELECT n, 'old' FROM generate_series(1, 20) AS n")
    await shop.take(7)
    await shop.run("TRUNCATE public.orders", "INSERT INTO public.orders VALUES (2, 'new'), (30, 'new')")
    taken = events(await finish(shop))
    assert [event.type for event in taken[7:]] == ["table.truncated", "row.read", "row.read"]
    assert folded(taken) == await rows(shop)


async def test_c9_a_table_without_a_key_that_was_interrupted_is_read_again(shop: Shop) -> None:
    await begin(
        shop, "CREATE TABLE public.orders (id int, state text)",
        "INSERT INTO public.orders SELECT n, 'old' FROM generate_series(1, 20) AS n",
    )  # fmt: skip
    await shop.take(7)
    taken = events(await finish(shop))
    assert [event.type for event in taken] == ["row.read"] * 7 + ["table.truncated"] + ["row.read"] * 20
    assert folded(taken) == await rows(shop)


async def test_several_tables_with_keys_of_several_columns_and_filters(shop: Shop) -> None:
    await begin(
        shop, ORDERS,
        "CREATE TABLE public.items (order_id int, id text, n int, PRIMARY KEY (order_id, id))",
        "INSERT INTO public.orders VALUES (1, 'a')",
        "INSERT INTO public.items SELECT n / 3, 'é' || n, n FROM generate_series(1, 20) AS n",
        tables=["public.orders", "public.items"],
    )  # fmt: skip
    for _ in range(4):
        async with shop.reading() as reading:
            partition, batch = await reading.next()
            await reading.commit(partition, batch)
    taken = events(await finish(shop))
    assert sorted(e.data["after"]["n"] for e in taken if e.subject == "public.items") == list(range(1, 21))
    assert len(taken) == 21
    assert isinstance(shop.core, Core)
