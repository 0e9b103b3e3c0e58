"""The schedule source on a clock of the test's own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from connectors.schedule import ScheduleSource
from connectors.schedule.config import ScheduleConfig
from eventflow.errors import UsageError
from eventflow.event import Event
from eventflow.source import Batch
from eventflow.testing.reading import Core


class Reads:
    """A source from its first start on, on a clock of the test's own."""

    def __init__(self, **words: Any) -> None:
        self.now = datetime(2026, 10, 24, 12, 0, tzinfo=UTC)
        self.words = words
        self.cursor: Any = None

    def source(self) -> ScheduleSource:
        context = replace(Core(Path()).context(), now=lambda: self.now)
        return ScheduleSource("clock", ScheduleConfig.model_validate(self.words), context)

    async def batch(self) -> Batch:
        """The next batch, committed."""
        batches = self.source().batches("", self.cursor)
        async with asyncio.timeout(5):
            batch = await anext(batches)
        await batches.aclose()
        self.cursor = batch.cursor
        return batch

    async def ids(self) -> list[str]:
        return [record.id for record in (await self.batch()).records if isinstance(record, Event)]


async def test_an_event_says_when_it_was_scheduled_in_the_time_of_its_zone() -> None:
    reads = Reads(cron="30 2 * * *", timezone="Europe/Berlin")
    await reads.batch()
    reads.now += timedelta(hours=12, minutes=31)
    (event,) = (await reads.batch()).records
    assert isinstance(event, Event)
    assert (event.id, event.type, event.subject) == ("2026-10-25T00:30:00Z", "schedule.tick", "clock")
    assert event.data == {
        "scheduled": "2026-10-25T02:30:00+02:00",
        "previous": "2026-10-24T02:30:00+02:00",
        "next": "2026-10-26T02:30:00+01:00",
    }


async def test_the_first_start_has_no_past_and_is_committed_at_once() -> None:
    """Else a tick due right after it would be lost with the node that died before handing it over."""
    reads = Reads(every="15m")
    begin = await reads.batch()
    assert (list(begin.records), begin.cursor["after"]) == ([], "2026-10-24T12:00:00Z")
    reads.now += timedelta(hours=1)
    assert await reads.ids() == [f"2026-10-24T1{t}:00Z" for t in ("2:15", "2:30", "2:45", "3:00")]


async def test_another_schedule_begins_when_it_is_first_read() -> None:
    """Hours that the old one has not ticked in are no ticks of the new one."""
    reads = Reads(cron="0 0 * * *")
    await reads.batch()
    reads.now += timedelta(hours=2)
    reads.words = {"every": "1m"}
    assert await reads.ids() == []
    reads.now += timedelta(minutes=1)
    assert await reads.ids() == ["2026-10-24T14:01:00Z"]


async def test_what_a_schedule_owed_when_it_was_changed_is_handed_over() -> None:
    reads = Reads(cron="0 0 * * *", timezone="Europe/Berlin")
    await reads.batch()
    reads.now += timedelta(days=2)
    reads.words = {"every": "1h"}
    (first, _) = (await reads.batch()).records
    assert isinstance(first, Event)
    assert first.id == "2026-10-24T22:00:00Z"
    assert first.data["scheduled"] == "2026-10-25T00:00:00+02:00", "in its own zone"
    reads.now += timedelta(hours=3)  # on another node, after some time
    assert (await reads.batch()).cursor == {"after": "2026-10-26T12:00:00Z", "schedule": "every 1h"}
    assert await reads.ids() == [f"2026-10-26T1{hour}:00:00Z" for hour in (3, 4, 5)]


async def test_what_a_schedule_owed_comes_in_batches_up_to_when_the_change_was_read() -> None:
    reads = Reads(every="5s")
    await reads.batch()
    reads.now += timedelta(hours=1)
    reads.words = {"every": "6s"}
    found: list[str] = []
    for _ in range(3):
        found += await reads.ids()
        reads.now += timedelta(minutes=1)
    assert len(found) == 720
    assert (found[0], found[-1]) == ("2026-10-24T12:00:05Z", "2026-10-24T13:00:00Z")
    assert await reads.ids() == []
    assert (await reads.ids())[0] == "2026-10-24T13:00:06Z"


@pytest.mark.parametrize(("policy", "handed"), [("latest", ["2026-10-24T13:00:00Z"]), ("none", [])])
async def test_what_a_schedule_owed_and_is_not_handed_over_is_said(policy: str, handed: list[str]) -> None:
    reads = Reads(every="20m")
    await reads.batch()
    reads.now += timedelta(hours=1, minutes=10)
    reads.words = {"every": "7m", "catch_up": policy}
    with capture_logs() as said:
        assert await reads.ids() == handed
    assert [(one["event"], one["after"], one["until"]) for one in said] == [
        ("ticks_skipped", "2026-10-24T12:00:00Z", "2026-10-24T13:00:00Z")
    ]
    assert await reads.ids() == []
    assert reads.cursor == {"after": "2026-10-24T13:10:00Z", "schedule": "every 7m"}


async def test_a_schedule_that_nobody_can_read_any_more_owes_nothing() -> None:
    reads = Reads(every="20m")
    reads.cursor = {"after": "2026-10-24T11:00:00Z", "schedule": "0 0 * * * Europe/Atlantis"}
    with capture_logs() as said:
        assert await reads.ids() == []
    assert [one["event"] for one in said] == ["schedule_unreadable"]
    assert reads.cursor["schedule"] == "every 20m"


async def test_check_points_at_days_of_24_hours() -> None:
    (sentence,) = await Reads(every="2d", timezone="Europe/Berlin").source().examine()
    assert "`every: 2d` counts 24 hours at a time" in sentence
    assert await Reads(every="day", timezone="Europe/Berlin").source().examine() == []


async def test_other_words_than_those_of_its_ticks_leave_the_position() -> None:
    reads = Reads(every="1h")
    await reads.batch()
    reads.now += timedelta(hours=5, seconds=30)
    reads.words = {"every": "60m", "catch_up": "latest", "jitter": "10s", "timezone": "Asia/Tokyo"}
    assert await reads.ids() == ["2026-10-24T17:00:00Z"]


async def test_skipped_ticks_move_the_position() -> None:
    reads = Reads(every="1h", catch_up="none")
    await reads.batch()
    reads.now += timedelta(hours=5, minutes=30)
    assert await reads.ids() == []
    assert reads.cursor["after"] == "2026-10-24T17:00:00Z"


async def test_a_corrected_clock_is_noticed_while_it_waits() -> None:
    reads = Reads(every="1h")
    await reads.batch()
    batches = reads.source().batches("", reads.cursor)
    waiting = asyncio.ensure_future(anext(batches))
    await asyncio.sleep(0)
    reads.now += timedelta(hours=1)
    async with asyncio.timeout(5):
        (event,) = (await waiting).records
    assert isinstance(event, Event)
    assert event.id == "2026-10-24T13:00:00Z"
    await batches.aclose()


async def test_progress_counts_ticks_that_are_due() -> None:
    reads = Reads(every="1m")
    await reads.batch()
    source = reads.source()
    assert await source.progress("", None)
    found = await source.progress("", reads.cursor)
    assert (found.lag, found.unit, found.note) == (0, "ticks", "next tick 2026-10-24T12:01:00Z")
    reads.now += timedelta(hours=1)
    assert (await source.progress("", reads.cursor)).lag == 60
    reads.now += timedelta(days=365)
    assert (await source.progress("", reads.cursor)).lag == 1_000


async def test_a_person_lets_it_go_on_at_a_time() -> None:
    reads = Reads(every="1h", timezone="Europe/Berlin")
    await reads.batch()
    reads.now += timedelta(days=2, minutes=30)
    found = await reads.source().resume_at("", reads.cursor, "2026-10-26T12:00:00+01:00")
    assert found.missing == {"from": "2026-10-24T12:00:00Z", "to": "2026-10-26T11:00:00Z"}
    reads.cursor = found.cursor
    assert await reads.ids() == ["2026-10-26T12:00:00Z"]
    found = await reads.source().resume_at("", reads.cursor, "2026-10-25T00:00:00Z")
    assert found.missing is None, "it goes back"
    for where in (
        "yesterday",
        "2026-10-26T12:00:00",
        "0001-01-01T00:00:00+02:00",
        "9999-12-31T23:59:59-02:00",
    ):
        with pytest.raises(UsageError, match=r"nor a time with its zone, like 2026-10-26T13:30:00\+01:00"):
            await reads.source().resume_at("", reads.cursor, where)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("9999-12-31T23:59:59+00:00", "is yet to come"),
        ("2026-10-24T12:00:01Z", "is yet to come"),
        ("2006-10-24T12:00:00Z", "more than 366 days ago"),
        ("0001-01-02T00:00:00+00:00", "more than 366 days ago"),
    ],
)
async def test_a_time_that_is_rather_mistyped_is_refused(where: str, said: str) -> None:
    reads = Reads(cron="0 0 * * *", timezone="Europe/Berlin")
    await reads.batch()
    with pytest.raises(UsageError, match=said):
        await reads.source().resume_at("", reads.cursor, where)


async def test_where_it_stands_is_not_too_far_back() -> None:
    reads = Reads(cron="0 0 1 1 *")
    reads.cursor = {"after": "2020-01-01T00:00:00Z", "schedule": "0 0 1 1 * UTC"}
    found = await reads.source().resume_at("", reads.cursor, "2022-01-01T00:00:00Z")
    assert found.missing == {"from": "2020-01-01T00:00:00Z", "to": "2022-01-01T00:00:00Z"}
    assert (await reads.source().resume_at("", reads.cursor, "earliest")).cursor == reads.cursor
