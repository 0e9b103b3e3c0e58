"""The schedule source: waits for ticks, hands them over, moves the position.

What is due is decided by `context.now()` alone. The machine's clock only says how long to sleep, and in
slices: so a corrected clock, a stopped process or a sleeping machine is noticed within a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
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
FURTHEST_BACK: Final = timedelta(days=366)
"""How far back a person may let it begin, if it does not stand there."""


class ScheduleSource:
    """A clock. Unit of order and parallelism: the source, one partition; ticks come in their order.

    Guarantee: each tick since the first start is an event exactly once, whatever happens to nodes, and
    however late; `catch_up` may leave missed ones out, and says so in the log.
    Position: `{"after": ISO time in UTC, "schedule": text}`. The first start, and a changed schedule, begin
    with the first tick after the moment they are first read; that moment is committed, so that a tick due
    right after it is not lost with the node. What a schedule owed when it was changed is handed over first;
    meanwhile that moment is the position's `"until"`.
    """

    Config: ClassVar[type[BaseModel]] = ScheduleConfig
    delivery: ClassVar[Delivery] = Delivery.ordered

    def __init__(self, name: str, config: ScheduleConfig, context: SourceContext) -> None:
        self._name = name
        self._config = config
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
            if cursor:
                position = _instant(cursor.get("until")) or position
                for batch in self._owed(cursor, position):
                    yield batch
            yield Batch([], cursor=self._cursor(position))
        while True:
            found = due(self._config.ticks(), position, self._now(), self._jitter, self._config.catch_up)
            if found is None:
                await self._wait(position)
                continue
            self._log_skipped(position, found)
            position = found.position
            yield Batch(self._events(found, self._config), cursor=self._cursor(position))

    def _owed(self, cursor: JSON, until: datetime) -> Iterator[Batch]:
        """What another schedule, whose position this is, owed until it was changed: as if it was read then.

        Without its jitter, of which nobody knows any more.
        """
        try:
            old = ScheduleConfig.of_described(cursor["schedule"])
        except ValueError as error:  # of another version, or a zone that is no more
            log.warning(
                "schedule_unreadable", source=self._name, schedule=cursor["schedule"], error=str(error)
            )
            return
        position = datetime.fromisoformat(cursor["after"])
        while found := due(
            old.ticks(), position, until, Jitter(self._name, timedelta(0)), self._config.catch_up
        ):
            self._log_skipped(position, found)
            position = found.position
            at = {"after": _text(position, UTC), "schedule": cursor["schedule"], "until": _text(until, UTC)}
            yield Batch(self._events(found, old), cursor=at)

    def _log_skipped(self, position: datetime, found: Due) -> None:
        if found.skipped:
            log.warning(
                "ticks_skipped", source=self._name, catch_up=self._config.catch_up.value,
                after=_text(position, UTC), until=_text(found.position, UTC),
            )  # fmt: skip

    async def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None:
        """Nobody waits for it."""

    async def refused(self, batch: Batch, error: Exception) -> None:
        """Nobody waits for it."""

    async def progress(self, partition: str, cursor: JSON) -> Progress:
        """`lag` counts ticks whose time has come, up to 1,000."""
        position, now = self._position(cursor), self._now()
        if position is None:
            return Progress(0, "ticks")
        ticks = self._config.ticks()
        tick, lag = ticks.after(position), 0
        while lag < MOST_COUNTED and tick + self._jitter(tick) <= now:
            tick, lag = ticks.after(tick), lag + 1
        return Progress(lag, "ticks", f"next tick {_text(tick, self._config.zone)}" if not lag else None)

    @staticmethod
    def spelled(cursor: JSON) -> str:
        """The time."""
        return str(cursor["after"])

    async def resume_at(self, partition: str, cursor: JSON, where: str) -> Resumption:
        """`earliest` is where it stands, `latest` leaves out what is due, else after the time named.

        Where it goes back nothing is missing: ticks are handed over again.
        """
        now = self._now()
        before = _instant(cursor["after"]) if cursor else None
        if where == "earliest":
            return Resumption(cursor or self._cursor(now), None)
        after = now if where == "latest" else self._time(where, before or now, now)
        if before is None or after <= before:
            return Resumption(self._cursor(after), None)
        return Resumption(self._cursor(after), {"from": _text(before, UTC), "to": _text(after, UTC)})

    def _time(self, where: str, before: datetime, now: datetime) -> datetime:
        """Raises `UsageError` where the text is no time, or one that is rather mistyped than meant."""
        instant = _instant(where)
        if instant is None:
            raise UsageError(
                f"source '{self._name}': {where!r} is neither `earliest`, `latest` nor a time with its zone, "
                f"like {_text(now.replace(microsecond=0), self._config.zone)}"
            )
        if instant > now:
            raise UsageError(
                f"source '{self._name}': {where} is yet to come; `latest` leaves out what is due"
            )
        if instant < min(before, now - FURTHEST_BACK):
            raise UsageError(
                f"source '{self._name}': {where} is more than {FURTHEST_BACK.days} days ago, "
                f"and every tick since would be handed over"
            )
        return instant

    def _position(self, cursor: JSON) -> datetime | None:
        """None at the first start, and where the position is one of another schedule."""
        if not cursor or cursor["schedule"] != self._config.described():
            return None
        return datetime.fromisoformat(cursor["after"])

    def _cursor(self, position: datetime) -> JSON:
        return {"after": _text(position, UTC), "schedule": self._config.described()}

    async def examine(self) -> Sequence[str]:
        """What may be meant otherwise."""
        found = self._config.misunderstood()
        return [found] if found else []

    async def _wait(self, position: datetime) -> None:
        """Until the next tick's turn, or for one slice."""
        tick = self._config.ticks().after(position)
        left = (tick + self._jitter(tick) - self._now()).total_seconds()
        await asyncio.sleep(max(0.001, min(SLICE_SECONDS, left)))

    def _events(self, found: Due, schedule: ScheduleConfig) -> list[Event]:
        events: list[Event] = []
        previous: datetime | None = None
        ticks, zone = schedule.ticks(), schedule.zone
        for tick in found.ticks:
            previous = previous or last_until(ticks, tick - timedelta(microseconds=1))
            events.append(self._event(tick, previous, ticks.after(tick), zone))
            previous = tick
        return events

    def _event(self, tick: datetime, previous: datetime | None, following: datetime, zone: tzinfo) -> Event:
        data = {
            "scheduled": _text(tick, zone),
            "previous": previous and _text(previous, zone),
            "next": _text(following, zone),
        }
        return Event(
            source=self._name, id=_text(tick, UTC), type="schedule.tick", subject=self._name, time=tick,
            data=data, raw=encode_json(data), datacontenttype="application/json",
        )  # fmt: skip


def _instant(text: str | None) -> datetime | None:
    """None where the text is no time, or one without its zone."""
    try:
        found = datetime.fromisoformat(text or "")
        return found.astimezone(UTC) if found.tzinfo else None
    except (ValueError, OverflowError):  # within a day of the year 1 or 9999
        return None


def _text(instant: datetime, zone: tzinfo) -> str:
    """ISO 8601 with the zone's offset, `Z` for UTC itself."""
    text = instant.astimezone(zone).isoformat()
    return text.removesuffix("+00:00") + "Z" if getattr(zone, "key", "UTC") == "UTC" else text
