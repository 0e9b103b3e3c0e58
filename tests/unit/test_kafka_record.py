"""What a record of a topic becomes, whatever its format."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.kafka.config import KafkaConfig
from connectors.kafka.record import VARIABLES, RecordMaker
from eventflow.context import predicate
from eventflow.errors import Undecodable
from eventflow.event import JSON, Broken, Event
from tests.unit.kafka_records import MOMENT, Expressions, broken, event, maker, record

PLACEHOLDER = "__debezium_unavailable_value"
POISON = {
    "bad JSON": b'{"order": 17',
    "a NUL character": b'{"a": "\\u0000"}',
    "a NUL byte": b'{"a": "\x00"}',
    "a lone surrogate": b'{"a": "\\ud800"}',
    "too deep": b"[" * 100_000 + b"]" * 100_000,
    "a number of 5,000 digits": b"9" * 5_000,
    "NaN": b'{"a": NaN}',
    "no UTF-8": b'{"a": "\xff"}',
    "empty": b"",
}


def test_a_record_is_known_by_its_position() -> None:
    made = event()
    assert (made.source, made.id, made.type, made.subject) == ("topic", "t/3/17", "kafka.record", "k")
    assert (made.data, made.raw) == ({"a": 1}, b'{"a": 1}')
    assert made.time == datetime(2024, 11, 21, 10, 14, 2, 391_000, UTC)
    assert made.meta == {
        "topic": "t", "partition": 3, "offset": 17, "key": "k", "headers": {}, "timestamp": MOMENT,
    }  # fmt: skip
    assert made.dedupe is None


def test_the_same_value_at_another_offset_is_another_event() -> None:
    """Two offsets are two facts; who says otherwise writes `id:`."""
    make = maker()
    first, second = (make.record("t", 0, offset, b"k", b'{"order": 1}', (), 0) for offset in (1, 2))
    assert isinstance(first, Event)
    assert isinstance(second, Event)
    assert first.id != second.id
    assert first.dedupe is second.dedupe is None


def test_a_business_key_tells_repeats_whatever_the_offset() -> None:
    by_order: Expressions = {"data.order": lambda v: v["data"]["order"]}
    make = maker(by_order, id="data.order")
    values = (b'{"order": 7}', b'{"order": 7, "again": true}', b'{"order": 8}')
    first, again, other = (make.record("t", 0, at, b"k", value, (), 0) for at, value in enumerate(values))
    assert isinstance(first, Event)
    assert first.id == "7"
    assert first.dedupe
    assert first.dedupe == again.dedupe != other.dedupe


@pytest.mark.parametrize("format_", ["json", "text", "bytes", "cloudevents", "debezium"])
def test_a_tombstone_is_an_event_without_data(format_: str) -> None:
    made = event(None, format=format_)
    assert (made.id, made.type, made.subject, made.data, made.raw) == (
        "t/3/17",
        "kafka.record",
        "k",
        None,
        b"",
    )
    assert made.meta["tombstone"] is True
    assert "tombstone" not in event(b"null").meta, "a value that is the JSON null is a value"


def test_a_tombstone_that_an_expression_fails_on_keeps_the_defaults() -> None:
    def fails(_: Any) -> JSON:
        raise Undecodable("no such key: order")

    words: dict[str, Any] = dict.fromkeys(("id", "type", "subject", "time"), "x")
    made = event(None, expressions={"x": fails}, **words)
    assert (made.id, made.type, made.subject, made.dedupe) == ("t/3/17", "kafka.record", "k", None)
    assert made.time == event().time
    assert broken(b"{}", expressions={"x": fails}, **words).reason == "no such key: order"


def test_expressions_are_asked_of_tombstones_too() -> None:
    assert event(None, id="x", expressions={"x": lambda v: v["key"]}).id == "k"


def test_a_record_without_a_key_has_no_subject() -> None:
    made = event(key=None)
    assert made.subject is None
    assert made.meta["key"] is None
    assert event(key=b"").subject is None
    assert event(key=b"").meta["key"] == ""


@pytest.mark.parametrize("key", [b"\xff\xfe", b"a\x00b", (42).to_bytes(8, "big")])
def test_a_key_that_is_no_text_is_base64(key: bytes) -> None:
    made = event(key=key)
    kept = made.meta["key"]["base64"]
    assert made.subject == f"base64:{kept}"


def test_headers_are_text_a_repeated_name_a_list_and_bytes_base64() -> None:
    made = event(
        headers=[("a", b"1"), ("b", b"\xff"), ("a", b"2"), ("c", None), ("a", b"\x00"), ("\x00", b"")]
    )
    assert made.meta["headers"] == {
        "a": ["1", "2", {"base64": "AA=="}], "b": {"base64": "/w=="}, "c": None, "\\x00": "",
    }  # fmt: skip


@pytest.mark.parametrize(("timestamp", "year"), [(0, 1970), (1 << 42, 2109), (253_402_300_799_999, 9999)])
def test_the_records_timestamp_is_the_events_time(timestamp: int, year: int) -> None:
    made = event(timestamp=timestamp).time
    assert made == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=timestamp)
    assert made
    assert made.year == year


@pytest.mark.parametrize("timestamp", [None, -1, 1 << 62])
def test_a_timestamp_that_is_none_is_no_time(timestamp: int | None) -> None:
    made = event(timestamp=timestamp)
    assert made.time is None
    assert made.meta["timestamp"] == timestamp


@pytest.mark.parametrize(
    ("format_", "value", "data"),
    [("json", b"[1, 2.5]", [1, 2.5]), ("json", b"null", None), ("text", "é\n".encode(), "é\n"),
     ("text", b"", ""), ("bytes", b"\x00\xff", "AP8="), ("bytes", b"", "")],
)  # fmt: skip
def test_a_value_is_read_by_its_format(format_: str, value: bytes, data: JSON) -> None:
    made = event(value, format=format_)
    assert (made.data, made.raw) == (data, value)


def test_the_content_type_is_kept_and_decides_nothing() -> None:
    for format_ in ("json", "text", "bytes"):
        made = event(b"1", format=format_, headers=[("Content-Type", b"text/csv")])
        assert made.datacontenttype == "text/csv"
    assert event(headers=[("content-type", b"\xff")]).datacontenttype is None
    assert event(headers=[("content-type", b"a/b"), ("content-type", b"c/d")]).datacontenttype == "a/b"


@pytest.mark.parametrize("value", POISON.values(), ids=list(POISON))
@pytest.mark.parametrize("format_", ["json", "cloudevents", "debezium"])
def test_poison_is_kept_whole_with_its_reason_and_position(value: bytes, format_: str) -> None:
    made = broken(value, format=format_)
    assert made.raw == value
    assert made.reason
    assert made.position == {"topic": "t", "partition": 3, "offset": 17}
    assert made.meta["key"] == "k"


@pytest.mark.parametrize("value", [b"\xff", b"a\x00"])
def test_text_that_is_none_is_poison_too(value: bytes) -> None:
    assert broken(value, format="text").raw == value


def test_a_value_of_a_schema_registry_says_so() -> None:
    """Another serializer than was agreed on: each such record is a dead letter, and the reason helps."""
    for format_ in ("json", "cloudevents", "debezium"):
        reason = broken(b"\x00\x00\x00\x00\x2a\x02\x06foo", format=format_).reason
        assert "schema id 42" in reason
        assert "registries are not supported" in reason


def test_a_broken_record_has_no_key_that_its_mended_repeat_would_share() -> None:
    by_header: Expressions = {"x": lambda v: v["headers"]["id"]}
    assert broken(b"{", headers=[("id", b"7")], id="x", expressions=by_header).dedupe is None


def test_attributes_come_from_expressions_over_data_and_transport() -> None:
    seen: dict[str, JSON] = {}

    def look(values: Any) -> JSON:
        seen.update(values)
        return f"{values['topic']}-{values['partition']}-{values['offset']}-{values['headers']['h']}"

    words: dict[str, Any] = {"id": "x", "type": "x", "subject": "x", "time": "w"}
    made = event(
        headers=[("h", b"1")],
        expressions={"x": look, "w": lambda _: "2026-02-03T04:05:06+02:00"},
        **words,
    )
    assert made.id == made.type == made.subject == "t-3-17-1"
    assert made.time == datetime(2026, 2, 3, 2, 5, 6, tzinfo=UTC)
    assert set(seen) == set(VARIABLES)
    assert (seen["key"], seen["data"], seen["cloudevent"]) == ("k", {"a": 1}, {})


def test_expressions_are_cel() -> None:
    config = KafkaConfig.model_validate({
        "bootstrap": "b", "topics": ["t"], "initial": "latest", "id": "data.order", "subject": "key",
        "type": '"payments." + headers["kind"]', "time": 'timestamp(data.at)',
    })  # fmt: skip
    make = RecordMaker("topic", config, predicate)
    value = b'{"order": 12345678901234567890, "at": "2026-01-01T00:00:00Z"}'
    made = make.record("t", 0, 1, b"c-9", value, [("kind", b"sent")], 0)
    assert isinstance(made, Event), made
    assert (made.id, made.type, made.subject) == ("12345678901234567890", "payments.sent", "c-9")
    assert made.time == datetime(2026, 1, 1, tzinfo=UTC)
    assert isinstance(make.record("t", 0, 2, b"c-9", b"{}", [], 0), Broken)
    assert isinstance(make.record("t", 0, 3, b"c-9", None, [], 0), Event)


@pytest.mark.parametrize(
    ("word", "value"),
    [("id", None), ("id", ""), ("id", True), ("id", 1.5), ("id", "a\x00"), ("id", "\ud800"), ("type", None),
     ("subject", 1.5), ("time", 5), ("time", "yesterday"), ("time", "2026-02-03T04:05:06")],
)  # fmt: skip
def test_an_expression_that_gives_no_such_attribute_makes_a_dead_letter(word: str, value: JSON) -> None:
    assert word in broken(**{word: "x"}, expressions={"x": lambda _: value}).reason


def test_subject_and_time_may_be_null() -> None:
    made = event(subject="x", time="x", expressions={"x": lambda _: None})
    assert made.subject is made.time is None


def test_a_mended_value_is_an_event_with_the_identity_of_its_position() -> None:
    kept = broken(b"{")
    mended = maker().reread(b'{"a": 2}', kept.meta)
    assert isinstance(mended, Event)
    assert (mended.id, mended.data) == ("t/3/17", {"a": 2})


def test_a_tombstone_that_was_given_a_value_is_one_no_more() -> None:
    mended = maker().reread(b"1", event(None).meta)
    assert isinstance(mended, Event)
    assert mended.data == 1
    assert "tombstone" not in mended.meta


def test_bytes_without_their_meta_read_all_the_same() -> None:
    assert isinstance(maker().reread(b"{}", {}), Event)
    assert isinstance(maker().reread(b"{", {}), Broken)


names = st.text(max_size=8) | st.sampled_from(
    ["content-type", "ce_id", "ce_type", "ce_source", "ce_specversion", "CE_time", "ce_data", "ce_x"]
)
values = st.none() | st.binary(max_size=12) | st.sampled_from([b"1.0", b"application/cloudevents+json", b"a"])
pieces = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["op", "source", "after", "before", "schema", "payload", "table", "ts_ms", "id", "type", "time",
             "specversion", "data_base64", "data", "datacontenttype", "lsn", "db", "x"]
        ),
        inner | st.sampled_from(["c", "u", "1.0", PLACEHOLDER, {"table": "t"}]),
        max_size=6,
    ),
    max_leaves=12,
)  # fmt: skip


def as_bytes(value: JSON) -> bytes:
    return json.dumps(value).encode(errors="surrogatepass")


@given(
    value=st.none() | st.binary(max_size=40) | pieces.map(as_bytes),
    key=st.none() | st.binary(max_size=12),
    headers=st.lists(st.tuples(names, values), max_size=6),
    timestamp=st.none() | st.integers(-(2**63), 2**63 - 1),
    format_=st.sampled_from(["json", "text", "bytes", "cloudevents", "debezium"]),
)
def test_whatever_is_produced_becomes_a_record_with_its_bytes(
    value: bytes | None,
    key: bytes | None,
    headers: list[tuple[str, bytes | None]],
    timestamp: int | None,
    format_: str,
) -> None:
    made = record(value, key=key, headers=headers, timestamp=timestamp, format=format_)
    assert made.raw == (value or b"")
    assert "\x00" not in repr(made.meta).replace("\\x00", "")
    for text in (getattr(made, name, None) for name in ("id", "type", "subject", "sender", "reason")):
        assert text is None or ("\x00" not in text and text.encode())
