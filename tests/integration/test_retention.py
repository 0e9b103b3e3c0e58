"""What is old goes, what is needed stays, and the counts still add up."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from eventflow.event import new_uid
from eventflow.maintenance import Maintenance
from eventflow.store import retention
from eventflow.store.partitions import ensure_event_partitions
from eventflow.store.pool import Connection, Pool

OLD = date(2026, 1, 1)
DAY = timedelta(days=1)


@pytest.fixture
async def conn(pool: Pool) -> Any:
    async with pool.acquire() as connection:
        await ensure_event_partitions(connection, OLD, 2)
        await connection.execute(
            "INSERT INTO source_partition (source, partition, taken) VALUES ('s', '', 2)"
        )
        yield connection


async def old_event(conn: Connection, day: date) -> UUID:
    uid = new_uid()
    await conn.execute(
        "INSERT INTO event (uid, ingested, source, partition, id, type, class, data)"
        " VALUES ($1, $2, 's', '', $3, 't', 'u', '{}')",
        uid, datetime(day.year, day.month, day.day, 12, tzinfo=UTC), str(uid),
    )  # fmt: skip
    return uid


def uid_at(time: datetime) -> UUID:
    """The uid of an event that came then (RFC 9562, version 7)."""
    return UUID(int=(int(time.timestamp() * 1000) << 80) | (new_uid().int & ((1 << 80) - 1)))


async def days(conn: Connection) -> list[str]:
    rows = await conn.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits"
        " WHERE inhparent = 'event'::regclass ORDER BY 1 LIMIT 2"
    )
    return [row["name"] for row in rows]


async def test_days_before_the_retention_are_dropped_and_counted_as_retired(conn: Connection) -> None:
    await old_event(conn, OLD)
    await old_event(conn, OLD + DAY)
    assert await retention.expire_days(conn, OLD + DAY) == ["event_20260101"]
    assert (await days(conn))[0] == "event_20260102"
    assert await conn.fetchval("SELECT retired FROM source_partition WHERE source = 's'") == 1
    assert await conn.fetchval("SELECT count(*) FROM event") == 1


@pytest.mark.parametrize(
    "need",
    [
        "INSERT INTO dead_letter (id, stage, reason, event_uid, raw, created)"
        " VALUES (gen_random_uuid(), 'run', 'r', $1, '', now())",
        "INSERT INTO firing (id, rule, revision, state, event_uid, at)"
        " VALUES (gen_random_uuid(), 'r', 1, 'held', $1, now())",
        "INSERT INTO run (id, workflow, revision, state, event_uid, params, created)"
        " VALUES (gen_random_uuid(), 'w', 1, 'running', $1, '{}', now())",
    ],
    ids=["open dead letter", "held firing", "unfinished run"],
)
async def test_a_day_that_is_still_needed_stays_whole(conn: Connection, need: Any) -> None:
    await conn.execute(need, await old_event(conn, OLD))
    await old_event(conn, OLD)
    assert await retention.expire_days(conn, OLD + DAY) == []
    assert await conn.fetchval("SELECT count(*) FROM event") == 2
    assert await conn.fetchval("SELECT retired FROM source_partition WHERE source = 's'") == 0


async def test_a_crash_between_emptying_and_dropping_counts_nothing_twice(conn: Connection) -> None:
    await old_event(conn, OLD)
    assert await retention._empty(conn, "event_20260101")
    assert await retention.expire_days(conn, OLD + DAY) == ["event_20260101"]
    assert await conn.fetchval("SELECT retired FROM source_partition WHERE source = 's'") == 1


async def test_old_runs_go_with_their_firings_and_running_ones_stay(conn: Connection) -> None:
    for state, ended in (("succeeded", "2026-01-02"), ("running", None), ("failed", "2026-03-01")):
        firing = new_uid()
        await conn.execute(
            "INSERT INTO firing (id, rule, revision, state, at)"
            " VALUES ($1, 'r', 1, 'admitted', '2026-01-01')",
            firing,
        )
        await conn.execute(
            "INSERT INTO run (id, workflow, revision, state, firing_id, params, created, ended)"
            " VALUES (gen_random_uuid(), 'w', 1, $1, $2, '{}', '2026-01-01', $3::text::timestamptz)",
            state, firing, ended,
        )  # fmt: skip
    await retention.expire_runs(conn, datetime(2026, 2, 1, tzinfo=UTC))
    states = await conn.fetch("SELECT state FROM run ORDER BY state")
    assert [row["state"] for row in states] == ["failed", "running"]
    assert await conn.fetchval("SELECT count(*) FROM firing") == 2


async def test_a_run_stays_for_as_long_as_its_dead_letter_is_open(conn: Connection) -> None:
    for state in ("open", "discarded"):
        run = new_uid()
        await conn.execute(
            "INSERT INTO run (id, workflow, revision, state, params, created, ended)"
            " VALUES ($1, $2, 1, 'failed', '{}', '2026-01-01', '2026-01-01')",
            run, state,
        )  # fmt: skip
        await conn.execute(
            "INSERT INTO dead_letter (id, stage, reason, state, run_id, raw, created)"
            " VALUES (gen_random_uuid(), 'run', 'r', $1, $2, '', '2026-01-01')",
            state, run,
        )  # fmt: skip
    await retention.expire_runs(conn, datetime(2026, 2, 1, tzinfo=UTC))
    assert await conn.fetchval("SELECT array_agg(workflow) FROM run") == ["open"]


async def test_firings_without_a_run_go_as_well(conn: Connection) -> None:
    for rule, state, at in (
        ("old", "admitted", datetime(2026, 1, 1, tzinfo=UTC)),
        ("held", "held", datetime(2026, 1, 1, tzinfo=UTC)),
        ("new", "admitted", datetime(2026, 3, 1, tzinfo=UTC)),
    ):
        await conn.execute(
            "INSERT INTO firing (id, rule, revision, state, event_uid, at)"
            " VALUES (gen_random_uuid(), $1, 1, $2, $3, $4)",
            rule, state, uid_at(at), at,
        )  # fmt: skip
    await retention.expire_firings(conn, datetime(2026, 2, 1, tzinfo=UTC))
    assert await conn.fetchval("SELECT array_agg(rule ORDER BY rule) FROM firing") == ["held", "new"]


async def test_a_day_that_somebody_reads_for_long_holds_up_nothing_else(
    conn: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pg_dump` holds what it reads for hours."""
    monkeypatch.setattr(retention, "LOCK_TIMEOUT", "50ms")
    await old_event(conn, OLD)
    await old_event(conn, OLD + DAY)
    async with pool.acquire() as dump, dump.transaction():
        await dump.execute("LOCK TABLE event_20260101 IN ACCESS SHARE MODE")
        assert await retention.expire_days(conn, OLD + 2 * DAY) == ["event_20260102"]
    assert await retention.expire_days(conn, OLD + 2 * DAY) == ["event_20260101"]


async def test_maintenance_that_fails_is_not_tried_again_at_once(
    conn: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[date] = []

    async def refuse(_conn: Connection, before: date) -> list[str]:
        tries.append(before)
        raise RuntimeError

    monkeypatch.setattr(retention, "expire_days", refuse)
    maintenance = Maintenance(pool, timedelta(milliseconds=20), timedelta(days=30))
    with pytest.raises(RuntimeError):
        await maintenance.run()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await maintenance.run()
    assert len(tries) == 1


async def test_dedupe_keys_are_forgotten_when_their_time_is_over(conn: Connection) -> None:
    for key, expires in ((b"old", "2026-01-01"), (b"new", "2999-01-01")):
        await conn.execute(
            "INSERT INTO dedupe VALUES ('s', $1, gen_random_uuid(), 'i', $2::text::timestamptz)", key, expires
        )
    await retention.expire_keys(conn)
    assert await conn.fetchval("SELECT key FROM dedupe") == b"new"
