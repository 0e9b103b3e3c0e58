"""What an authentic request becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.webhook.config import WebhookConfig
from connectors.webhook.record import Received, RecordMaker
from eventflow.errors import Undecodable
from eventflow.event import JSON, Broken, Event, Record
from eventflow.source import Predicate

Expressions = Mapping[str, Any]


def never(text: str, variables: Sequence[str]) -> Predicate:
    raise AssertionError(f"there is no expression {text}")


def record(
    body: bytes = b'{"a": 1}',
    headers: Mapping[str, str] | None = None,
    *,
    query: bytes = b"",
    signature: bytes | None = None,
    expressions: Expressions | None = None,
    **words: Any,
) -> Record:
    """One record; `expressions` maps the text of an expression to what it computes."""
    config = WebhookConfig.model_validate({"verify": "none", **words})
    maker = RecordMaker("hook", config, signature, lambda text, _: (expressions or {})[text])
    given_headers = {"content-type": "application/json"} if headers is None else headers
    sent = {name.encode(): value.encode("latin-1") for name, value in given_headers.items()}
    made = maker.records(Received(sent, query, "10.0.0.1", body))
    assert isinstance(made, Event | Broken)
    return made


def event(*args: Any, **words: Any) -> Event:
    made = record(*args, **words)
    assert isinstance(made, Event), made
    return made


def reason(*args: Any, **words: Any) -> str:
    made = record(*args, **words)
    assert isinstance(made, Broken), made
    return made.reason


def test_a_request_without_an_id_is_an_event_of_its_own() -> None:
    first, second = event(), event()
    assert UUID(first.id).version == 7
    assert first.id != second.id
    assert first.dedupe is None
    assert (first.source, first.type, first.subject, first.time) == ("hook", "webhook.received", None, None)
    assert (first.data, first.raw) == ({"a": 1}, b'{"a": 1}')


def test_an_idempotency_key_is_the_id_and_tells_repeats() -> None:
    headers = {"content-type": "application/json", "idempotency-key": "k1"}
    first, other_body = event(headers=headers), event(b"{}", headers)
    assert first.id == "k1"
    assert first.dedupe
    assert first.dedupe == other_body.dedupe
    assert first.dedupe != event(headers=headers | {"idempotency-key": "k2"}).dedupe


def test_an_id_expression_goes_before_the_idempotency_key() -> None:
    made = event(
        headers={"idempotency-key": "k1", "x-delivery": "d9"},
        id="headers.x",
        expressions={"headers.x": lambda v: v["headers"]["x-delivery"]},
    )
    assert made.id == "d9"


def test_the_same_body_is_a_repeat_where_asked_for_and_the_sender_gave_no_id() -> None:
    words = {"dedupe": {"by": "body", "within": "10m"}}
    assert event(**words).dedupe == event(**words).dedupe != event(b'{"a":1}', **words).dedupe
    keyed = {"content-type": "application/json", "idempotency-key": "k1"}
    assert event(b"1", keyed, **words).dedupe == event(b"2", keyed, **words).dedupe


def test_a_broken_request_that_repeats_itself_has_the_key_of_its_id() -> None:
    headers = {"content-type": "application/json", "idempotency-key": "k1"}
    broken = record(b"{", headers)
    assert isinstance(broken, Broken)
    assert broken.dedupe == event(headers=headers).dedupe
    by_header: Expressions = {"x": lambda v: v["headers"]["idempotency-key"]}
    assert record(b"{", headers, id="x", expressions=by_header).dedupe == broken.dedupe


def test_credentials_and_the_signature_are_not_kept() -> None:
    secret = {
        name: "s3cret"
        for name in (
            "authorization", "proxy-authorization", "cookie", "x-api-key", "apikey", "x-auth-token",
            "x-gitlab-token", "x-hub-signature-256", "stripe-signature", "x-shopify-hmac-sha256", "x-proof",
            "x-csrf-token", "x-authtoken", "x-apitoken", "x-sign", "x-passphrase",
        )
    }  # fmt: skip
    made = event(
        headers={"content-type": "application/json", "x-github-event": "push"} | secret, signature=b"x-proof"
    )
    assert made.meta["headers"] == {"content-type": "application/json", "x-github-event": "push"}
    assert "s3cret" not in repr(made)
    assert made.meta["remote"] == "10.0.0.1"


def test_an_idempotency_token_is_no_credential_and_a_hidden_header_is_said_to_be_one() -> None:
    kept = {"i-twilio-idempotency-token": "1", "x-author": "eve"}
    assert event(headers=kept).meta["headers"] == kept

    def by_header(values: Mapping[str, Any]) -> JSON:
        if "x-token" not in values["headers"]:
            raise Undecodable("missing field 'x-token'")
        return values["headers"]["x-token"]

    said = reason(headers={"x-token": "s3cret"}, id="x", expressions={"x": by_header})
    assert said == "missing field 'x-token': the header x-token is a credential, which no expression sees"
    assert reason(headers={}, id="x", expressions={"x": by_header}) == "missing field 'x-token'"


def test_the_query_is_a_map_and_a_repeated_name_a_list() -> None:
    assert event(query=b"a=1&b=&a=2&c=%C3%A9").meta["query"] == {"a": ["1", "2"], "b": "", "c": "é"}
    assert reason(query=b"a=1&" * 1001) == "the query string has too many fields"


@pytest.mark.parametrize(
    ("body", "content_type", "data"),
    [
        (b"[1]", "application/json; charset=utf-8", [1]),
        (b'{"a":1}', "application/vnd.api+json", {"a": 1}),
        (b'{"a":1}', "APPLICATION/JSON", {"a": 1}),
        (b'{"a":1}', None, {"a": 1}),
        (b"", None, None),
        (b"a=1&b=%C3%A9&a=2", "application/x-www-form-urlencoded", {"a": ["1", "2"], "b": "é"}),
        (b' {"a":1}', "application/x-www-form-urlencoded", {"a": 1}),
        ("é".encode(), "text/plain", "é"),
        (b"\xe9", 'text/csv; header=present; charset="ISO-8859-1"', "é"),
        (b"<a/>", "application/xml", "<a/>"),
        (b"\x00\xff", "application/octet-stream", "AP8="),
        (b"\x00\xff", "", "AP8="),
    ],
)
def test_a_body_is_read_by_its_content_type(body: bytes, content_type: str | None, data: JSON) -> None:
    made = event(body, {} if content_type is None else {"content-type": content_type})
    assert made.data == data
    assert made.raw == body
    assert made.datacontenttype == content_type


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "application/json"), (b"{", "application/json"), (b"NaN", None), (b'"\\u0000"', None),
        (b'"\xff"', None), (b'"\\ud800"', None), (b"9" * 5000, None), (b"\xef\xbb\xbf{}", None),
        (b"[" * 100_000 + b"]" * 100_000, None), ("é".encode("utf-16"), "application/json; charset=utf-16"),
        (b"{x", "application/x-www-form-urlencoded"), (b"a=%00", "application/x-www-form-urlencoded"),
        (b"a=%FF", "application/x-www-form-urlencoded"), (b"a&" * 1001, "application/x-www-form-urlencoded"),
        (b"\xff", "text/plain"), (b"\x00", "text/plain"),
        (b"x", "text/plain; charset=unicode_escape"), (b"x", "text/plain; charset="),
    ],
)  # fmt: skip
def test_a_body_that_is_none_is_kept_whole_with_its_reason(body: bytes, content_type: str | None) -> None:
    made = record(body, {} if content_type is None else {"content-type": content_type})
    assert isinstance(made, Broken)
    assert made.raw == body
    assert made.reason


def constant(value: JSON) -> Expressions:
    return {"x": lambda _: value}


def test_attributes_come_from_expressions() -> None:
    expressions: Expressions = {
        "i": lambda v: v["data"]["a"],
        "t": lambda v: "push." + str(v["query"]["kind"]),
        "s": lambda v: v["headers"]["x-repo"],
        "w": lambda _: "2026-02-03T04:05:06.5+02:00",
    }
    made = event(
        headers={"x-repo": "flow"},
        query=b"kind=tag",
        id="i",
        type="t",
        subject="s",
        time="w",
        expressions=expressions,
    )
    assert (made.id, made.type, made.subject) == ("1", "push.tag", "flow")
    assert made.time == datetime(2026, 2, 3, 4, 5, 6, 500_000, timezone(timedelta(hours=2)))


def test_subject_and_time_may_be_null() -> None:
    assert event(subject="x", expressions=constant(None)).subject is None
    assert event(time="x", expressions=constant(None)).time is None
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert event(time="x", expressions={"x": lambda _: moment}).time == moment


@pytest.mark.parametrize(
    ("word", "value"),
    [("id", None), ("id", ""), ("id", True), ("id", 1.5), ("id", ["a"]), ("id", "a\x00"), ("id", "\ud800"),
     ("type", None), ("type", ""), ("type", {}), ("subject", 1.5), ("subject", "a\x00b"), ("time", 5),
     ("time", "yesterday"), ("time", "2026-02-03T04:05:06"), ("time", ""),
     ("time", "0001-01-01T00:00:00+14:00")],
)  # fmt: skip
def test_an_expression_that_gives_no_such_attribute_makes_a_dead_letter(word: str, value: JSON) -> None:
    assert word in reason(**{word: "x"}, expressions=constant(value))


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b'{"a":1}', "application/json"), (b"a=1&b=2", "application/x-www-form-urlencoded"), (b"", None),
     (b"caf\xe9", "text/plain; charset=latin1"), (b"\x00", "application/octet-stream")],
)  # fmt: skip
def test_a_kept_body_reads_again_as_it_did(body: bytes, content_type: str | None) -> None:
    words: dict[str, Any] = {"id": "x", "expressions": {"x": lambda v: v["query"]["id"]}}
    first = event(
        body, {} if content_type is None else {"content-type": content_type}, query=b"id=7", **words
    )
    maker = RecordMaker(
        "hook",
        WebhookConfig.model_validate({"verify": "none", "id": "x"}),
        None,
        lambda text, _: words["expressions"][text],
    )
    assert maker.reread(body, first.meta) == first


def test_a_broken_body_that_was_mended_is_an_event() -> None:
    broken = record(b"{")
    maker = RecordMaker("hook", WebhookConfig.model_validate({"verify": "none"}), None, never)
    assert isinstance(maker.reread(b"{", broken.meta), Broken)
    mended = maker.reread(b"{}", broken.meta)
    assert isinstance(mended, Event)
    assert mended.data == {}
    assert isinstance(maker.reread(b"{}", {}), Event)


def test_an_expression_in_error_makes_a_dead_letter() -> None:
    def fails(_: Mapping[str, JSON]) -> JSON:
        raise Undecodable("no such key: action")

    assert reason(type="x", expressions={"x": fails}) == "no such key: action"


@given(
    body=st.binary(max_size=60),
    content_type=st.none() | st.text(st.characters(max_codepoint=255, exclude_characters="\x00"), max_size=40)
    | st.sampled_from(["text/x; charset=utf-16", "application/x-www-form-urlencoded", "a/xml;charset=\xff"]),
    query=st.binary(max_size=40),
)  # fmt: skip
def test_whatever_is_sent_becomes_a_record_with_its_bytes(
    body: bytes, content_type: str | None, query: bytes
) -> None:
    made = record(body, {} if content_type is None else {"content-type": content_type}, query=query)
    assert made.raw == body
