"""Sources in trouble, and out of it: each change is told once, whoever looks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from eventflow.errors import SourceUnavailable
from eventflow.event import JSON, Event, encode_json, new_uid
from eventflow.ingest import Ingest, Work
from eventflow.measure import Measure
from eventflow.offers import Progress
from eventflow.revisions import Revisions
from eventflow.rulefile.load import load
from eventflow.source import Batch
from eventflow.store import effects, health, nodes, ownership, pauses
from eventflow.store.ownership import Claim
from eventflow.store.pool import Pool
from eventflow.store.signals import Signals
from eventflow.store.views import sources as views

LEASE = timedelta(seconds=30)
STALLED, STOPPED, RECOVERED = (f"eventflow.source.{one}" for one in ("stalled", "stopped", "recovered"))


class Line:
    """Partition '0' of source `lines`, read by one node, with a past that the test gives it."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool = pool
        self.node = new_uid()
        self.ingest = Ingest(pool, LEASE, Revisions(pool, {}, folder), Signals(str(self.node)))

    async def claim(self, partition: str = "0") -> Claim:
        async with self.pool.acquire() as conn:
            claim = await ownership.claim(conn, "lines", partition, self.node, LEASE, None)
        assert claim is not None
        return claim

    async def take(self, claim: Claim, *numbers: int) -> None:
        events = [Event("lines", f"{n}", "line", n, encode_json(n)) for n in numbers]
        await self.ingest._commit(Work("lines", claim.partition, Batch(events, cursor={"at": 1}), claim))
        claim.version += 1

    async def release(self, claim: Claim, state: str, message: str | None, missing: JSON = None) -> None:
        async with self.pool.acquire() as conn:
            await ownership.release(conn, claim, state, message, missing)

    async def tell(self, *, wanted: bool = True) -> list[Event]:
        async with self.pool.acquire() as conn:
            return await health.tell(conn, ["lines"], LEASE, lambda _type: wanted)

    async def past(self, seconds: float, columns: str = "since, unread, last_event") -> None:
        """All of this happened so many seconds earlier."""
        moved = ", ".join(f"{one} = {one} - $1::interval" for one in columns.split(", "))
        await self.execute(f"UPDATE source_partition SET {moved}", timedelta(seconds=seconds))

    async def execute(self, statement: Any, *values: Any) -> None:
        async with self.pool.acquire() as conn:
            await conn.execute(statement, *values)

    async def row(self) -> dict[str, Any]:
        async with self.pool.acquire() as conn:
            return next(row for row in await views.sources(conn) if row["partition"] == "0")

    async def rhythm(self, claim: Claim, seconds: Sequence[float]) -> None:
        """A batch with one event after each of these intervals."""
        await self.take(claim, 0)
        for number, gap in enumerate(seconds, 1):
            await self.past(gap)
            await self.take(claim, number)


@pytest.fixture
async def line(pool: Pool, tmp_path: Path) -> Line:
    return Line(pool, tmp_path)


async def test_the_usual_rhythm_is_learnt_from_batches_with_events(line: Line) -> None:
    claim = await line.claim()
    await line.rhythm(claim, [5] * 20)
    row = await line.row()
    assert row["rhythm"].total_seconds() == pytest.approx(5, rel=0.05)
    assert row["rate"] == pytest.approx(0.2, rel=0.25)
    assert row["taken"] == 21


async def test_a_burst_once_a_day_is_no_talk_all_day(line: Line) -> None:
    claim = await line.claim()
    await line.rhythm(claim, [0.01] * 30 + [86_400] + [0.01] * 30)
    assert (await line.row())["rhythm"] > timedelta(hours=12)
    await line.past(6 * 3600)
    assert await line.tell() == []


async def test_a_position_alone_is_no_event(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = await line.claim()
    await line.take(claim, 1)
    before = await line.row()
    monkeypatch.delattr(effects, "write")  # one statement moves the position, and that is all
    await line.take(claim)
    after = await line.row()
    names = ("last_event", "taken", "rhythm")
    assert [after[name] for name in names] == [before[name] for name in names]
    assert claim.version == 2


async def test_a_silence_far_beyond_the_rhythm_is_told_once(line: Line) -> None:
    claim = await line.claim()
    await line.rhythm(claim, [20] * 12)
    await line.past(150)
    assert await line.tell() == [], "less than ten times its rhythm"
    await line.past(100)
    told = await asyncio.gather(*(line.tell() for _ in range(4)))
    (event,) = [event for some in told for event in some]
    assert (event.type, event.subject, event.source) == (STALLED, "lines", "eventflow")
    assert event.data["partition"] == "0"
    assert event.data["position"] == {"at": 1}
    assert event.data["reason"].startswith("nothing has come for 25")
    assert (await line.row())["stalled"] is not None
    await line.past(500, "since")
    assert await line.tell() == []
    await line.take(claim, 99)
    (event,) = await line.tell()
    assert (event.type, event.data["was"]) == (RECOVERED, "stalled")
    row = await line.row()
    assert row["stalled"] is None
    assert row["rhythm"] < timedelta(seconds=30), "a stall teaches nothing"


async def test_few_intervals_are_no_rhythm(line: Line) -> None:
    claim = await line.claim()
    await line.rhythm(claim, [1] * 5)
    await line.past(3600)
    assert await line.tell() == []


async def test_a_silence_counts_from_when_it_was_read_again(line: Line) -> None:
    claim = await line.claim()
    await line.rhythm(claim, [1] * 12)
    async with line.pool.acquire() as conn:
        await pauses.pause(conn, "lines")
    await line.past(3600)
    assert await line.tell() == []
    async with line.pool.acquire() as conn:
        await pauses.resume(conn, "lines")
    again = await line.claim()
    assert await line.tell() == []
    await line.take(again, 77)
    assert (await line.row())["rhythm"] < timedelta(seconds=2), "a pause is no interval"


async def test_what_cannot_be_read_for_longer_than_a_lease_is_stalled(line: Line) -> None:
    await line.release(await line.claim(), "waiting", "broker away")
    await line.past(20)
    assert await line.tell() == []
    await line.release(await line.claim(), "waiting", "broker still away")  # tried again in between
    await line.past(20)
    (event,) = await line.tell()
    assert (event.type, event.data["reason"]) == (STALLED, "broker still away")
    claim = await line.claim()
    assert await line.tell() == [], "being tried is not being read"
    await line.take(claim, 1)
    (event,) = await line.tell()
    assert event.type == RECOVERED


async def test_a_source_to_which_nothing_comes_recovers_by_being_read(line: Line) -> None:
    await line.release(await line.claim(), "waiting", "broker away")
    await line.past(40)
    assert [event.type for event in await line.tell()] == [STALLED]
    claim = await line.claim()
    await line.past(31)
    assert [event.type for event in await line.tell()] == [RECOVERED]
    await line.release(claim, "waiting", None)
    await line.claim()
    assert await line.tell() == [], "a change of owner is no trouble"


async def test_a_short_failure_is_forgotten_once_it_is_read(line: Line) -> None:
    await line.release(await line.claim(), "waiting", "broker away")
    claim = await line.claim()
    await line.past(31)
    assert await line.tell() == []
    await line.release(claim, "waiting", None)
    await line.past(31)
    await line.claim()
    assert await line.tell() == []


def test_rules_that_ask_for_news_of_sources_are_foreseen() -> None:
    def said(type_: str) -> list[str]:
        text = f"rules: {{r: {{from: eventflow, match: {{type: eventflow.source.{type_}}}, emit: e}}}}"
        return [one.message for one in load({"r.yaml": text.encode()}, Path("/set"), {}).warnings]

    assert [said(one) for one in ("stalled", "stopped", "recovered")] == [[], [], []]
    (warning,) = said("stoped")
    assert "did you mean 'eventflow.source.stopped'?" in warning


async def test_a_stop_is_told_with_what_is_missing_and_its_end_too(line: Line) -> None:
    await line.release(await line.claim(), "stopped", "offsets 5 to 9 are gone", {"from": 5, "to": 9})
    (event,) = await line.tell()
    assert (event.type, event.data["missing"]) == (STOPPED, {"from": 5, "to": 9})
    assert await line.tell() == []
    assert (await line.row())["missing"] == {"from": 5, "to": 9}
    async with line.pool.acquire() as conn:
        assert await pauses.resume(conn, "lines") == 1
    await line.release(await line.claim(), "stopped", "offsets 5 to 9 are gone", {"from": 5, "to": 9})
    assert await line.tell() == [], "it never was well in between"
    async with line.pool.acquire() as conn:
        await pauses.resume(conn, "lines")
    await line.take(await line.claim(), 1)
    (event,) = await line.tell()
    assert (event.type, event.data["was"]) == (RECOVERED, "stopped")


async def test_only_what_a_rule_asks_for_goes_into_the_outbox(line: Line) -> None:
    await line.release(await line.claim(), "stopped", "gone")
    assert len(await line.tell(wanted=False)) == 1
    await line.release(await line.claim("1"), "stopped", "gone")
    assert len(await line.tell()) == 1
    async with line.pool.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM outbox") == 1


async def test_a_source_that_cannot_be_opened_at_all_stalls_and_recovers(line: Line) -> None:
    async with line.pool.acquire() as conn:
        await ownership.report(conn, "lines", "", "waiting", "no such folder")
    await line.past(31)
    (event,) = await line.tell()
    assert (event.type, event.data["partition"]) == (STALLED, "")
    async with line.pool.acquire() as conn:
        (event,) = await health.take_back_report(conn, "lines", lambda _type: True)
        assert await health.take_back_report(conn, "lines", lambda _type: True) == []
        assert await conn.fetchval("SELECT count(*) FROM outbox") == 2
    assert event.type == RECOVERED


async def test_partitions_speak_for_a_source_that_has_some(line: Line) -> None:
    await line.release(await line.claim(), "waiting", None)
    async with line.pool.acquire() as conn:
        await ownership.report_unopened(conn, "lines", "broker away")
    assert (await line.row())["state"] == "waiting"
    await line.past(20)
    async with line.pool.acquire() as conn:
        await ownership.report_unopened(conn, "lines", "broker still away")
    await line.past(20)
    (event,) = await line.tell()
    assert (event.data["partition"], event.data["reason"]) == ("0", "broker still away")


async def test_what_is_read_by_another_node_is_not_told_to_be_away(line: Line) -> None:
    await line.claim()
    async with line.pool.acquire() as conn:
        await ownership.report_unopened(conn, "lines", "secret K is not set")
        assert await conn.fetchval("SELECT count(*) FROM source_partition WHERE unread IS NOT NULL") == 0


async def test_an_owner_that_died_while_its_system_was_away_is_told(line: Line) -> None:
    """Nobody released it, and nobody can open it: it counts from the end of its lease."""
    await line.claim()
    await line.past(61, "lease_until, since")
    async with line.pool.acquire() as conn:
        await ownership.report_unopened(conn, "lines", "broker away")
        await nodes.beat(conn, new_uid(), "another", LEASE)
        await conn.execute("UPDATE node SET started = now() - interval '1 hour'")
    assert (await line.row())["message"] == "broker away"
    (event,) = await line.tell()
    assert (event.type, event.data["reason"]) == (STALLED, "broker away")


async def test_it_counts_only_while_a_node_tries(line: Line) -> None:
    await line.release(await line.claim(), "waiting", "secret K is not set")
    await line.past(3600)
    async with line.pool.acquire() as conn:
        await nodes.beat(conn, line.node, "young", LEASE)
    assert await line.tell() == []
    claim = await line.claim()
    await line.execute("UPDATE node SET started = started - interval '31 s'")
    assert await line.tell() == [], "it is being read"
    await line.release(claim, "waiting", "broker away")
    (event,) = await line.tell()
    assert (event.type, event.data["reason"]) == (STALLED, "broker away")


async def test_what_went_long_without_events_recovers_by_being_read(line: Line) -> None:
    claim = await line.claim()
    await line.rhythm(claim, [1] * 12)
    await line.release(claim, "stopped", "gone")
    assert [event.type for event in await line.tell()] == [STOPPED]
    await line.past(3600)
    async with line.pool.acquire() as conn:
        await pauses.resume(conn, "lines")
    await line.claim()
    assert await line.tell() == []
    await line.past(31, "since")
    (event,) = await line.tell()
    assert (event.type, event.data["was"]) == (RECOVERED, "stopped")


async def test_silence_does_not_end_by_a_change_of_owner(line: Line) -> None:
    claim = await line.claim()
    await line.rhythm(claim, [1] * 12)
    await line.past(3600)
    (event,) = await line.tell()
    assert event.type == STALLED
    await line.release(claim, "waiting", None)
    assert await line.tell() == []
    again = await line.claim()
    await line.past(31, "since")
    assert await line.tell() == []
    await line.take(again, 99)
    (event,) = await line.tell()
    assert (event.type, event.data["was"]) == (RECOVERED, "stalled")


async def test_one_node_that_cannot_serve_what_is_pushed_does_not_speak_for_all(line: Line) -> None:
    async def push(number: int) -> None:
        await line.ingest._commit(Work("lines", "", Batch([Event("lines", f"{number}", "t", 1, b"1")])))

    async with line.pool.acquire() as conn:
        await ownership.report(conn, "lines", "", "waiting", "secret K is not set")
        await push(1)
        (row,) = await conn.fetch("SELECT state, message, unread FROM source_partition")
    assert (row["state"], row["message"], row["unread"]) == ("running", None, None)


async def test_what_is_pushed_has_recovered_as_soon_as_it_is_served(line: Line) -> None:
    async with line.pool.acquire() as conn:
        await nodes.beat(conn, line.node, "a node", LEASE)
        await conn.execute("UPDATE node SET started = now() - interval '1 hour'")
        await ownership.report(conn, "lines", "", "waiting", "secret K is not set")
        await line.past(31)
        assert [event.type for event in await line.tell()] == [STALLED]
        await ownership.report(conn, "lines", "", "running", None)
        (row,) = await views.sources(conn)
        assert (row["state"], row["message"]) == ("running", None)
        assert [event.type for event in await line.tell()] == [RECOVERED]
        (row,) = await views.sources(conn)
    assert row["stalled"] is None


async def test_what_is_pushed_to_a_paused_source_is_refused_at_once(line: Line) -> None:
    async with line.pool.acquire() as conn:
        assert await pauses.pause(conn, "lines") == 1, "before it was ever opened"
        with pytest.raises(SourceUnavailable, match="is paused"):
            await line.ingest._commit(Work("lines", "", Batch([Event("lines", "1", "t", 1, b"1")])))
        assert await conn.fetchval("SELECT count(*) FROM event") == 0


class Measurable:
    """A source that says how far behind it is, or what keeps it from saying."""

    def __init__(self, answer: Progress | Exception) -> None:
        self.answer = answer
        self.asked: list[tuple[str, JSON]] = []

    async def progress(self, partition: str, cursor: JSON) -> Progress:
        self.asked.append((partition, cursor))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Read:
    def __init__(self, source: Measurable) -> None:
        self.source = source


def measuring(line: Line, source: Measurable, node: UUID | None = None) -> Measure:
    readings: Any = {"lines": Read(source)}
    return Measure(line.pool, node or line.node, readings)


async def test_the_owner_measures_how_far_behind_it_is(line: Line) -> None:
    await line.take(await line.claim(), 1)
    source = Measurable(Progress(7, "records", "slow disk"))
    await measuring(line, source, new_uid()).once()
    assert source.asked == [], "another node reads it"
    await measuring(line, source).once()
    assert source.asked == [("0", {"at": 1})]
    row = await line.row()
    assert (row["lag"], row["unit"], row["note"]) == (7, "records", "slow disk")
    assert row["measured"] is not None


async def test_a_system_that_does_not_tell_harms_nobody(
    line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    await line.claim()
    source = Measurable(ZeroDivisionError("hm"))
    measure = measuring(line, source)
    for _ in range(3):
        await measure.once()
    assert capsys.readouterr().out.count("not_measured") == 1
    source.answer = Progress(None, "rows")
    await measure.once()
    assert ((await line.row())["lag"], (await line.row())["unit"]) == (None, "rows")
