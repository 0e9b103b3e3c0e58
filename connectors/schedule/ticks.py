"""When a schedule ticks: instants in UTC, strictly ascending.

`Ticks` is what the rest of the connector knows of a schedule: an `Interval`, or `cron.CronTicks`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_LOOK_BACK: Final = timedelta(minutes=1)
_LONGEST_LOOK_BACK: Final = timedelta(days=60 * 366)


class Ticks(Protocol):
    """The instants of a schedule. They depend on nothing but the schedule's own words."""

    def after(self, instant: datetime) -> datetime:
        """The first tick strictly after `instant`. Both aware, in UTC."""
        ...


class Interval:
    """Every multiple of `step` since 1970-01-01T00:00:00Z, as tumbling windows are aligned."""

    def __init__(self, step: timedelta) -> None:
        self._step = step

    def after(self, instant: datetime) -> datetime:
        return _EPOCH + ((instant - _EPOCH) // self._step + 1) * self._step


def last_until(ticks: Ticks, instant: datetime) -> datetime | None:
    """The last tick at or before `instant`; None where there was none in 60 years.

    Looks back further and further, so the work is in proportion to the ticks close to `instant`.
    """
    back = _FIRST_LOOK_BACK
    while back < _LONGEST_LOOK_BACK:
        found: datetime | None = None
        tick = ticks.after(instant - back)
        while tick <= instant:
            found, tick = tick, ticks.after(tick)
        if found is not None:
            return found
        back *= 2
    return None
