"""Positions as tables show them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from connectors.kafka import KafkaSource
from connectors.kafka.position import Position
from connectors.kafka.resume import _missing
from connectors.postgres_cdc import PostgresCdcSource
from connectors.schedule import ScheduleSource
from connectors.sql_watermark import SqlWatermarkSource
from eventflow.cli.positions import place_text, position_text, range_text
from eventflow.cli.sources import _spelled
from eventflow.event import JSON, encode_json


@pytest.mark.parametrize(
    ("factory", "cursor", "text"),
    [
        (KafkaSource, {"offset": 5, "first": 0, "topic_id": "8b0a", "epoch": 3}, "5"),
        (PostgresCdcSource, {"lsn": "0/1B5BE58", "n": 2, "timeline": 1}, "0/1B5BE58"),
        (ScheduleSource, {"after": "2026-11-21T13:00:00Z", "schedule": "@hourly"}, "2026-11-21T13:00:00Z"),
        (SqlWatermarkSource, {"value": "41", "table": 1, "sequence": 2, "column": 1, "type": "bigint"}, "41"),
        (SqlWatermarkSource, {"value": None, "table": 1, "sequence": 2, "column": 1, "type": "bigint"}, "-"),
        (object, {"line": 3}, '{"line":3}'),
        (PostgresCdcSource, None, "null"),
    ],
)
def test_a_position_stands_in_the_form_that_resume_takes(factory: object, cursor: JSON, text: str) -> None:
    assert position_text(factory, encode_json(cursor).decode()) == text


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        (None, None),
        ({"topic": "t", "partition": 0, "from": 5, "to": 9}, "5 to 9"),
        ({"from": "0/1B", "to": None, "reason": "lost"}, "0/1B to ?"),
        ([{"from": 5, "to": None, "topic_id": "old"}, {"from": 0, "to": 0}], "5 to ?, 0 to 0"),
        ({"first": 2, "last": 5}, '{"first":2,"last":5}'),
    ],
)
def test_a_range_says_from_where_to_where(missing: JSON, text: str | None) -> None:
    assert range_text(missing) == text


@pytest.mark.parametrize(("offset", "text"), [(0, "5 to ?"), (1, "5 to ?, 0 to 0"), (3, "5 to ?, 0 to 2")])
def test_what_a_new_topic_has_before_the_position_is_passed_over_too(offset: int, text: str) -> None:
    old, now = Position(5, uuid4()), Position(offset, uuid4(), first=offset)
    assert range_text(_missing(("payments.v1", 0), old, now, 0)) == text


def test_lists_show_positions_in_their_short_form() -> None:
    row = {"source": "payments", "position": '{"offset":5,"first":0}', "missing": {"from": 5, "to": 9}}
    specs: Any = {"payments": SimpleNamespace(factory=KafkaSource)}
    assert _spelled([row], specs, "position") == [row | {"position": "5", "missing": "5 to 9"}]
    assert _spelled([row], {}, "position") == [row | {"missing": "5 to 9"}], "it was removed"


def test_the_place_of_a_record_reads_like_the_id_that_it_would_have_had() -> None:
    assert place_text({"topic": "orders.v1", "partition": 3, "offset": 17}) == "orders.v1/3/17"
    assert place_text("landing/a.csv") == "landing/a.csv"
    assert place_text(None) is None
