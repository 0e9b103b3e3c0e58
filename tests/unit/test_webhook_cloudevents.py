"""CloudEvents over HTTP in three modes, as the CNCF's own library writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.webhook.cloudevents import TooManyMembers
from connectors.webhook.config import WebhookConfig
from connectors.webhook.record import Received, RecordMaker
from eventflow.event import JSON, Broken, Event, Record
from eventflow.source import Predicate

STRUCTURED = {"content-type": "application/cloudevents+json; charset=utf-8"}
BATCHED = {"content-type": "application/cloudevents-batch+json"}
ORDER = {
    "specversion": "1.0",
    "id": "o-7",
    "source": "/shops/7",
    "type": "shop.order.created",
    "data": {"n": 7},
}


def maker(expressions: Mapping[str, Any] | None = None, **words: Any) -> RecordMaker:
    def compiled(text: str, variables: Sequence[str]) -> Predicate:
        return (expressions or {})[text]

    return RecordMaker("hook", WebhookConfig.model_validate({"verify": "none", **words}), None, compiled)


def made(body: bytes, headers: Mapping[str, str], **words: Any) -> Record | Sequence[Record]:
    sent = {name.lower().encode(): value.encode("latin-1") for name, value in headers.items()}
    return maker(**words).records(Received(sent, b"", "10.0.0.1", body))


def event(body: JSON, headers: Mapping[str, str] = STRUCTURED, **words: Any) -> Event:
    one = made(body if isinstance(body, bytes) else json.dumps(body).encode(), headers, **words)
    assert isinstance(one, Event), one
    return one


def reason(body: JSON, headers: Mapping[str, str] = STRUCTURED, **words: Any) -> str:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    one = made(raw, headers, **words)
    assert isinstance(one, Broken), one
    assert one.raw == raw
    return one.reason


def members(body: JSON, **words: Any) -> Sequence[Record]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    all_of_it = made(raw, BATCHED, **words)
    assert isinstance(all_of_it, list), all_of_it
    return all_of_it


# ---------------------------------------------------------------------- as the library writes them


NAMES = st.from_regex(r"[a-z][a-z0-9]{2,18}", fullmatch=True)
TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00", exclude_categories=["Cc", "Cs"]), min_size=1
)
ATTRIBUTES = st.fixed_dictionaries(
    {
        "id": TEXT, "source": TEXT, "type": TEXT, "specversion": st.just("1.0"),
        "time": st.datetimes(timezones=st.just(UTC)),  # the library makes one up where there is none
    },
    optional={
        "subject": TEXT, "dataschema": TEXT,
        "datacontenttype": st.just("application/json"),
        "comexampleextension": TEXT, "traceparent": TEXT,
    },
)  # fmt: skip
DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def check(one: Event, attributes: Mapping[str, Any], data: JSON) -> None:
    assert (one.id, one.sender, one.type) == (attributes["id"], attributes["source"], attributes["type"])
    assert (one.subject, one.dataschema) == (attributes.get("subject"), attributes.get("dataschema"))
    assert one.time == attributes.get("time")
    assert one.source == "hook"
    extensions = {n: attributes[n] for n in ("comexampleextension", "traceparent") if n in attributes}
    assert one.extensions == extensions
    assert one.data == data


@settings(max_examples=50)
@given(attributes=ATTRIBUTES, data=DATA)
def test_structured_as_the_library_writes_it(attributes: dict[str, Any], data: JSON) -> None:
    message = to_structured(CloudEvent(dict(attributes), data), JSONFormat())
    one = event(message.body, message.headers)
    check(one, attributes, data)
    assert one.raw == message.body
    assert one.datacontenttype == attributes.get("datacontenttype")
    assert maker().reread(one.raw, one.meta) == one


@settings(max_examples=50)
@given(attributes=ATTRIBUTES, data=st.dictionaries(TEXT, DATA, max_size=3))
def test_binary_as_the_library_writes_it(attributes: dict[str, Any], data: JSON) -> None:
    sent = attributes | {"datacontenttype": "application/json"}
    message: HTTPMessage = to_binary(CloudEvent(dict(sent), data), JSONFormat())
    one = event(message.body, message.headers)
    check(one, attributes, data)
    assert (one.raw, one.datacontenttype) == (message.body, "application/json")
    assert maker().reread(one.raw, one.meta) == one


@settings(max_examples=30)
@given(events=st.lists(st.tuples(ATTRIBUTES, DATA), max_size=4))
def test_a_batch_as_the_library_writes_it(events: list[tuple[dict[str, Any], JSON]]) -> None:
    bodies = [to_structured(CloudEvent(dict(given), data), JSONFormat()).body for given, data in events]
    records = members(b"[" + b" ,\n".join(bodies) + b"]")
    for record, body, (attributes, data) in zip(records, bodies, events, strict=True):
        assert isinstance(record, Event)
        check(record, attributes, data)
        assert record.raw == body
        assert maker().reread(record.raw, record.meta) == record


# ---------------------------------------------------------------------- what the sender gave stays


def test_extensions_of_a_structured_event_keep_their_types() -> None:
    one = event(ORDER | {"partition": 3, "sampled": True, "traceparent": "00-a", "gone": None})
    assert one.extensions == {"partition": 3, "sampled": True, "traceparent": "00-a"}


def test_times_are_those_of_rfc_3339() -> None:
    for text in ("2016-12-31T23:59:60Z", "2017-01-01t00:00:00z", "2017-01-01T05:30:00.000000001+05:30"):
        assert event(ORDER | {"time": text}).time == datetime(2017, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "text"),
    [("plain", "plain"), ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"), ('"a b \\" c"', 'a b " c'),
     ("%25%32%30", "%20"), ("a%2", "a%2"), ("é".encode().decode("latin-1"), "é")],
)  # fmt: skip
def test_headers_are_unquoted_and_decoded_once(value: str, text: str) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t", "ce-subject": value}
    assert event(b"{}", headers | {"content-type": "application/json"}).subject == text


def test_binary_data_is_any_content() -> None:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-source": "s",
        "ce-type": "t",
        "content-type": "text/csv",
    }
    one = event(b"a,b", headers)
    assert (one.data, one.datacontenttype, one.raw) == ("a,b", "text/csv", b"a,b")
    for kind in ("application/octet-stream", "application/json", "text/plain"):
        assert event(b"", headers | {"content-type": kind}).data is None


@pytest.mark.parametrize(
    ("given", "data"),
    [({"data": "<a/>", "datacontenttype": "text/xml"}, "<a/>"), ({"data": None}, None), ({}, None),
     ({"data_base64": "AP8=", "datacontenttype": "image/png"}, "AP8="), ({"data_base64": "AP8="}, "AP8="),
     ({"data_base64": "eyJhIjoxfQ==", "datacontenttype": "application/json"}, {"a": 1}),
     ({"data_base64": "", "data": {"a": 1}}, None), ({"data": 10**30}, 10**30)],
)  # fmt: skip
def test_data_of_a_structured_event(given: dict[str, Any], data: JSON) -> None:
    body = {name: value for name, value in ORDER.items() if name != "data"} | given
    if "data_base64" in given and given.get("data"):
        assert "both data and data_base64" in reason(body)
    else:
        assert event(body).data == data


def test_expressions_go_before_what_the_sender_gave_and_see_its_data() -> None:
    expressions = {"i": lambda v: v["data"]["n"], "t": lambda _: "order"}
    one = event(ORDER, id="i", type="t", expressions=expressions)
    assert (one.id, one.type, one.sender) == ("7", "order", "/shops/7")


# ---------------------------------------------------------------------- identity


def test_two_senders_with_the_same_id_are_two_and_a_repeat_is_one() -> None:
    first, again = event(ORDER), event(ORDER | {"data": {"n": 8}})
    other = event(ORDER | {"source": "/shops/8"})
    binary = {"ce-specversion": "1.0", "ce-id": "o-7", "ce-source": "/shops/7", "ce-type": "t"}
    assert first.dedupe == again.dedupe == event(b"{}", binary).dedupe
    assert len({first.dedupe, other.dedupe, event(ORDER | {"id": "o-8"}).dedupe, None}) == 4
    (member,) = members([ORDER])
    assert member.dedupe == first.dedupe


def test_a_name_that_was_signed_tells_repeats_whatever_else_is_changed() -> None:
    """W3: headers of binary mode and the content type are not signed; a captured request is a repeat."""
    words = {"verify": {"scheme": "standard", "secrets": ["x"]}}
    named = {"webhook-id": "msg_1", "content-type": "application/json"}
    first = event(ORDER, named, **words)
    binary = named | {"ce-specversion": "1.0", "ce-id": "2", "ce-source": "s", "ce-type": "t"}
    assert first.id == "msg_1"
    assert event(ORDER, binary, **words).dedupe == first.dedupe
    assert event(ORDER, named | STRUCTURED, **words).dedupe == first.dedupe
    assert event(ORDER, named | STRUCTURED, **words).id == "o-7"
    many = made(json.dumps([ORDER, ORDER]).encode(), named | BATCHED, **words)
    assert isinstance(many, list)
    assert many[0].dedupe == first.dedupe
    assert many[1].dedupe not in (None, first.dedupe)


@pytest.mark.parametrize("scheme", ["github", "stripe"])
def test_senders_that_speak_no_cloudevents_are_not_made_to(scheme: str) -> None:
    words = {"verify": {"scheme": scheme, "secrets": ["x"]}}
    added = {
        "ce-specversion": "1.0",
        "ce-id": "2",
        "ce-source": "s",
        "ce-type": "t",
        "content-type": "application/json",
    }
    one = event({"id": "evt_1"}, added | {"x-github-delivery": "d1"}, **words)
    assert (one.id, one.type, one.sender) == (
        {"github": "d1", "stripe": "evt_1"}[scheme],
        "webhook.received",
        None,
    )


def test_stripe_names_events_in_its_body_whatever_the_content_type_says() -> None:
    words = {"verify": {"scheme": "stripe", "secrets": ["x"]}}
    kinds = ["application/json", "text/plain", "application/octet-stream", "application/cloudevents+json"]
    keys = {event({"id": "evt_1"}, {"content-type": kind}, **words).dedupe for kind in kinds}
    assert len(keys) == 1
    assert event([1], {"idempotency-key": "k"}, **words).id == "k"


# ---------------------------------------------------------------------- what is none


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"specversion": "0.3"}, "version '0.3'"), ({"specversion": None}, "version"), ({"id": ""}, "no id"),
        ({"source": None}, "no source"), ({"type": 5}, "type is no text"), ({"time": "now"}, "RFC 3339"),
        ({"time": "2026-01-01T00:00:00"}, "no offset"), ({"x_y": "a"}, "'x_y'"), ({"Upper": "a"}, "'Upper'"),
        ({"ext": {"a": 1}}, "extension ext"), ({"ext": 1.5}, "extension ext"), ({"data_base64": "?"}, "both"),
        ({"data": None, "data_base64": "?"}, "no base64"), ({"data": None, "data_base64": 5}, "no base64"),
    ],
)  # fmt: skip
def test_a_cloudevent_that_is_none_is_kept_with_its_reason(change: dict[str, Any], said: str) -> None:
    assert said in reason(ORDER | change)


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"[]", "+json", "must be an object"), (b"{", "+json", ""),
        (b"x", "+avro", "only as JSON"), (b"x", "", "only as JSON"),
        (b"{}", "-batch+json", "must be an array"),
        (b"[1", "-batch+json", ""), (b"", "-batch+json", "empty"),
        (b"[}{]", "-batch+json", ""), (b'["]', "-batch+json", ""),
    ],
)  # fmt: skip
def test_a_body_that_is_no_cloudevent_is_kept_whole(body: bytes, kind: str, said: str) -> None:
    assert said in reason(body, {"content-type": f"application/cloudevents{kind}"})


@pytest.mark.parametrize("name", ["ce-a_b", "ce-data", "ce-a-b", "ce-"])
def test_a_header_that_is_no_attribute_is_said(name: str) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t", name: "x"}
    assert "attribute" in reason(b"{}", headers)
    assert "not UTF-8" in reason(b"{}", headers | {"ce-subject": "%FF"})
    assert "subject is no text" in reason(b"{}", headers | {"ce-subject": "a%00b"})


BAD_MEMBERS = [
    b"5", b'"a"', b"null", b"[]", b'{"specversion": "1.0"}', b'{"a": "\\ud800"}', b'{"a": NaN}', b'{"a" 1}',
    b'{"a": "\\u0000"}', b"\xff", b'{"b": "},{["}', b"[" * 70 + b"]" * 70,
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_MEMBERS)
def test_a_broken_member_harms_only_itself(bad: bytes) -> None:
    good = [json.dumps(ORDER | {"id": f"o-{n}"}).encode() for n in range(3)]
    records = members(b" [" + b",".join([good[0], bad, *good[1:]]) + b"]\n")
    assert [record.raw for record in records] == [good[0], bad, *good[1:]]
    assert [type(record) for record in records] == [Event, Broken, Event, Event]


@pytest.mark.parametrize(("member", "times"), [(b"0,", 10_000), (b"x,", 10_000), (b"0,", 5_000_000)])
def test_a_batch_beyond_its_bound_is_not_read(
    member: bytes, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> Record:
        raise AssertionError("a member was read")

    monkeypatch.setattr(RecordMaker, "_read", read)
    with pytest.raises(TooManyMembers):
        made(b"[" + member * times + b"0]", BATCHED)


def test_headers_that_each_member_keeps_are_bounded() -> None:
    batch = b"[" + b",".join([json.dumps(ORDER).encode()] * 1_000) + b"]"
    assert len(members(batch)) == 1_000
    with pytest.raises(TooManyMembers):
        made(batch, BATCHED | {"x-filling": "x" * (17 << 10)})


def test_an_id_that_two_members_get_makes_no_repeat_of_the_second() -> None:
    batch = b"[%s]" % b", ".join(json.dumps(ORDER | {"data": n}).encode() for n in (1, 2, 1))
    expressions = {"x": lambda values: values["headers"]["x-id"]}  # pyright: ignore[reportUnknownLambdaType]
    found = made(batch, BATCHED | {"x-id": "one"}, id="x", expressions=expressions)
    assert isinstance(found, list)
    first, second, again = found
    assert isinstance(first, Event)
    assert isinstance(again, Event)
    assert isinstance(second, Broken)
    assert "`id` gave another event of this batch the id 'one' too" in second.reason
    assert first.dedupe == again.dedupe != second.dedupe is not None


def test_an_empty_batch_is_no_event() -> None:
    assert members(b" [ ] ") == []


def test_broken_members_of_a_batch_that_comes_twice_are_one_dead_letter_each() -> None:
    headers = BATCHED | {"idempotency-key": "k"}
    first, again = made(b"[1, 2]", headers), made(b"[1, 2]", headers)
    assert isinstance(first, list)
    assert isinstance(again, list)
    assert [one.dedupe for one in first] == [one.dedupe for one in again]
    assert len({one.dedupe for one in first} - {None}) == 2


def test_what_was_kept_of_a_batch_reads_again_as_one_event() -> None:
    (broken,) = members(b"[5]")
    assert isinstance(maker().reread(json.dumps(ORDER).encode(), broken.meta), Event)
    whole = made(b"[1", BATCHED)
    assert isinstance(whole, Broken)
    assert isinstance(maker().reread(json.dumps([ORDER]).encode(), whole.meta), Broken)


@given(body=st.binary(max_size=80) | st.from_regex(rb'[\[\]{}",:\\0-9a ]{0,30}', fullmatch=True))
def test_whatever_is_sent_becomes_records_with_their_bytes(body: bytes) -> None:
    records = made(body, BATCHED)
    if isinstance(records, list):
        assert all(record.raw in body for record in records)
    else:
        assert isinstance(records, Broken)
        assert records.raw == body
    single = made(body, STRUCTURED)
    assert isinstance(single, Event | Broken)
    assert single.raw == body


@given(st.dictionaries(st.sampled_from(["id", "source", "type", "time", "subject", "x", "a_b", "data"]),
                       st.text(st.characters(max_codepoint=255), max_size=20)))  # fmt: skip
def test_whatever_headers_are_sent_become_a_record(headers: dict[str, str]) -> None:
    sent = {"ce-specversion": "1.0"} | {f"ce-{name}": value for name, value in headers.items()}
    assert isinstance(made(b"{}", sent), Event | Broken)
