"""The books: they balance while all is well, and any row that is taken away is missed."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from eventflow.store import audit, dead_letters
from eventflow.store.retention import cutoff, expire_runs
from eventflow.store.views import events
from tests.integration.commands.conftest import Flow, broken, event

TAKES_ALL = """
sources: {web: {connector: webhook, verify: none}}
rules: {also-hits: {match: {type: webhook.received}, emit: web.seen}}
"""


async def missing(flow: Flow) -> dict[str, int]:
    async with flow.pool.acquire() as conn:
        return {one.source: one.missing for one in await audit.balances(conn) if one.missing}


async def orphaned(flow: Flow) -> list[str]:
    async with flow.pool.acquire() as conn:
        return (await audit.orphans(conn, await cutoff(conn, timedelta(days=30)))).sentences


@pytest.fixture
async def busy(flow: Flow) -> Flow:
    """Every class and every stage at once, some of it replayed."""
    await flow.push(event(1, hit=True), event(2), event(3, strict=True), event(4, needy=True))
    await flow.push(broken(), event(200, hit=True))
    await flow.drain()
    await flow.finish_all(fail="second")
    return flow


async def test_each_event_has_one_class_and_the_sum_is_what_was_taken(busy: Flow) -> None:
    async with busy.pool.acquire() as conn:
        books = {one.source: one for one in await audit.balances(conn)}
    web = books["web"]
    assert (web.taken, web.dead, web.matched, web.unmatched, web.open, web.late) == (6, 5, 0, 1, 0, 0)
    assert books["eventflow"].taken == 1
    assert await missing(busy) == {}
    assert await orphaned(busy) == []


async def test_a_replay_keeps_the_books_balanced(busy: Flow) -> None:
    async with busy.pool.acquire() as conn:
        letters = await conn.fetch("SELECT id FROM dead_letter WHERE stage IN ('match', 'run')")
    for row in letters:
        await busy.replay(row["id"])
    await busy.drain()
    assert await missing(busy) == {}
    assert await orphaned(busy) == []


async def test_who_has_no_open_letter_is_dead_no_more(busy: Flow) -> None:
    async with busy.pool.acquire() as conn:
        letters = await conn.fetch("SELECT id, stage FROM dead_letter")
        await dead_letters.discard(conn, [row["id"] for row in letters if row["stage"] != "match"])
        (web,) = [one for one in await audit.balances(conn) if one.source == "web"]
        assert (web.dead, web.resolved, web.matched, web.unmatched) == (1, 1, 2, 2)
        await dead_letters.discard(conn, [row["id"] for row in letters if row["stage"] == "match"])
        (web,) = [one for one in await audit.balances(conn) if one.source == "web"]
        assert (web.dead, web.resolved, web.missing) == (0, 1, 0)
        by_class = Counter(row["class"] for row in await events.events(conn, source="web"))
    assert by_class == {"matched": web.matched, "unmatched": web.unmatched}
    assert await missing(busy) == {}
    assert await orphaned(busy) == []


async def test_duplicates_are_counted_and_not_missed(flow: Flow) -> None:
    first = event(1, hit=True)
    again = type(first)("web", "e1", first.type, first.data, first.raw, dedupe=b"e1")
    await flow.push(again)
    await flow.push(again, again)
    async with flow.pool.acquire() as conn:
        (web,) = await audit.balances(conn)
    assert (web.taken, web.duplicates, web.missing) == (1, 2, 0)


@pytest.mark.parametrize(
    ("deleted", "lost"),
    [
        ("event WHERE id = 'e2'", {"web": 1}),
        ("event WHERE source = 'eventflow'", {"eventflow": 1}),
        ("dead_letter WHERE stage = 'decode'", {"web": 1}),
        ("source_partition WHERE source = 'web'", {"web": -6}),
    ],
)
async def test_a_deleted_row_is_missing(busy: Flow, deleted: str, lost: dict[str, int]) -> None:
    await busy.fetch(f"DELETE FROM {deleted}")
    assert await missing(busy) == lost


@pytest.mark.parametrize(
    ("deleted", "sentence"),
    [
        ("run WHERE id = (SELECT min(id::text)::uuid FROM run)", "firings have lost their run"),
        ("firing WHERE rule = 'hits'", "runs have lost their firing"),
        ("firing WHERE rule = 'also-hits'", "count as matched"),
        ("task_run", "runs have lost their tasks"),
        ("dead_letter WHERE stage = 'run'", "failed runs have lost their dead letter"),
    ],
)
async def test_a_deleted_half_is_missed_by_the_other_half(flow: Flow, deleted: str, sentence: str) -> None:
    await flow.push(event(1, hit=True))
    await flow.finish_all(fail="first")
    await flow.apply(TAKES_ALL)
    await flow.push(event(200))
    assert await orphaned(flow) == []
    await flow.fetch(f"DELETE FROM {deleted}")
    assert sentence in " ".join(await orphaned(flow))


async def test_what_retention_removes_is_not_missed(flow: Flow) -> None:
    """Runs go by the hour of their end, events by whole days: in between an event stands without its run."""
    await flow.push(event(1, hit=True))
    await flow.finish_all()
    async with flow.pool.acquire() as conn:
        await expire_runs(conn, await cutoff(conn, timedelta(0)))
        assert (await audit.orphans(conn, await cutoff(conn, timedelta(0)))).sentences == []
        assert (await audit.orphans(conn, await cutoff(conn, timedelta(days=1)))).matches == 1
    assert await missing(flow) == {}
