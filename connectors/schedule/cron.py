"""Cron expressions in a time zone, with what its clock skips and doubles.

cronsim finds the times of a bare calendar; this module says which instants those are. As in Debian's cron
(cron(8), "Notes") there are two kinds of expression:

- *Fixed*: neither minute nor hour begins with `*`. Each time is one instant: a skipped time the first one
  after the gap, a doubled time the first of the two.
- *Running*: minute or hour begins with `*`. It ticks whenever the clock on the wall shows a time that fits:
  in both halves of a doubled hour, and not in a skipped one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from cronsim import CronSim, CronSimError

NAMES: Final[Mapping[str, str]] = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS: Final = ("minute", "hour", "day-of-month", "month", "day-of-week")
_LATER: Final = datetime(2000, 1, 1)  # noqa: DTZ001 - a bare calendar, to find out whether a time ever comes
_DAY: Final = timedelta(days=1)
_SECOND: Final = timedelta(seconds=1)


def check_cron(text: str) -> str:
    """The five fields of `text`, which may be a name like `@daily`.

    Raises `ValueError` saying what is wrong: a name or field that nobody knows, or a time that never comes.
    """
    expression = NAMES.get(text.lower()) if text.startswith("@") else text
    if text.lower() == "@reboot":
        raise ValueError(
            "'@reboot' is no time: a schedule knows no restarts. Say when it shall tick, by five fields "
            "or `every:`"
        )
    if expression is None:
        raise ValueError(f"{text!r} is no schedule; write five fields, or one of {', '.join(NAMES)}")
    fields = expression.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(
            f"{text!r} has {len(fields)} fields; write five: minute, hour, day of month, month, day of week"
        )
    try:
        next(CronSim(expression, _LATER))
    except (CronSimError, AssertionError, TypeError) as error:  # `5L/2` trips over its own checks
        raise ValueError(_why(text, fields)) from error
    except StopIteration:
        raise ValueError(f"{text!r} never comes: no such date in 50 years") from None
    return " ".join(fields)


def _why(text: str, fields: list[str]) -> str:
    """Which field is wrong; where each is fine by itself, together they name a date that does not exist."""
    for index, name in enumerate(_FIELDS):
        alone = ["*"] * len(_FIELDS)
        alone[index] = fields[index]
        try:
            CronSim(" ".join(alone), _LATER)
        except (CronSimError, AssertionError, TypeError):
            return f"{text!r}: {fields[index]!r} is no {name}"
    return f"{text!r} never comes: month {fields[3]} has no day {fields[2]}"


class CronTicks:
    """The ticks of a checked expression in `zone`."""

    def __init__(self, expression: str, zone: tzinfo) -> None:
        self._expression = expression
        self._zone = zone
        minute, hour = expression.split()[:2]
        self._running = minute.startswith("*") or hour.startswith("*")

    def after(self, instant: datetime) -> datetime:
        return self._running_after(instant) if self._running else self._fixed_after(instant)

    def _fixed_after(self, instant: datetime) -> datetime:
        """Times of the calendar in their order are instants in theirs; what coincides after a gap is one."""
        for wall in CronSim(self._expression, self._wall(instant)):
            tick = self._first_instant(wall)
            if tick > instant:
                return tick
        raise AssertionError("a checked expression goes on for ever")

    def _running_after(self, instant: datetime) -> datetime:
        """From change to change of the zone's offset; between two, the calendar runs like UTC does."""
        start, wall = instant, self._wall(instant)
        while True:
            offset = self._offset(start)
            tick = (next(CronSim(self._expression, wall)) - offset).replace(tzinfo=UTC)
            change = self._change(start, tick)
            if change is None:
                return tick
            start, wall = change, self._wall(change) - _SECOND  # the change itself may be a tick

    def _wall(self, instant: datetime) -> datetime:
        """What the clock on the wall shows, without a zone."""
        return instant.astimezone(self._zone).replace(tzinfo=None)

    def _offset(self, instant: datetime) -> timedelta:
        offset = instant.astimezone(self._zone).utcoffset()
        assert offset is not None
        return offset

    def _first_instant(self, wall: datetime) -> datetime:
        """The first instant at which the wall shows `wall`, or else the end of the gap that it falls into.

        In a gap, fold 0 reads the time with the offset from before it: an instant past the gap (PEP 495).
        """
        instant = wall.replace(tzinfo=self._zone).astimezone(UTC)
        if self._wall(instant) == wall:
            return instant
        change = self._change(instant - _DAY, instant)
        assert change is not None
        return change

    def _change(self, after: datetime, until: datetime) -> datetime | None:
        """The first change of offset in (after, until], to the second. Zones change at most once a day."""
        low = after
        while low < until:
            high = min(low + _DAY, until)
            if self._offset(low) != self._offset(high):
                return self._search(low, high)
            low = high
        return None

    def _search(self, low: datetime, high: datetime) -> datetime:
        """The change lies in (low, high]."""
        low = low.replace(microsecond=0)
        before = self._offset(low)
        while high - low > _SECOND:
            middle = low + (high - low) // 2
            middle = middle.replace(microsecond=0)
            if self._offset(middle) == before:
                low = middle
            else:
                high = middle
        return high.replace(microsecond=0)
