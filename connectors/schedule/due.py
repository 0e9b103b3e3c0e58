"""Which ticks are handed over now: a pure decision over the position, the time and the catch-up policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from typing import Final

from connectors.schedule.ticks import Ticks, last_until

MISSED: Final = timedelta(minutes=1)
"""A tick is missed when it is due for longer than this and still not handed over."""
LARGEST_BATCH: Final = 256


class CatchUp(StrEnum):
    """What becomes of missed ticks. Those that are not missed are handed over whatever this says."""

    all = "all"
    """Each is handed over."""
    latest = "latest"
    """Where one is missed, only the last of all ticks that are due is handed over."""
    none = "none"
    """They are skipped."""


@dataclass(frozen=True, slots=True)
class Due:
    """Ticks to hand over, ascending; none where `position` only moves over skipped ones.

    `position` is the last tick that is dealt with; `skipped` says whether some before it were left out.
    """

    ticks: Sequence[datetime]
    position: datetime
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Jitter:
    """How long each tick's handing over is put off: the same on every node and at every try."""

    source: str
    most: timedelta

    def __call__(self, tick: datetime) -> timedelta:
        if not self.most:
            return timedelta(0)
        digest = blake2b(f"{self.source}\0{tick.isoformat()}".encode(), digest_size=8).digest()
        return self.most * (int.from_bytes(digest, "big") / 2**64)


def due(ticks: Ticks, position: datetime, now: datetime, jitter: Jitter, policy: CatchUp) -> Due | None:
    """What is due after `position` at `now`, at most `LARGEST_BATCH` ticks of it; None: nothing yet."""
    first = ticks.after(position)
    late = now - (first + jitter(first))
    if late < timedelta(0):
        return None
    if late > MISSED and policy is CatchUp.latest:
        last = _last_due(ticks, first, now, jitter)
        return Due([last], last, skipped=last != first)
    if late > MISSED and policy is CatchUp.none:
        last = last_until(ticks, now - MISSED - jitter.most)
        return Due([], max(first, last or first), skipped=True)
    found = [first]
    while len(found) < LARGEST_BATCH:
        tick = ticks.after(found[-1])
        if tick + jitter(tick) > now:
            break
        found.append(tick)
    return Due(found, found[-1])


def _last_due(ticks: Ticks, first: datetime, now: datetime, jitter: Jitter) -> datetime:
    """The last tick whose turn has come: past those that surely are due, few are left to look at."""
    last = last_until(ticks, now - jitter.most)
    last = first if last is None else max(first, last)
    tick = ticks.after(last)
    while tick + jitter(tick) <= now:
        last, tick = tick, ticks.after(tick)
    return last
