"""Records of a Kafka source made by hand: what the tests of its formats share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from connectors.kafka.config import KafkaConfig
from connectors.kafka.record import RecordMaker
from eventflow.event import JSON, Broken, Event, Record, decode_json, encode_json

MOMENT = 1_732_184_042_391
"""2024-11-21T10:14:02.391Z in milliseconds."""

Expressions = Mapping[str, Callable[[Mapping[str, JSON]], Any]]


def maker(expressions: Expressions | None = None, **words: Any) -> RecordMaker:
    """`expressions` maps the text of an expression to what it computes."""
    config = KafkaConfig.model_validate(
        {"bootstrap": "broker:9092", "topics": ["t"], "initial": "earliest", **words}
    )
    known = expressions or {}
    return RecordMaker("topic", config, lambda text, _: known[text])


def record(
    value: bytes | None = b'{"a": 1}',
    *,
    key: bytes | None = b"k",
    headers: Sequence[tuple[str, bytes | None]] = (),
    timestamp: int | None = MOMENT,
    expressions: Expressions | None = None,
    **words: Any,
) -> Record:
    """The record at t/3/17; whatever it is, the same comes of its stored bytes and meta."""
    make = maker(expressions, **words)
    made = make.record("t", 3, 17, key, value, headers, timestamp)
    stored = decode_json(encode_json(dict(made.meta)))
    assert stored == made.meta
    assert make.reread(made.raw, stored) == made
    return made


def event(*args: Any, **words: Any) -> Event:
    made = record(*args, **words)
    assert isinstance(made, Event), made
    return made


def broken(*args: Any, **words: Any) -> Broken:
    made = record(*args, **words)
    assert isinstance(made, Broken), made
    return made
