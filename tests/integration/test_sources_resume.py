"""A partition that a person lets go on elsewhere: one transaction, and no batch of before fits any more."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from eventflow.cli.going_on import GoingOn, _move
from eventflow.cli.sources import _say
from eventflow.errors import OwnershipLost, SourceStopped, UsageError
from eventflow.event import JSON, Event, new_uid
from eventflow.ingest import Ingest, Work
from eventflow.offers import Resumption
from eventflow.revisions import Revisions
from eventflow.source import Batch
from eventflow.store import nodes, ownership, pauses
from eventflow.store.ownership import Claim, Wanted
from eventflow.store.pool import Connection, Pool
from eventflow.store.signals import Signals
from eventflow.store.views import sources as views

LEASE = timedelta(seconds=30)
NODE = new_uid()


GONE: JSON = {"from": 5, "to": 9}


async def stopped(
    conn: Connection, *partitions: str, origin: str | None = "old", missing: JSON = GONE
) -> list[Claim]:
    """Partitions of `log` that stopped at a gap."""
    claims, _ = await ownership.claim_all(
        conn, [Wanted("log", partition, origin) for partition in partitions], NODE, LEASE
    )
    for claim in claims:
        await ownership.release(conn, claim, "stopped", "5 to 9 are gone", missing)
    return claims


async def test_it_goes_on_at_the_new_position_and_the_gap_is_written_down(pool: Pool) -> None:
    async with pool.acquire() as conn:
        await stopped(conn, "0", "1")
        held = await pauses.held(conn, "log")
        assert [(one.partition, one.state, one.missing) for one in held] == [
            ("0", "stopped", GONE), ("1", "stopped", GONE),
        ]  # fmt: skip
        moves = [(one, Resumption({"at": 10}, {"from": 5, "to": 9})) for one in held]
        await pauses.resume_at(conn, "log", moves, "me@here")
        found = await views.gaps(conn, source="log")
        assert [(row["partition"], row["before"], row["after"]) for row in found] == [
            ("1", None, '{"at":10}'), ("0", None, '{"at":10}'),
        ]  # fmt: skip
        assert {row["reason"] for row in found} == {"5 to 9 are gone"}
        assert {row["who"] for row in found} == {"me@here"}
        claim = await ownership.claim(conn, "log", "0", new_uid(), LEASE, "new")
        assert claim is not None
        assert claim.cursor == {"at": 10}
        with pytest.raises(SourceStopped):
            await ownership.claim(conn, "log", "0", claim.node, LEASE, "a third")


async def test_where_nothing_is_passed_over_no_gap_is_written_down(
    pool: Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    async with pool.acquire() as conn:
        await stopped(conn, "0", "1", missing=None)
        first, second = await pauses.held(conn, "log")
        moves = [(first, Resumption(0, None)), (second, Resumption(7, {"from": 5, "to": 7}))]
        await pauses.resume_at(conn, "log", moves, "me@here")
        assert [row["partition"] for row in await views.gaps(conn)] == ["1"]
        assert {row["position"] for row in await views.sources(conn)} == {"0", "7"}
    _say("log", GoingOn(2, [_move(one, to) for one, to in moves]))
    assert capsys.readouterr().out == (
        'log 0: reads again from 0\nlog 1: goes on at 7; passed over: {"from":5,"to":7}\n'
    )


async def test_where_it_goes_back_the_range_that_it_stopped_at_is_written_down(pool: Pool) -> None:
    """A log that was cut: records that counted are gone from it, whatever is read next."""
    async with pool.acquire() as conn:
        await stopped(conn, "0")
        (held,) = await pauses.held(conn, "log")
        await pauses.resume_at(conn, "log", [(held, Resumption(3, None))], "me@here")
        (gap,) = await views.gaps(conn)
        assert gap["missing"] == GONE
        assert (gap["reason"], gap["after"]) == ("5 to 9 are gone", "3")


async def test_a_pause_does_not_hide_why_it_has_stopped(pool: Pool) -> None:
    async with pool.acquire() as conn:
        await stopped(conn, "0")
        assert await ownership.claim(conn, "log", "1", NODE, LEASE, None)
        assert await pauses.pause(conn, "log") == 1
        assert await pauses.pause(conn, "log") == 0
        rows = {row["partition"]: row for row in await views.sources(conn)}
        assert {name: row["state"] for name, row in rows.items()} == {"0": "stopped", "1": "paused"}
        assert rows["0"]["message"] == "5 to 9 are gone"
        assert rows["0"]["missing"] == GONE


async def states(conn: Connection) -> dict[str, str]:
    return {r["partition"]: r["state"] for r in await conn.fetch("SELECT * FROM source_partition")}


async def test_partitions_that_appear_while_it_is_paused_are_paused(pool: Pool) -> None:
    wanted = [Wanted("log", one, None) for one in ("0", "1", "2")]
    async with pool.acquire() as conn:
        assert await ownership.claim(conn, "log", "0", NODE, LEASE, None)
        await pauses.pause(conn, "log")
        assert await ownership.claim_all(conn, wanted[:2], NODE, LEASE) == ([], [])
        assert await states(conn) == {"0": "paused", "1": "paused"}
        assert await pauses.resume(conn, "log", "0") == 1
        claims, _ = await ownership.claim_all(conn, wanted, NODE, LEASE)
        assert [claim.partition for claim in claims] == ["0"]
        assert await states(conn) == {"0": "running", "1": "paused", "2": "paused"}
        moves = [(one, Resumption(3, None)) for one in await pauses.held(conn, "log")]
        await pauses.resume_at(conn, "log", moves, "me@here")
        claims, _ = await ownership.claim_all(conn, [*wanted, Wanted("log", "3", None)], NODE, LEASE)
    assert sorted(claim.partition for claim in claims) == ["0", "1", "2", "3"]


async def test_a_claim_under_way_and_a_pause_wait_for_each_other(pool: Pool) -> None:
    """A claim that has begun is paused as well; one that waits for the pause sees it."""
    async with pool.acquire() as one, pool.acquire() as two, pool.acquire() as three:
        assert await ownership.claim(one, "log", "before", NODE, LEASE, None)
        claiming = one.transaction()
        await claiming.start()
        assert await ownership.claim(one, "log", "0", NODE, LEASE, None)
        pausing = asyncio.create_task(pauses.pause(two, "log"))
        await until_blocked(three, 1)
        await claiming.commit()
        assert await pausing == 2
        assert set((await states(three)).values()) == {"paused"}
        await pauses.resume(two, "log")
        pause = two.transaction()
        await pause.start()
        await pauses.pause(two, "log")
        late = asyncio.create_task(ownership.claim(one, "log", "1", NODE, LEASE, None))
        await until_blocked(three, 1)
        await pause.commit()
        assert await late is None
        assert await states(three) == dict.fromkeys(("before", "0", "1"), "paused")


async def leave(conn: Connection, _source: str) -> None:
    await nodes.leave(conn, NODE)


@pytest.mark.parametrize("change", [pauses.pause, pauses.resume, leave])
async def test_partitions_are_locked_in_the_order_in_which_claims_lock_them(pool: Pool, change: Any) -> None:
    async with pool.acquire() as one, pool.acquire() as two, pool.acquire() as three:
        for partition in ("b", "a"):  # as they lie in the table
            await ownership.claim(one, "log", partition, NODE, LEASE, None)
        if change is pauses.resume:
            await pauses.pause(one, "log")
        await two.execute("SET enable_indexscan = off; SET enable_bitmapscan = off")
        async with one.transaction():
            await one.execute("SELECT FROM source_partition WHERE partition = 'a' FOR NO KEY UPDATE")
            changing = asyncio.create_task(change(two, "log"))
            await until_blocked(three, 1)
            await three.execute("SELECT FROM source_partition WHERE partition = 'b' FOR NO KEY UPDATE NOWAIT")
        await changing


async def until_blocked(conn: Connection, number: int) -> None:
    """So many backends wait for another."""
    statement = "SELECT count(*) FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0"
    async with asyncio.timeout(10):
        while await conn.fetchval(statement) != number:
            await asyncio.sleep(0.005)


async def test_all_go_on_or_none(pool: Pool) -> None:
    async with pool.acquire() as conn:
        await stopped(conn, "0", "1")
        first, second = await pauses.held(conn, "log")
        stale = replace(second, version=second.version + 1)
        to = Resumption(10, None)
        with pytest.raises(UsageError, match="gone on meanwhile"):
            await pauses.resume_at(conn, "log", [(first, to), (stale, to)], "me@here")
        assert await pauses.held(conn, "log") == [first, second]
        assert await views.gaps(conn) == []
        assert await pauses.resume(conn, "log", "0") == 1
        with pytest.raises(UsageError):
            await pauses.resume_at(conn, "log", [(first, to)], "me@here")


async def test_a_batch_that_was_read_before_does_not_fit_any_more(pool: Pool, tmp_path: Path) -> None:
    ingest = Ingest(pool, LEASE, Revisions(pool, {}, tmp_path), Signals("n"))
    async with pool.acquire() as conn:
        (claim,) = await stopped(conn, "0")
        (held,) = await pauses.held(conn, "log")
        await pauses.resume_at(conn, "log", [(held, Resumption(10, None))], "me@here")
        again = await ownership.claim(conn, "log", "0", NODE, LEASE, None)
    assert again is not None
    assert (again.epoch, again.version) == (claim.epoch + 2, claim.version + 1)
    for zombie in (claim, replace(again, version=again.version - 1), replace(again, epoch=again.epoch - 1)):
        with pytest.raises(OwnershipLost):
            await ingest._commit(Work("log", "0", Batch([Event("log", "5", "t", 5, b"5")], cursor=5), zombie))
    async with pool.acquire() as conn:
        (row,) = await views.sources(conn)
    assert (row["position"], row["taken"]) == ("10", 0)


async def test_many_are_claimed_at_once_without_those_that_others_hold(pool: Pool) -> None:
    async with pool.acquire() as conn:
        await stopped(conn, "0")
        assert await ownership.claim(conn, "log", "1", new_uid(), LEASE, None)
        foreign = await ownership.claim(conn, "log", "2", NODE, LEASE, "old")
        assert foreign is not None
        await ownership.release(conn, foreign)
        claims, strangers = await ownership.claim_all(
            conn, [Wanted("log", f"{n}", "new") for n in range(5)], NODE, LEASE
        )
    assert sorted(claim.partition for claim in claims) == ["3", "4"]
    ((claim, error),) = strangers
    assert claim.partition == "2"
    assert "its position belongs to 'old', but 'new' is there now" in str(error)
