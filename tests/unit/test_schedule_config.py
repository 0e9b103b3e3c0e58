"""The words of a schedule's block."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from connectors.schedule.config import ScheduleConfig


def config(**words: Any) -> ScheduleConfig:
    return ScheduleConfig.model_validate(words)


def test_defaults() -> None:
    found = config(cron="@daily")
    assert (found.cron, found.timezone, found.catch_up.value, found.jitter) == (
        "0 0 * * *",
        "UTC",
        "all",
        None,
    )
    assert config(every="15m").every == timedelta(minutes=15)


@pytest.mark.parametrize("words", [{}, {"cron": "@daily", "every": "1h"}])
def test_exactly_one_of_cron_and_every(words: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="say either `cron"):
        config(**words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"every": "100ms"}, "the shortest is 1s"),
        ({"every": "week"}, "neither a duration, like 15m, nor `day` or `hour`"),
        ({"every": 15}, "neither a duration"),
        ({"every": "0s"}, "too short"),
        ({"cron": "0 0 30 2 *"}, "never comes"),
        ({"cron": "@daily", "timezone": "Europe/Berln"}, "did you mean 'Europe/Berlin'"),
        ({"cron": "@daily", "timezone": "europe/berlin"}, "did you mean 'Europe/Berlin'"),
        ({"cron": "@daily", "timezone": "../../etc/passwd"}, "unknown time zone"),
        ({"cron": "@daily", "timezone": "?"}, "write an IANA name"),
        ({"cron": "@daily", "timezone": "localtime"}, "unknown time zone"),
        ({"cron": "@daily", "timezone": "Factory"}, "unknown time zone"),
        (
            {"cron": "@reboot"},
            "a schedule knows no restarts. Say when it shall tick, by five fields or `every:`",
        ),
        ({"cron": "@often"}, "write five fields, or one of @yearly"),
        ({"cron": "@daily", "catch_up": "some"}, "'all', 'latest' or 'none'"),
        ({"cron": "@daily", "jitter": "0s"}, "longer than nothing"),
        ({"cron": "@daily", "start": "2026-01-01"}, "Extra inputs"),
    ],
)
def test_what_is_wrong_is_said(words: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config(**words)
    assert said in str(caught.value)


def test_a_day_is_one_of_the_zone_and_a_duration_is_not() -> None:
    assert config(every="day", timezone="Europe/Berlin").described() == "0 0 * * * Europe/Berlin"
    assert config(every="24h", timezone="Europe/Berlin").described() == "every 1d"
    assert config(every="hour").described() == config(cron="@hourly").described()


@pytest.mark.parametrize(
    "words",
    [
        {"every": "1234567s"},
        {"every": "1500ms"},
        {"every": "day", "timezone": "Asia/Tokyo"},
        {"cron": "5 4 * * 1-5"},
    ],
)
def test_what_is_kept_of_a_schedule_says_when_it_ticked(words: dict[str, Any]) -> None:
    described = config(**words).described()
    old = ScheduleConfig.of_described(described)
    moment = datetime(2026, 11, 21, tzinfo=UTC)
    assert old.described() == described
    assert old.ticks().after(moment) == config(**words).ticks().after(moment)


def test_a_day_of_24_hours_in_a_zone_is_pointed_out() -> None:
    said = config(every="1d", timezone="Europe/Berlin").misunderstood()
    assert said is not None
    assert "for midnight in Europe/Berlin say `every: day`" in said
    for words in ({"every": "1d"}, {"every": "day", "timezone": "Europe/Berlin"},
                  {"every": "6h", "timezone": "Europe/Berlin"}):  # fmt: skip
        assert config(**words).misunderstood() is None
