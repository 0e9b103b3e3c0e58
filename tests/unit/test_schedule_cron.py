"""When a schedule ticks, against an oracle that walks over every minute and asks zoneinfo what it shows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest

from connectors.schedule.cron import NAMES, CronTicks, check_cron
from connectors.schedule.ticks import Interval, last_until

WHOLE = bool(os.environ.get("EVENTFLOW_TEST_ALL_MINUTES"))
"""Every minute of 2025 to 2030 takes minutes; the suite walks the days around changes."""
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Africa/Cairo"]
"""One hour; one hour on other days; half an hour in the south; at midnight; at midnight, doubled 23:xx."""
MINUTE = timedelta(minutes=1)


class Case(NamedTuple):
    """An expression, and the oracle's own reading of it: sets of minutes, hours, months, and a day test."""

    expression: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int] = frozenset(range(1, 32))
    weekdays: frozenset[int] = frozenset(range(7))
    """Monday is 0, as in Python."""

    def fits(self, wall: datetime) -> bool:
        return (
            wall.minute in self.minutes
            and wall.hour in self.hours
            and wall.day in self.days
            and wall.weekday() in self.weekdays
        )

    @property
    def running(self) -> bool:
        minute, hour = self.expression.split()[:2]
        return "*" in (minute[0], hour[0])


ALL_HOURS = frozenset(range(24))
CASES = [
    Case("0 6 * * *", frozenset({0}), frozenset({6})),
    Case("0 0 * * *", frozenset({0}), frozenset({0})),
    Case("30 2 * * *", frozenset({30}), frozenset({2})),
    Case("15,45 0-3 * * *", frozenset({15, 45}), frozenset({0, 1, 2, 3})),
    Case("10 23,0,1,2 * * 0", frozenset({10}), frozenset({23, 0, 1, 2}), weekdays=frozenset({6})),
    Case("5 1 28-31 * *", frozenset({5}), frozenset({1}), frozenset({28, 29, 30, 31})),
    Case("*/30 * * * *", frozenset({0, 30}), ALL_HOURS),
    Case("0 * * * *", frozenset({0}), ALL_HOURS),
    Case("*/20 0-2 * * *", frozenset({0, 20, 40}), frozenset({0, 1, 2})),
    Case("*/15 2 * * 6,0", frozenset({0, 15, 30, 45}), frozenset({2}), weekdays=frozenset({5, 6})),
    Case("7 */2 * * *", frozenset({7}), frozenset(range(0, 24, 2))),
]


class Shown(NamedTuple):
    """What the clock on the wall shows at an instant, and the times it skipped right before."""

    instant: datetime
    wall: datetime
    second_time: bool
    skipped: tuple[datetime, ...]


def shown(zone: ZoneInfo, first: datetime, last: datetime) -> list[Shown]:
    """Minute by minute over [first, last)."""
    found: list[Shown] = []
    instant, before = first, (first - MINUTE).astimezone(zone).replace(tzinfo=None, fold=0)
    while instant < last:
        local = instant.astimezone(zone)
        wall = local.replace(tzinfo=None, fold=0)
        missing = max(0, (wall - before) // MINUTE - 1)
        skipped = tuple(before + n * MINUTE for n in range(1, missing + 1))
        found.append(Shown(instant, wall, local.fold == 1, skipped))
        before, instant = wall, instant + MINUTE
    return found


def walk(case: Case, minutes: Sequence[Shown]) -> list[datetime]:
    """Every instant at which the schedule ticks."""
    return [
        one.instant
        for one in minutes
        if (case.fits(one.wall) and (case.running or not one.second_time))
        or (one.skipped and not case.running and any(map(case.fits, one.skipped)))
    ]


def spans(zone: ZoneInfo) -> Iterator[tuple[datetime, datetime]]:
    """What of 2025 to 2030 to walk over: the day of each change of the zone's offset."""
    first, last = datetime(2025, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
    if WHOLE:
        yield first, last
        return
    day = first
    while day < last:
        after = day + timedelta(days=1)
        if day.astimezone(zone).utcoffset() != after.astimezone(zone).utcoffset():
            yield day - timedelta(hours=6), after + timedelta(hours=6)
        day = after


@pytest.mark.parametrize("name", ZONES)
def test_ticks_are_those_of_a_clock_on_the_wall(name: str) -> None:
    zone = ZoneInfo(name)
    changes = 0
    for first, last in spans(zone):
        changes += 1
        minutes = shown(zone, first, last)
        for case in CASES:
            expected = walk(case, minutes)
            ticks = CronTicks(check_cron(case.expression), zone)
            found: list[datetime] = []
            tick = ticks.after(first - timedelta(microseconds=1))
            while tick < last:
                found.append(tick)
                tick = ticks.after(tick)
            assert found == expected, (case.expression, name, first)
    assert changes >= (1 if WHOLE else 11)


@pytest.mark.parametrize("name", ZONES)
def test_the_next_tick_does_not_depend_on_where_one_asks_from(name: str) -> None:
    """From any minute around a change, in the second half of a doubled hour too."""
    zone = ZoneInfo(name)
    first, last = list(spans(zone))[0 if WHOLE else 1]
    last = min(last, first + timedelta(days=3))
    minutes = shown(zone, first, last)
    for case in CASES:
        ticks = CronTicks(case.expression, zone)
        expected = walk(case, minutes)
        for minute in range(0, int((last - first) / MINUTE), 11):
            instant = first + minute * MINUTE
            following = next((tick for tick in expected if tick > instant), None)
            if following is not None:
                assert ticks.after(instant) == following, (case.expression, instant)


@pytest.mark.parametrize(
    ("expression", "after", "ticks"),
    [
        # Berlin skips 02:00 to 03:00 on 2026-03-29 and doubles it on 2026-10-25.
        ("30 2 * * *", "2026-03-28T12:00Z", ["2026-03-29T01:00Z", "2026-03-30T00:30Z"]),
        ("0,30 2 * * *", "2026-03-28T12:00Z", ["2026-03-29T01:00Z", "2026-03-30T00:00Z"]),
        ("30 2 * * *", "2026-10-24T12:00Z", ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]),
        ("*/30 2 * * *", "2026-10-24T12:00Z",
         ["2026-10-25T00:00Z", "2026-10-25T00:30Z", "2026-10-25T01:00Z", "2026-10-25T01:30Z"]),
        ("45 2 * * *", "2026-10-25T01:30Z", ["2026-10-26T01:45Z"]),
        ("0 0 29 2 *", "2026-01-01T00:00Z", ["2028-02-28T23:00Z", "2032-02-28T23:00Z"]),
        ("0 12 LW * *", "2026-01-01T00:00Z", ["2026-01-30T11:00Z", "2026-02-27T11:00Z"]),
        ("0 12 * * mon#1", "2026-01-01T00:00Z", ["2026-01-05T11:00Z", "2026-02-02T11:00Z"]),
    ],
)  # fmt: skip
def test_days_that_have_no_or_two_of_an_hour(expression: str, after: str, ticks: list[str]) -> None:
    schedule = CronTicks(check_cron(expression), ZoneInfo("Europe/Berlin"))
    instant = datetime.fromisoformat(after)
    for tick in ticks:
        instant = schedule.after(instant)
        assert instant == datetime.fromisoformat(tick)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("0 0 30 2 *", "never comes: month 2 has no day 30"),
        ("0 0 31 4,6,9 *", "never comes: month 4,6,9 has no day 31"),
        ("60 * * * *", "'60' is no minute"),
        ("0 24 * * *", "'24' is no hour"),
        ("0 0 0 * *", "'0' is no day-of-month"),
        ("0 0 * * 5L/2", "'5L/2' is no day-of-week"),
        ("0 6 * *", "has 4 fields; write five"),
        ("0 0 6 * * *", "has 6 fields; write five"),
        ("", "has 0 fields"),
        ("@dayly", "one of @yearly"),
    ],
)
def test_what_never_comes_or_cannot_be_read_is_refused(expression: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        check_cron(expression)
    assert said in str(caught.value)


def test_names_stand_for_their_expressions() -> None:
    assert {check_cron(name) for name in NAMES} == set(NAMES.values())
    assert check_cron("@Daily") == "0 0 * * *"


def test_intervals_are_aligned_to_the_epoch() -> None:
    ticks = Interval(timedelta(minutes=15))
    assert ticks.after(datetime(2026, 1, 1, 0, 7, tzinfo=UTC)) == datetime(2026, 1, 1, 0, 15, tzinfo=UTC)
    assert ticks.after(datetime(2026, 1, 1, 0, 15, tzinfo=UTC)) == datetime(2026, 1, 1, 0, 30, tzinfo=UTC)
    week = Interval(timedelta(days=7)).after(datetime(2026, 1, 1, tzinfo=UTC))
    assert (week - datetime(1970, 1, 1, tzinfo=UTC)) % timedelta(days=7) == timedelta(0)


@pytest.mark.parametrize("expression", ["*/30 * * * *", "0 6 * * *", "0 0 29 2 *"])
def test_the_last_tick_is_found_from_behind(expression: str) -> None:
    ticks = CronTicks(expression, ZoneInfo("Europe/Berlin"))
    instant = datetime(2026, 10, 25, 1, 0, tzinfo=UTC)
    last = last_until(ticks, instant)
    assert last is not None
    assert last <= instant < ticks.after(last)
