"""CloudEvents in Kafka records, judged by the CloudEvents project's own SDK."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cloudevents.core.bindings import kafka
from cloudevents.core.bindings.kafka import KafkaMessage
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from eventflow.context import predicate
from eventflow.event import JSON, Event
from tests.unit.kafka_records import broken, event, maker

ATTRIBUTES = {
    "specversion": "1.0", "id": "A234", "source": "/shop", "type": "com.example.paid", "subject": "order-17",
    "time": "2018-04-05T17:31:00Z", "dataschema": "https://example.com/s", "region": "eu",
}  # fmt: skip
STRUCTURED = [("content-type", b"application/cloudevents+json; charset=UTF-8")]


def structured(changes: Mapping[str, Any] = {}, *, without: str = "") -> bytes:
    value = {**ATTRIBUTES, "data": {"total": 5}, **changes}
    value.pop(without, None)
    return json.dumps(value).encode()


def binary(changes: Mapping[str, bytes | None] = {}, *, without: str = "") -> list[tuple[str, bytes | None]]:
    headers: dict[str, bytes | None] = {f"ce_{name}": text.encode() for name, text in ATTRIBUTES.items()}
    headers |= {"content-type": b"application/json"} | dict(changes)
    headers.pop(without, None)
    return list(headers.items())


def taken(value: bytes | None, headers: Any, **words: Any) -> Event:
    return event(value, headers=headers, format="cloudevents", **words)


def reason(value: bytes | None, headers: Any) -> str:
    return broken(value, headers=headers, format="cloudevents").reason


@pytest.mark.parametrize("made", [
    taken(structured(), STRUCTURED),
    taken(structured(), ()),  # the content type is optional in structured mode
    taken(structured(), [("Content-Type", b"Application/CloudEvents+JSON")]),
    taken(structured({"other": None, "data_base64": None}), STRUCTURED),
    taken(b'{"total": 5}', binary()),
    taken(b'{"total": 5}', binary(without="content-type")),
    taken(b'{"total": 5}', [(name.upper(), value) for name, value in binary()]),
])  # fmt: skip
def test_the_senders_own_attributes_are_kept_in_both_modes(made: Event) -> None:
    assert (made.type, made.sender, made.subject) == ("com.example.paid", "/shop", "order-17")
    assert made.time == datetime(2018, 4, 5, 17, 31, tzinfo=UTC)
    assert (made.dataschema, made.extensions) == ("https://example.com/s", {"region": "eu"})
    assert made.data == {"total": 5}
    assert made.source == "topic", "`from:` means the configured source"


def test_two_senders_may_use_the_same_id() -> None:
    """Identity is the position; the sender's id stands in meta."""
    make = maker(format="cloudevents")
    values = (structured(), structured({"source": "/another-shop"}))
    one, other = (make.record("t", 0, at, b"k", value, (), 0) for at, value in enumerate(values))
    assert isinstance(one, Event)
    assert isinstance(other, Event)
    assert (one.id, other.id) == ("t/0/0", "t/0/1")
    assert one.meta["sender_id"] == other.meta["sender_id"] == "A234"
    assert one.dedupe is other.dedupe is None


def test_who_wants_senders_repeats_told_says_so_with_id() -> None:
    text = 'cloudevent.source + " " + cloudevent.id'
    words: dict[str, Any] = {"id": text, "expressions": {text: predicate(text, ("cloudevent",))}}
    one, again = taken(structured(), (), **words), taken(b'{"total": 5}', binary(), **words)
    other = taken(structured({"source": "/another-shop"}), (), **words)
    assert one.id == "/shop A234"
    assert one.dedupe == again.dedupe != other.dedupe


def test_what_the_sender_did_not_set_is_as_for_any_record() -> None:
    value = structured({"subject": None, "time": None, "dataschema": None})
    made = taken(value, STRUCTURED)
    assert (made.subject, made.dataschema) == ("k", None)
    assert made.time == event().time


@pytest.mark.parametrize(
    ("kind", "raw", "data"),
    [
        ("application/json", b"[1]", [1]), ("application/vnd.x+json; charset=utf-8", b'"\xc3\xa9"', "é"),
        ("text/plain", "é".encode(), "é"), ("text/csv; charset=iso-8859-1", b"\xe9", "é"),
        ("application/xml", b"<a/>", "<a/>"), ("application/avro", b"\x00\x01", "AAE="),
    ],
)  # fmt: skip
def test_binary_data_is_read_by_its_media_type_in_both_modes(kind: str, raw: bytes, data: JSON) -> None:
    encoded = base64.b64encode(raw).decode()
    as_text = structured({"datacontenttype": kind, "data_base64": encoded}, without="data")
    for made in (taken(raw, binary({"content-type": kind.encode()})), taken(as_text, STRUCTURED)):
        assert made.data == data
        assert made.datacontenttype == kind


def test_structured_data_is_what_stands_there() -> None:
    assert taken(structured({"data": "[1]"}), STRUCTURED).data == "[1]", "text is not read again"
    assert taken(structured({"data": "<a/>", "datacontenttype": "text/xml"}), STRUCTURED).data == "<a/>"
    assert taken(structured(without="data"), STRUCTURED).data is None
    assert taken(structured({"data_base64": "AAE="}, without="data"), STRUCTURED).data == "AAE="


def test_an_event_without_data_is_an_event_and_a_bare_tombstone_is_one_too() -> None:
    for value in (None, b""):
        made = taken(value, binary())
        assert (made.type, made.sender, made.data) == ("com.example.paid", "/shop", None)
    bare = taken(None, [("content-type", b"application/cloudevents+json")])
    assert (bare.type, bare.data, bare.sender) == ("kafka.record", None, None)


@pytest.mark.parametrize(("text", "moment"), [
    ("2018-04-05T17:31:00.123456789+02:00", datetime(2018, 4, 5, 15, 31, 0, 123456, UTC)),
    ("2018-04-05t17:31:00z", datetime(2018, 4, 5, 17, 31, tzinfo=UTC)),
    ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
])  # fmt: skip
def test_time_is_rfc_3339(text: str, moment: datetime) -> None:
    assert taken(structured({"time": text}), STRUCTURED).time == moment


@pytest.mark.parametrize(("word", "changes"), [
    ("specversion", {"specversion": None}), ("specversion", {"specversion": "0.3"}),
    ("specversion", {"specversion": 1.0}), ("id", {"id": None}), ("id", {"id": ""}), ("id", {"id": 5}),
    ("source", {"source": None}), ("type", {"type": ["a"]}), ("subject", {"subject": ""}),
    ("dataschema", {"dataschema": 1}), ("datacontenttype", {"datacontenttype": {}}),
    ("time", {"time": "yesterday"}), ("time", {"time": "2018-04-05T17:31:00"}),
    ("time", {"time": 1522949460}),
    ("time", {"time": "2018-13-05T17:31:00Z"}), ("time", {"time": "0001-01-01T00:00:00+14:00"}),
    ("time", {"time": "20180405T173100Z"}), ("Region", {"Region": "eu"}), ("re_gion", {"re_gion": "eu"}),
    ("region", {"region": {"a": 1}}), ("region", {"region": 1.5}), ("data_base64", {"data_base64": "AAE="}),
    ("base64", {"data": None, "data_base64": "A"}), ("base64", {"data": None, "data_base64": 5}),
    ("byte 0", {"data": None, "data_base64": "YQ==", "datacontenttype": "text/json"}),
])  # fmt: skip
def test_what_is_no_cloudevent_is_a_dead_letter_that_says_why(word: str, changes: Mapping[str, Any]) -> None:
    assert word in reason(structured(changes), STRUCTURED)


@pytest.mark.parametrize("value", [b"[1]", b"1", b'{"total": 5}', structured(without="specversion")])
def test_neither_headers_nor_an_envelope_is_no_cloudevent(value: bytes) -> None:
    assert "no CloudEvent: neither" in reason(value, ())


@pytest.mark.parametrize(("word", "headers"), [
    ("id", binary(without="ce_id")), ("type", binary({"ce_type": None})), ("id", binary({"ce_id": b""})),
    ("specversion", binary(without="ce_specversion")), ("ce_id", binary({"ce_id": b"\xff"})),
    ("ce_id", [*binary(), ("ce_id", b"B")]), ("data", binary({"ce_data": b"x"})),
    ("avro", [("content-type", b"application/cloudevents+avro")]),
    ("cloudevents-batch", [("content-type", b"application/cloudevents-batch+json")]),
    ("charset", binary({"content-type": b"text/plain; charset=unicode_escape"})),
])  # fmt: skip
def test_headers_that_make_no_cloudevent_are_a_dead_letter_that_says_why(word: str, headers: Any) -> None:
    assert word in reason(b"{}", headers)


# ------------------------------------------------------------------ the SDK as the judge

texts = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFFFD, exclude_categories=["Cs", "Cc", "Cn"]), min_size=1
)
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=offsets)  # noqa: DTZ001 - bounds
extensions = st.dictionaries(
    st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True).filter(
        lambda name: name not in (*ATTRIBUTES, "data", "datacontenttype")
    ),
    texts,
    max_size=3,
).map(lambda found: {name: value for name, value in found.items() if name != "region"})
payloads = st.dictionaries(
    texts,
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
).filter(bool)


@st.composite
def cloudevents(draw: st.DrawFn) -> CloudEvent:
    attributes: dict[str, Any] = {
        "id": draw(texts), "source": draw(texts), "type": draw(texts), "time": draw(moments),
        **draw(extensions),
    }  # fmt: skip
    for name in ("subject", "dataschema"):
        if draw(st.booleans()):
            attributes[name] = draw(texts)
    kind, data = draw(
        st.tuples(st.sampled_from(["application/json", "text/json", "application/x+json"]), payloads)
        | st.tuples(st.just("text/plain"), texts)
        | st.tuples(st.just("application/octet-stream"), st.binary(min_size=1))
        | st.tuples(st.none(), payloads)
    )
    if kind is not None:
        attributes["datacontenttype"] = kind
    return CloudEvent(attributes, data)


def as_read(message: KafkaMessage) -> Event:
    headers: list[tuple[str, bytes | None]] = list(message.headers.items())
    return event(message.value, key=None, headers=headers, timestamp=None, format="cloudevents")


def check(made: Event, sent: CloudEvent) -> None:
    attributes = sent.get_attributes()
    core = ("id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "specversion")
    assert made.meta["sender_id"] == sent.get_id()
    assert (made.sender, made.type, made.subject) == (sent.get_source(), sent.get_type(), sent.get_subject())
    assert (made.time, made.dataschema) == (sent.get_time(), sent.get_dataschema())
    assert made.datacontenttype == sent.get_datacontenttype()
    assert made.extensions == {name: value for name, value in attributes.items() if name not in core}
    data = sent.get_data()
    assert made.data == (base64.b64encode(data).decode() if isinstance(data, bytes) else data)


@given(sent=cloudevents())
def test_what_the_sdk_writes_in_binary_mode_is_read(sent: CloudEvent) -> None:
    check(as_read(kafka.to_binary_event(sent)), sent)


@given(sent=cloudevents())
def test_what_the_sdk_writes_in_structured_mode_is_read(sent: CloudEvent) -> None:
    check(as_read(kafka.to_structured_event(sent)), sent)


@pytest.mark.parametrize("value", [
    structured(), structured({"id": ""}), structured({"source": 5}),
    structured({"type": ""}), structured({"specversion": "2.0"}), structured({"subject": ""}),
    structured({"Upper": "x"}), structured({"with-dash": "x"}), structured({"time": "2018-04-05T17:31:00"}),
    structured({"time": "never"}), structured({"dataschema": ""}), b"{", b"\xff",
])  # fmt: skip
def test_what_the_sdk_refuses_is_a_dead_letter(value: bytes) -> None:
    message = KafkaMessage({"content-type": b"application/cloudevents+json"}, None, value)
    try:
        sent = kafka.from_structured_event(message)
    except Exception:
        assert reason(value, STRUCTURED)
    else:
        assert isinstance(sent, CloudEvent)
        check(as_read(message), sent)
