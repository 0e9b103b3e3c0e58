"""What connectors share: secrets in words, what expressions may give, a CloudEvent's attributes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from eventflow.attributes import given_optional_word, given_time, given_word
from eventflow.cloudevents import encoded_data, read_attributes
from eventflow.errors import SourceUnavailable, Undecodable
from eventflow.event import JSON
from eventflow.holes import fill

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
GIVEN = {"specversion": "1.0", "id": "1", "source": "s", "type": "t"}


def test_every_secret_in_a_word_is_filled_in_and_nothing_else() -> None:
    text = "a ${secret.ONE}${ secret._two2 } ${env.ONE} $secret.ONE ${secret.2} ${SECRET.ONE}"
    assert fill(text, str.lower) == "a one_two2 ${env.ONE} $secret.ONE ${secret.2} ${SECRET.ONE}"
    assert fill("${secret.ONE}", lambda _: r"\1 ${secret.TWO}") == r"\1 ${secret.TWO}", (
        "once, and to the letter"
    )


def test_a_secret_that_is_not_set_is_the_callers_error() -> None:
    def missing(name: str) -> str:
        raise SourceUnavailable(f"secret {name} is not set")

    with pytest.raises(SourceUnavailable, match="secret ONE is not set"):
        fill("${secret.ONE}", missing)


@pytest.mark.parametrize("value", [True, 1.5, [], {}, "a\x00", "\ud800"])
def test_an_expression_gives_text_or_a_whole_number(value: JSON) -> None:
    with pytest.raises(Undecodable, match="`subject`"):
        given_optional_word("subject", value)


def test_null_and_empty_text_are_no_id_but_may_be_a_subject() -> None:
    assert (given_word("id", 5), given_word("id", "a")) == ("5", "a")
    assert (given_optional_word("subject", None), given_optional_word("subject", "")) == (None, "")
    for value, said in ((None, "gave null"), ("", "gave empty text")):
        with pytest.raises(Undecodable, match=f"`id` {said}"):
            given_word("id", value)


def test_a_time_has_an_offset() -> None:
    east = MOMENT.astimezone(timezone(timedelta(hours=2)))
    assert given_time("2026-01-01T02:00:00+02:00") == given_time(east) == MOMENT
    assert given_time(None) is None
    for value in ("2026-01-01T00:00:00", MOMENT.replace(tzinfo=None), "now", 5, "0001-01-01T00:00:00+14:00"):
        with pytest.raises(Undecodable, match="`time`"):
            given_time(value)


@pytest.mark.parametrize(("change", "said"), [
    ({"specversion": "0.3"}, "specversion '0.3'"), ({"specversion": None}, "specversion"),
    ({"id": ""}, "no id"), ({"source": None}, "no source"), ({"type": 5}, "type is no text"),
    ({"subject": "a\x00"}, "subject is no text"), ({"data": "x"}, "'data'"), ({"a_b": "x"}, "'a_b'"),
    ({"": "x"}, "only a-z"), ({"ext": 1.5}, "extension ext"), ({"ext": "\udfff"}, "extension ext"),
])  # fmt: skip
def test_attributes_that_are_none_are_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(Undecodable, match=said):
        read_attributes(GIVEN | change, datetime.fromisoformat)


def test_what_is_null_counts_as_absent() -> None:
    nulls = dict.fromkeys(("subject", "time", "datacontenttype", "dataschema", "ext", "E X T"))
    read = read_attributes({**GIVEN, **nulls, "on": True, "n": 3}, datetime.fromisoformat)
    assert (read.subject, read.time, read.datacontenttype, read.dataschema) == (None, None, None, None)
    assert read.extensions == {"on": True, "n": 3}


def test_encoded_data_is_bytes_and_excludes_data() -> None:
    assert encoded_data({"data": 5, "data_base64": None}) is None
    assert (encoded_data({"data_base64": ""}), encoded_data({"data_base64": "AP8="})) == (b"", b"\x00\xff")
    for members in ({"data": 0, "data_base64": ""}, {"data_base64": "?"}, {"data_base64": 5}):
        with pytest.raises(Undecodable):
            encoded_data(members)
