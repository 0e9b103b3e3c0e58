"""Which ticks are handed over now: the catch-up policies and jitter."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from connectors.schedule.cron import CronTicks
from connectors.schedule.due import LARGEST_BATCH, CatchUp, Jitter, due
from connectors.schedule.ticks import Interval, Ticks

NOON = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
PROMPT = Jitter("clock", timedelta(0))
EVERY_MINUTE = Interval(MINUTE)


def handed(
    policy: CatchUp, now: datetime, ticks: Ticks = EVERY_MINUTE, jitter: Jitter = PROMPT
) -> list[datetime]:
    """All ticks handed over between noon and `now`, batch by batch."""
    position, found = NOON, list[datetime]()
    while batch := due(ticks, position, now, jitter, policy):
        assert len(batch.ticks) <= LARGEST_BATCH
        assert batch.position > position
        found += batch.ticks
        position = batch.position
    assert ticks.after(position) + jitter(ticks.after(position)) > now
    return found


def test_nothing_is_due_before_its_time() -> None:
    before = NOON + MINUTE - timedelta(microseconds=1)
    assert due(EVERY_MINUTE, NOON, before, PROMPT, CatchUp.all) is None
    assert handed(CatchUp.all, NOON + MINUTE) == [NOON + MINUTE]


def test_a_clock_that_was_set_back_hands_over_nothing_twice() -> None:
    assert due(EVERY_MINUTE, NOON, NOON - HOUR, PROMPT, CatchUp.all) is None


@pytest.mark.parametrize("policy", CatchUp)
def test_a_tick_is_not_missed_within_a_minute(policy: CatchUp) -> None:
    assert handed(policy, NOON + timedelta(minutes=2)) == [NOON + MINUTE, NOON + 2 * MINUTE]


def test_all_hands_over_each_missed_tick_in_batches() -> None:
    found = handed(CatchUp.all, NOON + timedelta(days=3))
    assert found == [NOON + n * MINUTE for n in range(1, 3 * 24 * 60 + 1)]


def test_latest_hands_over_the_last_of_those_due() -> None:
    assert handed(CatchUp.latest, NOON + timedelta(days=3, seconds=30)) == [NOON + timedelta(days=3)]


def test_none_skips_what_is_missed_and_no_more() -> None:
    now = NOON + timedelta(days=3, seconds=30)
    assert handed(CatchUp.none, now) == [NOON + timedelta(days=3)]
    daily = CronTicks("0 6 * * *", ZoneInfo("Europe/Berlin"))
    assert handed(CatchUp.none, now, daily) == []
    assert handed(CatchUp.latest, now, daily) == [datetime(2026, 1, 4, 5, 0, tzinfo=UTC)]


@pytest.mark.parametrize("policy", [CatchUp.latest, CatchUp.none])
def test_skipping_a_year_of_seconds_takes_no_time(policy: CatchUp) -> None:
    begun = time.process_time()
    assert len(handed(policy, NOON + timedelta(days=365), Interval(timedelta(seconds=1)))) <= 61
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("policy", CatchUp)
def test_jitter_puts_ticks_off_and_loses_none(policy: CatchUp) -> None:
    jitter = Jitter("clock", timedelta(seconds=50))
    now, found = NOON, list[datetime]()
    position = NOON
    while now < NOON + HOUR:
        now += timedelta(seconds=1)
        batch = due(EVERY_MINUTE, position, now, jitter, policy)
        if batch:
            assert [tick for tick in batch.ticks if tick + jitter(tick) > now] == []
            assert now - (batch.ticks[0] + jitter(batch.ticks[0])) < timedelta(seconds=1)
            found += batch.ticks
            position = batch.position
    assert found == [NOON + n * MINUTE for n in range(1, len(found) + 1)]
    assert len(found) >= 59


def test_jitter_is_the_same_on_every_node_and_differs_between_sources_and_ticks() -> None:
    most = timedelta(seconds=30)
    offs = [Jitter(name, most)(NOON + n * MINUTE) for name in ("a", "b") for n in range(20)]
    assert offs == [Jitter(name, most)(NOON + n * MINUTE) for name in ("a", "b") for n in range(20)]
    assert len(set(offs)) == 40
    assert all(timedelta(0) <= off < most for off in offs)


def test_jitter_longer_than_the_interval_keeps_the_order() -> None:
    jitter = Jitter("clock", timedelta(minutes=10))
    found = handed(CatchUp.all, NOON + HOUR, jitter=jitter)
    assert found == [NOON + n * MINUTE for n in range(1, len(found) + 1)]
    assert len(found) >= 40
