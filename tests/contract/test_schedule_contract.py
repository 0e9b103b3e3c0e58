"""The schedule source keeps the contract. What is sent to a clock is time: `send` moves it on by a tick."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from connectors.schedule import ScheduleSource
from connectors.schedule.config import ScheduleConfig
from eventflow.event import Event
from eventflow.source import Batch, Source, SourceContext
from eventflow.testing.reading import Reading
from eventflow.testing.source_contract import OrderedSourceContract
from tests.contract.test_docs_connectors import run, write_files

HOUR = timedelta(hours=1)


class TestScheduleContract(OrderedSourceContract):
    words: ClassVar[dict[str, Any]] = {"every": "1h"}

    @pytest.fixture(autouse=True)
    def _clock(self) -> None:
        """Half past an hour: whatever time the tests take, only `send` brings a tick."""
        now = datetime.now(UTC)
        self.begin = now.replace(minute=0, second=0, microsecond=0) + HOUR / 2
        self.ahead = self.begin - now
        self.sent: list[str] = []

    def make(self, context: SourceContext) -> Source:
        return ScheduleSource("clock", ScheduleConfig.model_validate(self.words), context)

    def reading(self) -> Reading:
        """Of a source that was first started when the test began: ticks before its first start are none."""
        self.core.ahead = self.ahead
        if self.core.cursor("") is None:
            at = self.begin.isoformat()
            schedule = ScheduleConfig.model_validate(self.words).described()
            self.core.commit("", Batch([], cursor={"after": at, "schedule": schedule}))
        return super().reading()

    async def send(self, key: str) -> None:
        self.sent.append(key)
        self.core.ahead = self.ahead = self.ahead + HOUR

    async def send_broken(self) -> bytes | None:
        """A clock cannot say anything that is no time."""
        return None

    def key_of(self, event: Event) -> str:
        scheduled = datetime.fromisoformat(event.data["scheduled"])
        assert event.time == scheduled
        return self.sent[(scheduled - self.begin) // HOUR]


class TestCronContract(TestScheduleContract):
    words: ClassVar[dict[str, Any]] = {"cron": "0 * * * *", "timezone": "Europe/Berlin", "jitter": "10s"}


def test_the_rule_file_of_the_page_loads(tmp_path: Path) -> None:
    assert write_files("schedule.md", tmp_path) == ["rules/close.yaml"]
    run(tmp_path, "-m", "eventflow", "check", "rules")
