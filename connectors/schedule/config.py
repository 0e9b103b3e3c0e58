"""The words of a schedule in a rule file."""

from __future__ import annotations

import difflib
from datetime import timedelta
from functools import cache
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from connectors.schedule.cron import NAMES, CronTicks, check_cron
from connectors.schedule.due import CatchUp
from connectors.schedule.ticks import Interval, Ticks
from eventflow.source import Duration
from eventflow.units import DURATION, duration_text, parse_duration

_SHORTEST: Final = timedelta(seconds=1)
_DAY: Final = timedelta(days=1)
_CALENDAR: Final = {"day": NAMES["@daily"], "hour": NAMES["@hourly"]}

Every = Annotated[
    timedelta | Literal["day", "hour"],
    WithJsonSchema({
        "anyOf": [{"enum": [*_CALENDAR]}, {"type": "string", "pattern": f"^{DURATION.pattern}$"}],
        "examples": ["15m", "day"],
    }),
]  # fmt: skip


@cache
def _zones() -> dict[str, str]:
    """Every zone's name by its lower case; without `localtime`, the machine's, and the one that is none."""
    return {name.lower(): name for name in available_timezones() - {"localtime", "Factory"}}


class ScheduleConfig(BaseModel):
    """A clock: `cron`, or `every` so often. Times of day are those of `timezone`, never the machine's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cron: Annotated[str, Field(min_length=1, examples=["0 6 * * *", "@daily"])] | None = None
    every: Every | None = None
    timezone: Annotated[str, Field(examples=["Europe/Berlin"])] = "UTC"
    catch_up: CatchUp = CatchUp.all
    jitter: Duration | None = None

    @field_validator("cron")
    @classmethod
    def _comes(cls, cron: str | None) -> str | None:
        return None if cron is None else check_cron(cron)

    @field_validator("every", mode="before")
    @classmethod
    def _a_word_or_a_duration(cls, value: Any) -> Any:
        if value is None or isinstance(value, timedelta) or value in tuple(_CALENDAR):
            return value
        step = parse_duration(value)
        if step is None:
            raise ValueError(f"{value!r} is neither a duration, like 15m, nor `day` or `hour`")
        if step < _SHORTEST:
            raise ValueError(f"{value!r} is too short; the shortest is 1s")
        return step

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        if name in _zones().values():
            return name
        near = difflib.get_close_matches(name.lower(), _zones(), n=1, cutoff=0.6)
        hint = f"did you mean '{_zones()[near[0]]}'?" if near else "write an IANA name, like Europe/Berlin"
        raise ValueError(f"unknown time zone {name!r}; {hint}")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.cron is None) == (self.every is None):
            raise ValueError('say either `cron: "0 6 * * *"` or `every: 15m`')
        return self

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    def ticks(self) -> Ticks:
        """The schedule that these words describe."""
        if isinstance(self.every, timedelta):
            return Interval(self.every)
        return CronTicks(_CALENDAR[self.every] if self.every else self.cron or "", self.zone)

    def described(self) -> str:
        """What the ticks depend on, as text: kept beside the position, which means nothing to another one.

        `of_described` reads it.
        """
        if isinstance(self.every, timedelta):
            return f"every {duration_text(self.every)}"
        return f"{_CALENDAR[self.every] if self.every else self.cron} {self.timezone}"

    @classmethod
    def of_described(cls, text: str) -> Self:
        """The schedule that `described` told of, without its other words. Raises `ValueError`."""
        first, _, last = text.rpartition(" ")
        return cls.model_validate({"every": last} if first == "every" else {"cron": first, "timezone": last})

    def misunderstood(self) -> str | None:
        """A sentence where days are counted that the zone's clock does not show."""
        every = self.every
        if not isinstance(every, timedelta) or every % _DAY or self.timezone == "UTC":
            return None
        return (
            f"`every: {every.days}d` counts 24 hours at a time from midnight in UTC, whatever `timezone` "
            f"says; for midnight in {self.timezone} say `every: day`, or a cron"
        )
