"""Slots that are lost, made anew or read by others; servers that are gone, silent or not the same one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import ValidationError

from connectors.postgres_cdc import replication, session, stream
from connectors.postgres_cdc.replication import Walsender
from eventflow.embedded import Embedded
from eventflow.errors import SourceStopped, SourceUnavailable, UsageError
from eventflow.event import encode_json, new_uid
from eventflow.ingest import Ingest
from eventflow.revisions import Revisions
from eventflow.rulefile.connectors import find_connectors
from eventflow.store import ownership, rulesets
from eventflow.store.pool import connect
from eventflow.store.signals import Signals
from tests.integration.cdc_shop import Shop, events, opened

ORDERS = "CREATE TABLE public.orders (id int PRIMARY KEY, state text)"
PASSED = "SELECT confirmed_flush_lsn > $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1"
BEFORE = "SELECT confirmed_flush_lsn < $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1"


@pytest_asyncio.fixture(loop_scope="session")
async def shop(empty_database: str, tmp_path: Path) -> AsyncIterator[Shop]:
    async with opened(empty_database, tmp_path) as made:
        yield made


async def test_c2_a_lost_slot_stops_the_source_and_says_what_is_missing(shop: Shop) -> None:
    await shop.begin(ORDERS)
    await shop.run("INSERT INTO public.orders VALUES (1, 'a')")
    await shop.take(1)
    await shop.run("INSERT INTO public.orders VALUES (2, 'lost')")
    await shop.settle()
    await shop.run("ALTER SYSTEM SET idle_replication_slot_timeout = '1s'", "SELECT pg_reload_conf()")
    try:
        lost = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1"
        async with asyncio.timeout(20):
            while await shop.conn.fetchval(lost, shop.slot) != "lost":
                await shop.run("CHECKPOINT")
                await asyncio.sleep(0.05)
    finally:
        await shop.run("ALTER SYSTEM RESET idle_replication_slot_timeout", "SELECT pg_reload_conf()")
    with pytest.raises(SourceStopped, match="is lost") as stopped:
        await shop.take(1)
    assert stopped.value.missing["from"] == shop.core.cursor(shop.slot)["lsn"]
    assert stopped.value.missing["to"] in str(stopped.value)
    with pytest.raises(UsageError, match="make it first"):
        await shop.source().resume_at(shop.slot, shop.core.cursor(shop.slot), "earliest")
    assert await shop.source().prepare() == [
        f"SELECT pg_drop_replication_slot('{shop.slot}')",
        f"SELECT pg_create_logical_replication_slot('{shop.slot}', 'pgoutput')",
    ]


async def test_c3_a_slot_made_anew_stops_the_source_until_a_person_resumes_it(shop: Shop) -> None:
    await shop.begin(ORDERS)
    await shop.run("INSERT INTO public.orders VALUES (1, 'a')")
    await shop.take(1)
    await shop.drop_slot()
    with pytest.raises(SourceStopped, match="is not there"):
        await shop.take(1)
    await shop.run("INSERT INTO public.orders VALUES (2, 'missed')")
    await shop.source().prepare()
    await shop.run("INSERT INTO public.orders VALUES (3, 'c')")
    before = shop.core.cursor(shop.slot)
    with pytest.raises(SourceStopped, match="made anew"):
        await shop.take(1)
    with pytest.raises(SourceStopped, match="made anew") as stopped:  # a restart changes nothing
        await shop.take(1)
    resumed = await shop.source().resume_at(shop.slot, before, "earliest")
    assert resumed.missing == stopped.value.missing
    with pytest.raises(UsageError, match="is not between"):
        await shop.source().resume_at(shop.slot, before, before["lsn"])
    with pytest.raises(UsageError, match="no log sequence number"):
        await shop.source().resume_at(shop.slot, before, "tomorrow")
    latest = await shop.source().resume_at(shop.slot, before, "latest")
    assert latest.missing["to"] > resumed.missing["to"]
    shop.core._cursors[shop.slot] = encode_json(resumed.cursor)
    assert [event.data["after"]["id"] for event in await shop.take(1)] == [3]


async def test_without_slot_or_table_it_waits_and_says_what_to_run(shop: Shop) -> None:
    with pytest.raises(SourceUnavailable, match=r"no table public\.orders"):
        await shop.take(1)
    await shop.run(ORDERS)
    with pytest.raises(SourceUnavailable, match="sources setup shop"):
        await shop.take(1)
    statements = await shop.source().preparation()
    assert [statement.split(" WITH")[0] for statement in statements[::2]] == [
        'CREATE PUBLICATION "eventflow_shop" FOR TABLE "public"."orders"',
        f"SELECT pg_create_logical_replication_slot('{shop.slot}', 'pgoutput')",
    ]
    await shop.source().prepare()
    assert await shop.source().preparation() == []
    paid = [{"table": "public.orders", "where": "id > 5"}]
    with pytest.raises(SourceUnavailable, match="does not fit"):
        async with shop.reading(tables=paid) as reading:
            await reading.next()
    await shop.source(tables=paid).prepare()
    assert await shop.source(tables=paid).preparation() == []


async def test_c4_while_others_are_busy_the_position_moves_and_the_slot_follows(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(replication, "STATUS_SECONDS", 0.05)
    await shop.begin(ORDERS, "CREATE TABLE public.others (n int)")
    async with shop.reading() as reading:
        asking = asyncio.ensure_future(reading.next())
        for _ in range(3):
            start = await shop.conn.fetchval("SELECT pg_current_wal_insert_lsn()::text")
            await shop.run("INSERT INTO public.others SELECT generate_series(1, 1000)")
            async with asyncio.timeout(20):
                while not await shop.conn.fetchval(PASSED, shop.slot, start):
                    await asyncio.sleep(0.02)
        await shop.run("INSERT INTO public.orders VALUES (1, 'a')")
        _, batch = await asking
    assert len(batch.records) == 1
    progress = await shop.source().progress(shop.slot, shop.core.cursor(shop.slot))
    assert progress.unit == "bytes"
    assert "of WAL on the server" in (progress.note or "")
    assert progress.lag is not None
    assert 0 < progress.lag < 1 << 20


async def test_the_slot_does_not_pass_what_is_not_committed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(replication, "STATUS_SECONDS", 0.05)
    await shop.begin(ORDERS)
    async with shop.reading() as reading:
        await shop.run("INSERT INTO public.orders VALUES (1, 'a')")
        partition, batch = await reading.next()
        after = batch.cursor["lsn"]
        await shop.run("CREATE TABLE public.others AS SELECT generate_series(1, 1000)")
        for _ in range(20):  # several times the pause between two statuses
            await asyncio.sleep(0.02)
            assert await shop.conn.fetchval(BEFORE, shop.slot, after)
        await reading.commit(partition, batch)
        async with asyncio.timeout(20):
            while await shop.conn.fetchval(BEFORE, shop.slot, after):
                await asyncio.sleep(0.02)


async def test_c12_a_slot_that_a_stranger_reads_is_waited_for(shop: Shop) -> None:
    await shop.begin(ORDERS)
    await shop.run("INSERT INTO public.orders VALUES (1, 'a')")
    async with await Walsender.open(shop.url, "another", replication=True) as stranger:
        await stranger.start(shop.slot, "eventflow_shop", 0)
        with pytest.raises(SourceUnavailable, match="read by 'eventflow source another'"):
            await shop.take(1)
    await shop.settle()
    assert len(await shop.take(1)) == 1


async def test_c12_the_next_owner_ends_a_reader_of_the_last_one(shop: Shop) -> None:
    """A stopped process holds its connection for as long as nobody ends it."""
    await shop.begin(ORDERS)
    await shop.run("INSERT INTO public.orders VALUES (1, 'a')")
    loop = asyncio.get_running_loop()
    async with await Walsender.open(shop.url, "shop", replication=True) as left_over:
        await left_over.start(shop.slot, "eventflow_shop", 0)
        began = loop.time()
        assert len(await shop.take(1)) == 1
        assert loop.time() - began < 5
        with pytest.raises(SourceUnavailable, match="the server is gone"):
            await _read_to_the_end(left_over)


async def _read_to_the_end(sender: Walsender) -> None:
    while True:
        if sender.read() is None:
            await sender.wait(5)
            sender.receive()


async def test_a_server_that_says_nothing_is_gone(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(replication, "STATUS_SECONDS", 0.1)
    monkeypatch.setattr(replication, "SILENCE_SECONDS", 0.5)
    await shop.begin(ORDERS)
    await shop.run("INSERT INTO public.orders VALUES (1, 'a')")
    async with shop.reading() as reading:
        await reading.take(1)
        pid = await shop.conn.fetchval(
            "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1", shop.slot
        )
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(SourceUnavailable, match="has said nothing"):
                await reading.next()
        finally:
            os.kill(pid, signal.SIGCONT)


async def test_the_server_hears_of_us_while_our_core_is_slow(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "SETTINGS", session.SETTINGS.replace("timeout=60s", "timeout=1s"))
    monkeypatch.setattr(replication, "STATUS_SECONDS", 0.2)
    await shop.begin(ORDERS)
    await shop.run(
        "INSERT INTO public.orders SELECT n, repeat('x', 1000) FROM generate_series(1, 20000) AS n"
    )
    async with shop.reading() as reading:
        partition, batch = await reading.next()
        await asyncio.sleep(2.5)  # the commit takes longer than the server's patience
        await reading.commit(partition, batch)
        taken = len(batch.records)
        while taken < 20000:
            taken += len(await reading.take(1))


async def test_c14_the_tables_of_eventflow_cannot_be_captured(database: str, tmp_path: Path) -> None:
    async with opened(database, tmp_path) as shop:
        with pytest.raises(ValidationError, match="cannot be captured"):
            shop.source(tables=["eventflow.event"])
        await shop.begin(ORDERS)
        await shop.run("ALTER PUBLICATION eventflow_shop ADD TABLE eventflow.event")
        with pytest.raises(SourceUnavailable, match=r"eventflow's own tables \(eventflow\.event\)"):
            await shop.take(1)
        assert any("eventflow's own tables" in w for w in await shop.source().examine())


async def test_c14_reading_the_database_that_we_write_to_comes_to_rest(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch is WAL; were that a reason for a batch, there would be no end."""
    monkeypatch.setattr(stream, "IDLE_SECONDS", 0.25)
    async with opened(database, tmp_path) as shop, await connect(database) as pool:
        await shop.begin(ORDERS)
        await shop.run("INSERT INTO public.orders VALUES (1, 'a')")
        claim = await _claimed(pool, tmp_path, shop)
        ingest = Ingest(pool, timedelta(seconds=30), claim[1], Signals("cdc"))
        running = asyncio.ensure_future(ingest.run_partition(shop.source(), claim[0]))
        try:
            async with asyncio.timeout(20):
                while await shop.conn.fetchval("SELECT count(*) FROM eventflow.event") == 0:
                    await asyncio.sleep(0.02)
            version = claim[0].version
            start = await shop.conn.fetchval("SELECT pg_current_wal_insert_lsn()::text")
            await asyncio.sleep(1.5)  # six times the pause
            moved = claim[0].version - version
            written = "SELECT (pg_current_wal_insert_lsn() - $1::text::pg_lsn)::int"
            wal = await shop.conn.fetchval(written, start)
            assert await shop.conn.fetchval("SELECT count(*) FROM eventflow.event") == 1
            assert 2 <= moved <= 7, "a batch without records for each pause and not for each batch"
            assert wal < 64 * 1024
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def _claimed(pool: Any, folder: Path, shop: Shop) -> tuple[Any, Revisions]:
    revisions = Revisions(pool, find_connectors(), folder)
    node = new_uid()
    async with pool.acquire() as conn:
        await rulesets.apply(conn, {"r.yaml": b"rules: {}"}, folder=folder, origin="test",
                             code_version="0", take_over=True)  # fmt: skip
        claim = await ownership.claim(conn, "shop", shop.slot, node, timedelta(seconds=30), None)
    await revisions.refresh()
    assert claim is not None
    return claim, revisions


async def test_c8_another_server_behind_the_address_is_told_by_its_history(tmp_path: Path) -> None:
    """A copy is promoted before our position: what we took in after that never happened there."""
    first, copy = tmp_path / "first", tmp_path / "copy"
    async with Embedded(first) as server, opened(server.url, tmp_path) as shop:
        await shop.begin(ORDERS)
        await shop.run("INSERT INTO public.orders VALUES (1, 'a')")
        await shop.take(1)
        shared, origin = shop.core.cursor(shop.slot), await shop.source().origin()
        await shop.settle()
        shop.slot, slot = "none", shop.slot  # that of the copy is needed
    subprocess.run(["cp", "-a", str(first), str(copy)], check=True)
    with (copy / "postgres" / "postgresql.auto.conf").open("a") as settings:
        settings.write("restore_command = 'false'\n")  # there is no archive: it ends where its WAL ends
    (copy / "postgres" / "recovery.signal").touch()
    async with Embedded(first) as server, opened(server.url, tmp_path) as shop:
        await shop.run("INSERT INTO public.orders SELECT n, 'b' FROM generate_series(2, 500) AS n")
        async with shop.reading() as reading:
            while events(await reading.take(1))[-1].data["after"]["id"] < 500:
                pass
        ahead = shop.core.cursor(slot)
    async with Embedded(copy) as server, opened(server.url, tmp_path) as shop:
        assert await shop.source().origin() == origin, "a copy has the identifier of its original"
        async with asyncio.timeout(20):
            while await shop.conn.fetchval("SELECT pg_is_in_recovery()"):
                await asyncio.sleep(0.02)
        source = shop.source()
        with pytest.raises(SourceStopped, match="on timeline 2") as stopped:
            async with asyncio.timeout(10):
                await anext(source.batches(shop.slot, ahead))
        assert stopped.value.missing["to"] == ahead["lsn"]
        await shop.run("INSERT INTO public.orders VALUES (1000, 'c')")
        shop.core._cursors[shop.slot] = encode_json(shared)
        assert [event.data["after"]["id"] for event in events(await shop.take(1))] == [1000]
        assert shop.core.cursor(shop.slot)["timeline"] == 2


async def test_a_role_that_may_replicate_and_read_the_tables_is_enough(shop: Shop) -> None:
    role = f"cdc_{shop.slot}"
    await shop.run(
        "CREATE SCHEMA sales", "CREATE TABLE sales.orders (id int PRIMARY KEY)", f"CREATE ROLE {role} LOGIN"
    )
    shop.words = {"tables": ["sales.orders"], "snapshot": "initial"}
    limited = {"url": shop.url.replace("//eventflow@", f"//{role}@")}
    try:
        statements = await shop.source(**limited).preparation()
        assert list(statements[:3]) == [
            f'ALTER ROLE "{role}" REPLICATION',
            f'GRANT USAGE ON SCHEMA "sales" TO "{role}"',
            f'GRANT SELECT ON "sales"."orders" TO "{role}"',
        ]
        with pytest.raises(SourceUnavailable, match=r"permission denied.*whoever owns the tables may run it"):
            await shop.source(**limited).prepare()
        await shop.run(*statements)
        assert await shop.source(**limited).preparation() == []
        assert not any("superuser" in warning for warning in await shop.source(**limited).examine())
        assert any("superuser" in warning for warning in await shop.source().examine())
        await shop.run("INSERT INTO sales.orders VALUES (1)")
        async with shop.reading(**limited) as reading:
            (read,) = events(await reading.take(1))
            await shop.run("INSERT INTO sales.orders VALUES (2)")
            (inserted,) = events(await reading.take(1))
        assert (read.type, inserted.type) == ("row.read", "row.inserted")
    finally:
        await shop.drop_slot()
        await shop.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")
