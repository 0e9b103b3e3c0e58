"""What needs a person is believed only where it is said for a while, and nothing else meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from connectors.kafka import patience
from connectors.kafka.config import KafkaConfig
from connectors.kafka.patience import SURE_ANSWERS, SURE_SECONDS, Doubt, Doubted
from connectors.kafka.position import Gap, Position
from eventflow.errors import SourceStopped

CUT = SourceStopped("the log was cut")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets seconds pass."""
    now = 1000.0

    def later(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(patience.time, "monotonic", lambda: now)
    return later


def said(doubt: Doubt, reason: str = "truncated") -> type[Exception]:
    with pytest.raises((Doubted, SourceStopped)) as raised:
        doubt.unless_sure(reason, CUT)
    return raised.type


def test_a_broker_that_is_behind_for_a_moment_stops_nothing(passes: Callable[[float], None]) -> None:
    """However often it says so."""
    doubt = Doubt()
    for _ in range(SURE_ANSWERS * 5):
        assert said(doubt) is Doubted
        passes(SURE_SECONDS / SURE_ANSWERS / 5 * 0.99)
    passes(SURE_SECONDS)
    assert said(doubt) is SourceStopped


def test_one_slow_answer_is_not_enough_either(passes: Callable[[float], None]) -> None:
    doubt = Doubt()
    for _ in range(SURE_ANSWERS - 1):
        assert said(doubt) is Doubted
        passes(SURE_SECONDS)
    assert said(doubt) is SourceStopped


def test_another_oddity_or_a_good_answer_begins_anew(passes: Callable[[float], None]) -> None:
    doubt = Doubt()
    for number in range(SURE_ANSWERS * 3):
        assert said(doubt, ("truncated", "retention")[number % 2]) is Doubted
        passes(SURE_SECONDS)
    for _ in range(SURE_ANSWERS * 3):
        assert said(doubt) is Doubted
        doubt.over()
        passes(SURE_SECONDS)


@pytest.mark.parametrize("ends", [5, 8, 11])
def test_a_log_that_was_cut_lacks_at_least_the_last_record_that_was_read(ends: int) -> None:
    stop = Gap("orders", "t", 0, Position(8, None, 3)).cut(ends)
    assert (stop.missing["from"], stop.missing["to"]) == (min(ends, 7), 7)


@pytest.mark.parametrize("timestamp", ["1969-12-31T23:59:59.999Z", "1970-01-01T00:59:59+01:00"])
def test_no_timestamp_is_taken_for_latest_or_earliest(timestamp: str) -> None:
    """In milliseconds they are below zero, and -1 is Kafka's word for latest."""
    words = {"bootstrap": "b", "topics": ["t"], "initial": {"timestamp": timestamp}}
    with pytest.raises(ValidationError, match="records are stamped from 1970-01-01T00:00:00Z on"):
        KafkaConfig.model_validate(words)
    words["initial"] = {"timestamp": "1970-01-01T01:00:00+01:00"}
    assert KafkaConfig.model_validate(words)
