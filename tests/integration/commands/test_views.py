"""What the lists say, and how a person names one thing among many."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from eventflow.errors import UsageError
from eventflow.event import Event, encode_json, new_uid
from eventflow.explained import explain_stored, matched_revision
from eventflow.ingest import Work
from eventflow.offers import Progress
from eventflow.source import Batch, Mark
from eventflow.store import nodes, ownership, pauses, progress
from eventflow.store.intake import item_key
from eventflow.store.pool import Pool
from eventflow.store.progress import Standing
from eventflow.store.views import events as views
from eventflow.store.views import runs as run_views
from eventflow.store.views import sources as source_views
from tests.integration.commands.conftest import LEASE, RULES, Flow, event


def file_event(path: str, generation: int) -> Event:
    data = {"path": f"/data/landing/{path}", "dataset": path.removesuffix(".csv")}
    return Event("landing", f"{path}#{generation}", "file.arrived", data, encode_json(data), subject=path)


async def land(flow: Flow, path: str, generation: int) -> None:
    mark = Mark(path.encode(), b"print%d" % generation, generation, record=0)
    await flow.ingest._commit(Work("landing", "", Batch([file_event(path, generation)], marks=[mark])))


async def test_events_come_newest_first_with_their_class(flow: Flow) -> None:
    await flow.push(event(1, hit=True))
    await flow.push(event(2))
    await flow.push(event(3, strict=True))
    async with flow.pool.acquire() as conn:
        rows = await views.events(conn)
        assert [(r["id"], r["class"]) for r in rows] == [
            ("e3", "dead"),
            ("e2", "unmatched"),
            ("e1", "matched"),
        ]
        assert [r["id"] for r in await views.events(conn, limit=1)] == ["e3"]
        assert await views.events(conn, type_="file.arrived") == []
        assert await views.events(conn, since=datetime.now(UTC) + timedelta(hours=1)) == []


async def test_a_failed_runs_event_is_dead(flow: Flow) -> None:
    await flow.push(event(1, hit=True))
    await flow.finish_all(fail="second")
    async with flow.pool.acquire() as conn:
        (row,) = await views.events(conn)
    assert row["class"] == "dead"


async def test_rules_count_firings_errors_and_open_letters(flow: Flow) -> None:
    await flow.push(event(1, hit=True), event(2, hit=True), event(3, strict=True), event(4, needy=True))
    async with flow.pool.acquire() as conn:
        rows = {row["rule"]: row for row in await views.rules(conn)}
    assert rows["hits"]["firings"] == 2
    assert (rows["strict"]["where_errors"], rows["strict"]["dead_letters"]) == (1, 1)
    assert (rows["needy"]["firings"], rows["needy"]["dead_letters"]) == (0, 1)


async def test_firings_name_the_event_and_the_run(flow: Flow) -> None:
    await flow.push(event(1, hit=True), event(200, hit=True))
    async with flow.pool.acquire() as conn:
        rows = await views.firings(conn, rule="hits")
        assert {(r["event"], r["state"], r["run_state"]) for r in rows} == {
            ("e1", "admitted", "running"),
            ("e200", "admitted", "running"),
        }
        (emitted,) = await views.firings(conn, rule="also-hits")
        assert (emitted["run_id"], emitted["event"]) == (None, "e200")


async def test_a_run_is_shown_with_its_tasks_and_what_triggered_it(flow: Flow) -> None:
    await flow.push(event(1, hit=True))
    await flow.finish_all(fail="second")
    async with flow.pool.acquire() as conn:
        (row,) = await run_views.runs(conn, state="failed")
        assert (row["workflow"], row["rule"], row["event"], row["source"]) == ("load", "hits", "e1", "web")
        assert await run_views.find_run(conn, str(row["run_id"])[:30]) == row["run_id"]
        assert await run_views.find_run(conn, str(row["run_id"])[-12:]) == row["run_id"]
        shown = await run_views.run(conn, row["run_id"])
        assert [(t["task"], t["state"]) for t in shown["tasks"]] == [
            ("first", "succeeded"),
            ("second", "failed"),
        ]
        with pytest.raises(UsageError, match="no run 'zzz'"):
            await run_views.find_run(conn, "zzz")
        with pytest.raises(UsageError, match="not in this database"):
            await run_views.run(conn, new_uid())


async def test_an_event_has_many_names(flow: Flow) -> None:
    (first,) = await flow.push(event(1))
    await land(flow, "sales.csv", 1)
    await land(flow, "sales.csv", 2)
    await land(flow, "x/sales.csv", 1)
    uids = {r["id"]: r["uid"] for r in await flow.fetch("SELECT id, uid FROM event")}
    async with flow.pool.acquire() as conn:
        for name in (str(first.uid), first.uid.hex, str(first.uid)[-12:], "e1", "web/e1"):
            assert await views.find_event(conn, name) == first.uid
        assert await views.find_event(conn, "sales.csv#1") == uids["sales.csv#1"]
        for path in ("sales.csv", "landing/sales.csv", "/data/landing/sales.csv", "./sales.csv"):
            assert await views.find_event(conn, path) == uids["sales.csv#2"]
        assert await views.find_event(conn, "landing/x/sales.csv") == uids["x/sales.csv#1"]


async def test_a_name_of_nothing_or_of_many_is_refused(flow: Flow) -> None:
    await flow.push(event(1))
    await flow.push(event(1))
    async with flow.pool.acquire() as conn:
        with pytest.raises(UsageError, match="more than one event"):
            await views.find_event(conn, "e1")
        for name in ("nothing", "a/b/c", "", "/", "\x00", "ffffffff"):
            with pytest.raises(UsageError, match="no event"):
                await views.find_event(conn, name)


async def test_an_event_is_explained_with_the_revision_that_it_met(flow: Flow) -> None:
    (receipt,) = await flow.push(event(1, hit=True))
    old = flow.revisions.current
    await flow.apply(RULES.replace("data.hit: true}\n    run", "data.hit: 7}\n    run"))
    async with flow.pool.acquire() as conn:
        assert await matched_revision(conn, receipt.uid) == old.revision

    then = await explain_stored(flow.pool, old, receipt.uid)
    verdicts = {verdict.rule: verdict for verdict in then.verdicts}
    assert verdicts["hits"].outcome == "fired"
    assert verdicts["hits"].firings[0]["workflow"] == "load"
    assert verdicts["also-hits"].outcome == "not matched"
    assert "event.data.n >= 100: false" in "\n".join(verdicts["also-hits"].explanation.lines())

    now = await explain_stored(flow.pool, flow.revisions.current, receipt.uid, only="hits")
    (verdict,) = now.verdicts
    assert not verdict.explanation.matched
    assert verdict.outcome == "fired"


async def test_a_rule_that_matched_without_a_firing_says_what_held_it_back(flow: Flow) -> None:
    (receipt,) = await flow.push(event(1, needy=True))
    found = await explain_stored(flow.pool, flow.revisions.current, receipt.uid, only="needy")
    (verdict,) = found.verdicts
    assert (verdict.outcome, verdict.sentence) == (
        "matched",
        f"matched, and became dead letter {await flow.letter()}",
    )


async def test_an_ordered_source_stands_with_owner_and_position(flow: Flow) -> None:
    node = new_uid()
    async with flow.pool.acquire() as conn:
        claim = await ownership.claim(conn, "lines", "0", node, LEASE, "disk")
        assert claim
        await flow.ingest._commit(Work("lines", "0", Batch([event(1)], cursor={"line": 1}), claim))
        (row,) = [r for r in await source_views.sources(conn) if r["source"] == "lines"]
    assert (row["state"], row["owner"], row["position"], row["taken"]) == (
        "running",
        str(node),
        '{"line":1}',
        1,
    )


async def test_what_every_node_serves_waits_while_there_is_none(flow: Flow) -> None:
    await flow.push(event(1))
    async with flow.pool.acquire() as conn:
        await ownership.report(conn, "web", "", "running", None)
        (row,) = await source_views.sources(conn)
        assert (row["state"], row["owner"]) == ("waiting", None)
        assert row["message"].startswith("no node serves it")
        for name in ("b:2", "a:1"):
            await nodes.beat(conn, new_uid(), name, LEASE)
        await nodes.beat(conn, new_uid(), "dead:3", timedelta(0))
        (row,) = await source_views.sources(conn)
    assert (row["state"], row["owner"], row["message"]) == ("running", "a:1, b:2", None)


async def test_a_pause_takes_the_partition_from_its_owner_until_it_is_resumed(pool: Pool) -> None:
    node = new_uid()
    async with pool.acquire() as conn:
        assert await ownership.claim(conn, "lines", "0", node, LEASE, "disk")
        assert await pauses.partitions(conn, "lines") == 1
        assert await pauses.pause(conn, "lines") == 1
        assert await pauses.pause(conn, "lines") == 0
        assert await ownership.claim(conn, "lines", "0", node, LEASE, "disk") is None
        await ownership.report(conn, "lines", "0", "waiting", "looks free")
        (row,) = await source_views.sources(conn)
        assert (row["state"], row["owner"]) == ("paused", None)
        assert await pauses.resume(conn, "lines") == 1
        assert await ownership.claim(conn, "lines", "0", node, LEASE, "disk")


async def test_what_was_measured_is_shown_only_while_it_is_true(pool: Pool) -> None:
    node, lines = new_uid(), Standing("lines", "0", None)
    async with pool.acquire() as conn:
        await nodes.beat(conn, node, "a:1", LEASE)
        assert await ownership.claim(conn, "lines", "0", node, LEASE, "disk")
        await progress.write(conn, [(lines, Progress(7, "lines", "the slot keeps 0 KiB of WAL"))])

        async def shown() -> tuple[object, ...]:
            (row,) = await source_views.sources(conn)
            return tuple(row[word] for word in ("lag", "unit", "note", "measured"))

        assert (await shown())[:3] == (7, "lines", "the slot keeps 0 KiB of WAL")
        await conn.execute("UPDATE progress SET at = at - '16 seconds'::interval")
        assert await shown() == (None,) * 4
        await progress.write(conn, [(lines, Progress(7, "lines"))])
        assert (await shown())[0] == 7
        await pauses.pause(conn, "lines")
        assert await shown() == (None,) * 4


async def test_a_source_that_nobody_serves_does_not_show_an_old_reason(pool: Pool) -> None:
    async with pool.acquire() as conn:
        await nodes.beat(conn, new_uid(), "a:1", LEASE)
        await ownership.report(conn, "lines", "", "waiting", "secret KAFKA is not set")
        (row,) = await source_views.sources(conn)
        assert row["message"] == "secret KAFKA is not set"
        await conn.execute("UPDATE node SET lease_until = now()")
        (row,) = await source_views.sources(conn)
    assert row["message"].startswith("no node serves it")


def test_the_ends_of_a_path_are_looked_up_by_digest() -> None:
    assert views._ends("/a//b/./c") == [b"a/b/c", b"b/c", b"c"]
    assert len(item_key(b"a" * 5000)) == 16
