"""What the changes of tables look like as events, over a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from eventflow.event import Broken, Event
from eventflow.store.pool import connect_once
from eventflow.testing.postgres import DatabaseServer
from eventflow.testing.reading import Core
from tests.integration.cdc_shop import Shop, database_of, events, opened, said

ORDERS = "CREATE TABLE public.orders (id int PRIMARY KEY, state text)"


@pytest_asyncio.fixture(loop_scope="session")
async def shop(empty_database: str, tmp_path: Path) -> AsyncIterator[Shop]:
    async with opened(empty_database, tmp_path) as made:
        yield made


async def test_insert_update_key_change_and_delete(shop: Shop) -> None:
    await shop.begin(ORDERS)
    await shop.run(
        "INSERT INTO public.orders VALUES (1, 'new'), (2, NULL)",
        "UPDATE public.orders SET state = 'paid' WHERE id = 1",
        "UPDATE public.orders SET id = 3 WHERE id = 1",
        "DELETE FROM public.orders WHERE id = 2",
    )
    taken = await shop.take(5)
    assert [said(event) for event in taken] == [
        ("row.inserted", None, {"id": 1, "state": "new"}),
        ("row.inserted", None, {"id": 2, "state": None}),
        ("row.updated", None, {"id": 1, "state": "paid"}),
        ("row.updated", {"id": 1}, {"id": 3, "state": "paid"}),
        ("row.deleted", {"id": 2}, None),
    ]
    first, second, third = taken[:3]
    assert first.subject == "public.orders"
    assert first.meta == second.meta
    assert first.id == f"{first.meta['lsn']}/1"
    assert second.id == f"{first.meta['lsn']}/2"
    assert third.id == f"{third.meta['lsn']}/1"
    assert first.data["source"]["txId"] == first.meta["xid"]
    assert first.data["source"] | {"lsn": 0, "ts_ms": 0, "txId": 0} == {
        "connector": "postgresql", "name": "shop", "db": database_of(shop.url),
        "schema": "public", "table": "orders", "snapshot": "false", "lsn": 0, "ts_ms": 0, "txId": 0,
    }  # fmt: skip
    assert first.time is not None
    assert first.data["ts_ms"] == int(first.time.timestamp() * 1000)


async def test_c10_each_replica_identity_delivers_what_it_can_and_check_says_what_not(shop: Shop) -> None:
    await shop.begin(
        "CREATE TABLE public.plain (id int PRIMARY KEY, a text)",
        "CREATE TABLE public.whole (id int PRIMARY KEY, a text)",
        "CREATE TABLE public.indexed (id int PRIMARY KEY, code text NOT NULL UNIQUE, a text)",
        "CREATE TABLE public.keyless (a text)",
        "ALTER TABLE public.whole REPLICA IDENTITY FULL",
        "ALTER TABLE public.indexed REPLICA IDENTITY USING INDEX indexed_code_key",
        tables=["public.plain", "public.whole", "public.indexed", "public.keyless"],
    )
    await shop.run(
        "INSERT INTO public.plain VALUES (1, 'x'); UPDATE public.plain SET a = 'y'; DELETE FROM public.plain",
        "INSERT INTO public.whole VALUES (1, 'x'); UPDATE public.whole SET a = 'y'; DELETE FROM public.whole",
        "INSERT INTO public.indexed VALUES (1, 'c', 'x'); UPDATE public.indexed SET code = 'd';"
        "DELETE FROM public.indexed",
        "INSERT INTO public.keyless VALUES ('x'); UPDATE public.keyless SET a = 'y';"
        "DELETE FROM public.keyless",
    )
    befores = [event.data["before"] for event in await shop.take(12)]
    assert befores == [
        None, None, {"id": 1},
        None, {"id": 1, "a": "x"}, {"id": 1, "a": "y"},
        None, {"code": "c"}, {"code": "d"},
        None, {"a": "x"}, {"a": "y"},
    ]  # fmt: skip
    await shop.run("ALTER TABLE public.keyless REPLICA IDENTITY NOTHING")
    warnings = await shop.source().examine()
    assert any(w.startswith("table public.plain") and "its key only (id)" in w for w in warnings)
    assert any(w.startswith("table public.indexed") and "(code)" in w for w in warnings)
    assert any(w.startswith("table public.keyless") and "refuses UPDATE and DELETE" in w for w in warnings)
    assert not any(w.startswith("table public.whole") for w in warnings)


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
async def test_c5_an_unchanged_toast_value_is_absent_and_listed_and_is_not_null(
    shop: Shop, identity: str
) -> None:
    await shop.begin(
        "CREATE TABLE public.orders (id int PRIMARY KEY, note text, doc text)",
        "ALTER TABLE public.orders ALTER COLUMN doc SET STORAGE EXTERNAL",
        f"ALTER TABLE public.orders REPLICA IDENTITY {identity}",
    )
    await shop.run(
        "INSERT INTO public.orders VALUES (1, 'a', repeat('x', 20000))",
        "UPDATE public.orders SET note = 'b'",
        "UPDATE public.orders SET doc = NULL",
    )
    inserted, kept, emptied = await shop.take(3)
    assert "unchanged" not in inserted.data
    assert kept.data["after"] == {"id": 1, "note": "b"}
    assert kept.data["unchanged"] == ["doc"]
    assert emptied.data["after"] == {"id": 1, "note": "b", "doc": None}
    if identity == "FULL":
        assert kept.data["before"] == {"id": 1, "note": "a", "doc": "x" * 20000}


async def test_c6_columns_that_come_go_and_are_renamed_in_mid_stream(shop: Shop) -> None:
    await shop.begin(ORDERS)
    async with shop.reading() as reading:
        for n in range(3):
            await shop.run(
                f"INSERT INTO public.orders VALUES ({3 * n}, 'a')",
                "ALTER TABLE public.orders ADD COLUMN extra int DEFAULT 7",
                f"INSERT INTO public.orders VALUES ({3 * n + 1}, 'b')",
                "ALTER TABLE public.orders RENAME COLUMN extra TO other",
                f"INSERT INTO public.orders VALUES ({3 * n + 2}, 'c', 8)",
                "ALTER TABLE public.orders DROP COLUMN other",
            )
            taken = events(await reading.take(3))
            assert [event.data["after"] for event in taken] == [
                {"id": 3 * n, "state": "a"},
                {"id": 3 * n + 1, "state": "b", "extra": 7},
                {"id": 3 * n + 2, "state": "c", "other": 8},
            ]


async def test_c11_a_truncate_is_one_event_for_each_table(shop: Shop) -> None:
    await shop.begin(
        ORDERS,
        "CREATE TABLE public.items (id int PRIMARY KEY)",
        "CREATE TABLE public.unwatched (id int PRIMARY KEY)",
        tables=["public.orders", "public.items"],
    )
    await shop.run("TRUNCATE public.orders, public.items, public.unwatched")
    taken = await shop.take(2)
    assert {(event.type, event.subject) for event in taken} == {
        ("table.truncated", "public.orders"),
        ("table.truncated", "public.items"),
    }
    assert [event.id.rsplit("/", 1)[1] for event in taken] == ["1", "2"]
    assert {event.data["op"] for event in taken} == {"t"}


async def test_values_are_typed_as_their_columns_are(shop: Shop) -> None:
    await shop.begin(
        "CREATE TYPE public.mood AS ENUM ('calm')",
        """CREATE TABLE public.orders (
            id bigint PRIMARY KEY, small smallint, yes boolean, amount numeric(30, 4), much numeric,
            ratio float8, odd float4, doc jsonb, plain json, bits bytea, at timestamptz, local timestamp,
            day date, tag uuid,
            tags text[], grid int[][], mood public.mood, span interval, void text)""",
    )
    await shop.run(
        """INSERT INTO public.orders VALUES (
            9007199254740993, -1, true, 12.5, 12345678901234567890.123, 0.1, 'NaN', '{"a": [1, null]}',
            '[1.50]',
            '\\xdeadbeef', '2026-03-29 03:30:00.25+02', '2026-01-02 03:04:05', '2026-01-02',
            '6F9619FF-8B86-D011-B42D-00C04FC964FF', ARRAY['a,b', '"', NULL, 'NULL', ''], '{{1,2},{3,4}}',
            'calm', '1 day 2 hours', NULL)""",
        "INSERT INTO public.orders (id, at, much) VALUES (2, 'infinity', 'Infinity')",
    )
    first, second = await shop.take(2)
    assert first.data["after"] == {
        "id": 9007199254740993, "small": -1, "yes": True, "amount": 12.5, "much": "12345678901234567890.123",
        "ratio": 0.1, "odd": "NaN", "doc": {"a": [1, None]}, "plain": [1.5], "bits": "3q2+7w==",
        "at": "2026-03-29T01:30:00.25Z", "local": "2026-01-02T03:04:05", "day": "2026-01-02",
        "tag": "6f9619ff-8b86-d011-b42d-00c04fc964ff", "tags": ["a,b", '"', None, "NULL", ""],
        "grid": [[1, 2], [3, 4]], "mood": "calm", "span": "P1DT2H", "void": None,
    }  # fmt: skip
    assert (second.data["after"]["at"], second.data["after"]["much"]) == ("infinity", "Infinity")


async def test_rows_that_the_filter_does_not_take_are_no_events(shop: Shop) -> None:
    paid = {"table": "public.orders", "where": "state = 'paid'"}
    await shop.begin(ORDERS, "ALTER TABLE public.orders REPLICA IDENTITY FULL", tables=[paid])
    await shop.run(
        "INSERT INTO public.orders VALUES (1, 'new'), (2, 'paid')",
        "UPDATE public.orders SET state = 'paid' WHERE id = 1",
        "UPDATE public.orders SET state = 'sent' WHERE id = 2",
    )
    taken = await shop.take(3)
    assert [said(event) for event in taken] == [
        ("row.inserted", None, {"id": 2, "state": "paid"}),
        ("row.inserted", None, {"id": 1, "state": "paid"}),  # for us it begins to exist
        ("row.deleted", {"id": 2, "state": "paid"}, None),
    ]


async def test_rows_of_partitions_are_rows_of_their_table(shop: Shop) -> None:
    await shop.begin(
        "CREATE TABLE public.orders (id int PRIMARY KEY, state text) PARTITION BY RANGE (id)",
        "CREATE TABLE public.low PARTITION OF public.orders FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE public.high PARTITION OF public.orders FOR VALUES FROM (10) TO (20)",
    )
    await shop.run("INSERT INTO public.orders VALUES (1, 'a'), (11, 'b')")
    assert [event.subject for event in await shop.take(2)] == ["public.orders"] * 2


async def test_names_that_need_quotes_are_quoted(shop: Shop) -> None:
    await shop.begin(
        'CREATE SCHEMA "Sale Data"',
        'CREATE TABLE "Sale Data"."Order \'s" ("Id" int PRIMARY KEY, "a b" text)',
        tables=["Sale Data.Order 's"],
        snapshot="initial",
    )
    await shop.run("""INSERT INTO "Sale Data"."Order 's" VALUES (1, 'x')""")
    async with shop.reading() as reading:
        (read,) = events(await reading.take(1))
    assert (read.type, read.subject) == ("row.read", "Sale Data.Order 's")
    assert read.data["after"] == {"Id": 1, "a b": "x"}


async def test_text_that_is_no_utf_8_is_a_dead_letter_and_holds_up_nothing(
    database_server: DatabaseServer, empty_database: str, tmp_path: Path
) -> None:
    admin = await connect_once(empty_database)
    await admin.execute(
        "CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    url = empty_database.replace(f"/{database_of(empty_database)}?", "/ascii?")
    try:
        async with opened(url, tmp_path) as shop:
            await shop.begin(ORDERS)
            await shop.run(
                "INSERT INTO public.orders VALUES (1, 'a')",
                "INSERT INTO public.orders VALUES (2, E'caf\\xe9')",
                "INSERT INTO public.orders VALUES (3, 'b')",
            )
            async with shop.reading() as reading:
                first, broken, last = await reading.take(3)
            assert isinstance(broken, Broken)
            assert b"caf\xe9" in broken.raw
            assert "public.orders, column state" in broken.reason
            assert [event.data["after"]["id"] for event in events([first, last])] == [1, 3]
            again = shop.source().reread(broken.raw, broken.meta)
            assert isinstance(again, Broken)
            mended = shop.source().reread(broken.raw.replace(b"caf\xe9", b"cafe"), broken.meta)
            assert isinstance(mended, Event)
            assert mended.data["after"] == {"id": 2, "state": "cafe"}
    finally:
        await admin.execute("DROP DATABASE ascii WITH (FORCE)")
        await admin.close()


async def test_c7_a_transaction_larger_than_a_batch_goes_on_in_its_middle_after_a_restart(shop: Shop) -> None:
    await shop.begin(ORDERS)
    await shop.run(
        "INSERT INTO public.orders VALUES (0, 'before')",
        "INSERT INTO public.orders SELECT n, 'x' FROM generate_series(1, 9000) AS n",
        "INSERT INTO public.orders VALUES (9001, 'after')",
    )
    taken: list[object] = []
    while len(taken) < 9002:
        async with shop.reading() as reading:  # an instance for each batch: a crash after each commit
            partition, batch = await reading.next()
            assert len(batch.records) <= 4000
            await reading.commit(partition, batch)
            taken += batch.records
    assert [event.data["after"]["id"] for event in events(taken)] == list(range(9002))  # type: ignore[arg-type]
    assert len({event.id for event in events(taken)}) == 9002  # type: ignore[arg-type]


async def test_c1_a_slot_that_went_back_repeats_and_only_what_is_new_counts(shop: Shop) -> None:
    """The server hears of commits every ten seconds, so at a restart the slot stands far behind."""
    await shop.begin(ORDERS)
    for n in range(4):
        await shop.run(
            f"INSERT INTO public.orders VALUES ({3 * n}, 'x')",
            f"INSERT INTO public.orders VALUES ({3 * n + 1}, 'x'), ({3 * n + 2}, 'y')",
        )
        taken = await shop.take(3)
        await shop.settle()
        assert [event.data["after"]["id"] for event in taken] == [3 * n, 3 * n + 1, 3 * n + 2]
    confirmed = await shop.conn.fetchval(
        "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", shop.slot
    )
    assert confirmed != shop.core.cursor(shop.slot)["lsn"]
    shop.core = Core(Path())
    shop.core._cursors[shop.slot] = b'{"lsn": "%b", "n": 0, "timeline": 1}' % confirmed.encode()
    again = await shop.take(1)
    assert again[0].data["after"]["id"] > 0, "the slot follows what was committed"


async def test_closes_within_a_second_in_the_middle_of_a_large_transaction(shop: Shop) -> None:
    await shop.begin(ORDERS)
    await shop.run("INSERT INTO public.orders SELECT n, repeat('x', 100) FROM generate_series(1, 50000) AS n")
    before = asyncio.all_tasks()
    loop = asyncio.get_running_loop()
    async with shop.reading() as reading:
        await reading.next()
        closing = loop.time()
    assert loop.time() - closing < 1
    assert not asyncio.all_tasks() - before
