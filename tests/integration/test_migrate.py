"""Migrations and day partitions, on a real server."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import pytest

from eventflow.errors import SchemaMismatch, UnsafeDurability
from eventflow.store.migrate import Migration, check_schema, migrate, migrations, status
from eventflow.store.partitions import ensure_event_partitions
from eventflow.store.pool import Pool, check_server, connect, connect_once


async def test_a_second_migration_does_nothing(empty_database: str) -> None:
    connection = await connect_once(empty_database)
    try:
        assert [line.applied for line in await status(connection)] == [None] * len(migrations())
        with pytest.raises(SchemaMismatch, match="db migrate"):
            await check_schema(connection)
        assert await migrate(connection) == [str(migration) for migration in migrations()]
        assert await migrate(connection) == []
        assert all(line.applied for line in await status(connection))
        await check_schema(connection)
    finally:
        await connection.close()


async def test_eight_migrators_at_once_apply_each_file_once(empty_database: str) -> None:
    connections = [await connect_once(empty_database) for _ in range(8)]
    try:
        applied = await asyncio.gather(*(migrate(connection) for connection in connections))
    finally:
        for connection in connections:
            await connection.close()
    assert sorted(name for names in applied for name in names) == [str(one) for one in migrations()]


async def test_a_newer_database_is_refused(pool: Pool) -> None:
    newer = [*migrations(), Migration(len(migrations()) + 1, "from_the_future", "SELECT 1")]
    async with pool.acquire() as connection:
        await migrate(connection, newer)
        with pytest.raises(SchemaMismatch, match="from_the_future"):
            await migrate(connection)
        with pytest.raises(SchemaMismatch, match="from_the_future"):
            await status(connection)


async def test_a_file_edited_after_it_was_applied_is_refused(pool: Pool) -> None:
    first, *rest = migrations()
    edited = [Migration(first.number, first.name, first.sql + "\n-- edited"), *rest]
    async with pool.acquire() as connection:
        with pytest.raises(SchemaMismatch, match="another text"):
            await migrate(connection, edited)


async def test_a_migration_that_fails_leaves_nothing_behind(pool: Pool) -> None:
    number = len(migrations()) + 1
    broken = [*migrations(), Migration(number, "broken", "CREATE TABLE half (a int); SELECT 1 / 0")]
    async with pool.acquire() as connection:
        with pytest.raises(Exception, match="division by zero"):
            await migrate(connection, broken)
        assert await connection.fetchval("SELECT to_regclass('half')") is None
        assert await migrate(connection) == []


async def test_events_of_today_and_the_next_seven_days_have_a_partition(pool: Pool) -> None:
    now = datetime.now(UTC)
    async with pool.acquire() as connection:
        for days in range(8):
            await connection.execute(
                "INSERT INTO event (uid, ingested, source, partition, id, type, class, data)"
                " VALUES ($1, $2, 's', 'p', 'i', 't', 'u', '')",
                uuid4(),
                now + timedelta(days=days),
            )
        names = [
            row["name"]
            for row in await connection.fetch(
                "SELECT tableoid::regclass::text AS name FROM event ORDER BY ingested"
            )
        ]
    assert names == [f"event_{now + timedelta(days=days):%Y%m%d}" for days in range(8)]


async def test_partitions_begin_at_midnight_utc_whatever_the_session_says(pool: Pool) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL timezone = 'Pacific/Auckland'")
        await ensure_event_partitions(connection, date(2031, 5, 1), 1)
        await connection.execute(
            "INSERT INTO event (uid, ingested, source, partition, id, type, class, data)"
            " VALUES ($1, '2031-05-01 00:00:00+00', 's', 'p', 'i', 't', 'u', ''),"
            " ($2, '2031-05-01 23:59:59.999999+00', 's', 'p', 'i', 't', 'u', '')",
            uuid4(),
            uuid4(),
        )
        assert await connection.fetchval("SELECT count(*) FROM event_20310501") == 2


async def test_partitions_are_made_once_by_several_nodes_at_once(pool: Pool) -> None:
    first = date(2030, 1, 1)

    async def ensure() -> list[date]:
        async with pool.acquire() as connection:
            return await ensure_event_partitions(connection, first, 3)

    made = await asyncio.gather(*(ensure() for _ in range(4)))
    assert sorted(day for days in made for day in days) == [first + timedelta(days=n) for n in range(3)]


async def test_a_partition_is_indexed_like_its_parent_and_keeps_no_check(pool: Pool) -> None:
    async with pool.acquire() as connection:
        (day,) = await ensure_event_partitions(connection, date(2030, 1, 1), 1)
        assert day == date(2030, 1, 1)
        indexes = await connection.fetchval(
            "SELECT count(*) FROM pg_index WHERE indrelid = 'event_20300101'::regclass"
        )
        parent = await connection.fetchval("SELECT count(*) FROM pg_index WHERE indrelid = 'event'::regclass")
        assert indexes == parent
        checks = await connection.fetch(
            "SELECT conname FROM pg_constraint WHERE conrelid = 'event_20300101'::regclass AND contype = 'c'"
        )
        assert "one_day" not in [row["conname"] for row in checks]


async def test_a_partition_waits_no_longer_than_its_lock_timeout(pool: Pool) -> None:
    async with pool.acquire() as holder, pool.acquire() as connection:
        async with holder.transaction():
            await holder.execute("LOCK TABLE event IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(Exception, match="lock timeout"):
                await ensure_event_partitions(
                    connection, date(2030, 1, 1), 1, lock_timeout=timedelta(milliseconds=50)
                )
        assert await ensure_event_partitions(connection, date(2030, 1, 1), 1) == [date(2030, 1, 1)]


async def test_sessions_carry_the_node_and_live_in_utc(database: str) -> None:
    node = uuid4()
    async with await connect(database, node=node, idle_in_transaction=timedelta(seconds=7)) as pool:
        row = await pool.acquire().__aenter__()
        settings = {
            name: await row.fetchval("SELECT current_setting($1)", name)
            for name in (
                "application_name",
                "search_path",
                "TimeZone",
                "idle_in_transaction_session_timeout",
            )
        }
        pool.terminate()
    assert settings == {
        "application_name": f"eventflow {node}",
        "search_path": "eventflow",
        "TimeZone": "UTC",
        "idle_in_transaction_session_timeout": "7s",
    }


async def test_the_embedded_server_is_durable_and_one_that_is_not_is_refused(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await check_server(connection, allow_unsafe=False)
        async with connection.transaction():
            await connection.execute("SET LOCAL synchronous_commit = off")
            with pytest.raises(
                UnsafeDurability, match=r"synchronous_commit.*EVENTFLOW_ALLOW_UNSAFE_DURABILITY"
            ):
                await check_server(connection, allow_unsafe=False)
            await check_server(connection, allow_unsafe=True)
