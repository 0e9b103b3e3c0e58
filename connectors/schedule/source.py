"""The schedule source: waits for ticks, hands them over, moves the position.

What is due is decided by `context.now()` alone. The machine's clock only says how long to sleep, and in
slices: so a corrected clock, a stopped process or a sleeping machine is noticed within a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import ClassVar, Final

import structlog
from pydantic import BaseModel

from connectors.schedule.config import ScheduleConfig
from connectors.schedule.due import Due, Jitter, due
from connectors.schedule.ticks import last_until
from eventflow.errors import UsageError
from eventflow.event import JSON, Event, encode_json
from eventflow.offers import Progress, Resumption, Sends
from eventflow.source import Batch, Delivery, Receipt, SourceContext

log = structlog.get_logger()

SLICE_SECONDS: Final = 1.0
MOST_COUNTED: Final = 1_000


class ScheduleSource:
    """A clock. Unit of order and parallelism: the source, one partition; ticks come in their order.

    Guarantee: each tick since the first start is an event exactly once, whatever happens to nodes, and
    however late; `catch_up` may leave missed ones out, and says so in the log.
    Position: `{"after": ISO time in UTC, "schedule": text}`. The first start, and a changed schedule, begin
    with the first tick after the moment they are first read; that moment is committed, so that a tick due
    right after it is not lost with the node.
    """

    Config: ClassVar[type[BaseModel]] = ScheduleConfig
    delivery: ClassVar[Delivery] = Delivery.ordered

    def __init__(self, name: str, config: ScheduleConfig, context: SourceContext) -> None:
        self._name = name
        self._config = config
        self._ticks = config.ticks()
        self._zone = config.zone
        self._jitter = Jitter(name, config.jitter or timedelta(0))
        self._now = context.now

    @classmethod
    def sends(cls, config: ScheduleConfig) -> Sends:
        """For `check`: the one type, and its fields."""
        return Sends(frozenset({"schedule.tick"}), frozenset({"scheduled", "previous", "next"}))

    async def origin(self) -> str | None:
        """Nothing to compare: time is the same everywhere."""
        return None

    async def partitions(self) -> Sequence[str]:
        return [""]

    async def batches(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        """Ticks after the position when their time has come."""
        position = self._position(cursor)
        if position is None:
            position = self._now()
            yield Batch([], cursor=self._cursor(position))
        while True:
            found = due(self._ticks, position, self._now(), self._jitter, self._config.catch_up)
            if found is None:
                await self._wait(position)
                continue
            if found.skipped:
                log.warning(
                    "ticks_skipped", source=self._name, catch_up=self._config.catch_up.value,
                    after=_text(position, UTC), until=_text(found.position, UTC),
                )  # fmt: skip
            position = found.position
            yield Batch(self._events(found), cursor=self._cursor(position))

    async def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None:
        """Nobody waits for it."""

    async def refused(self, batch: Batch, error: Exception) -> None:
        """Nobody waits for it."""

    async def progress(self, partition: str, cursor: JSON) -> Progress:
        """`lag` counts ticks whose time has come, up to 1,000."""
        position, now = self._position(cursor), self._now()
        if position is None:
            return Progress(0, "ticks")
        tick, lag = self._ticks.after(position), 0
        while lag < MOST_COUNTED and tick + self._jitter(tick) <= now:
            tick, lag = self._ticks.after(tick), lag + 1
        return Progress(lag, "ticks", f"next tick {_text(tick, self._zone)}" if not lag else None)

    async def resume_at(self, partition: str, cursor: JSON, where: str) -> Resumption:
        """`earliest` is where it stands, `latest` leaves out what is due, else after the time named."""
        now = self._now()
        before = self._position(cursor) or now
        after = {"earliest": before, "latest": now}.get(where) or self._instant(where)
        missing = {"from": _text(before, UTC), "to": _text(after, UTC)}
        return Resumption(self._cursor(after), missing)

    def _instant(self, where: str) -> datetime:
        """Raises `UsageError` where the text is no time."""
        try:
            instant = datetime.fromisoformat(where)
        except ValueError:
            instant = datetime.min  # noqa: DTZ901 - it has no zone either
        if instant.tzinfo is None:
            raise UsageError(
                f"source '{self._name}': {where!r} is neither `earliest`, `latest` nor a time with its zone, "
                f"like {_text(self._now().replace(microsecond=0), self._zone)}"
            )
        return instant.astimezone(UTC)

    def _position(self, cursor: JSON) -> datetime | None:
        """None at the first start, and where the position is one of another schedule."""
        if not cursor or cursor["schedule"] != self._config.described():
            return None
        return datetime.fromisoformat(cursor["after"])

    def _cursor(self, position: datetime) -> JSON:
        return {"after": _text(position, UTC), "schedule": self._config.described()}

    async def _wait(self, position: datetime) -> None:
        """Until the next tick's turn, or for one slice."""
        tick = self._ticks.after(position)
        left = (tick + self._jitter(tick) - self._now()).total_seconds()
        await asyncio.sleep(max(0.001, min(SLICE_SECONDS, left)))

    def _events(self, found: Due) -> list[Event]:
        events: list[Event] = []
        previous: datetime | None = None
        for tick in found.ticks:
            previous = previous or last_until(self._ticks, tick - timedelta(microseconds=1))
            following = self._ticks.after(tick)
            events.append(self._event(tick, previous, following))
            previous = tick
        return events

    def _event(self, tick: datetime, previous: datetime | None, following: datetime) -> Event:
        data = {
            "scheduled": _text(tick, self._zone),
            "previous": previous and _text(previous, self._zone),
            "next": _text(following, self._zone),
        }
        return Event(
            source=self._name, id=_text(tick, UTC), type="schedule.tick", subject=self._name, time=tick,
            data=data, raw=encode_json(data), datacontenttype="application/json",
        )  # fmt: skip


def _text(instant: datetime, zone: tzinfo) -> str:
    """ISO 8601 with the zone's offset, `Z` for UTC itself."""
    text = instant.astimezone(zone).isoformat()
    return text.removesuffix("+00:00") + "Z" if getattr(zone, "key", "UTC") == "UTC" else text
