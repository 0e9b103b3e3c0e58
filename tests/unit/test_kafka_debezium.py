"""Debezium's envelopes: what its Postgres and MySQL connectors write, as rows and as plain records."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from eventflow.errors import Undecodable
from eventflow.event import JSON, Event
from eventflow.matching.pattern import compile_pattern
from tests.unit.kafka_records import broken, event

FOLDER = Path(__file__).parent / "payloads" / "debezium"
ROWS = {
    "postgres-insert-with-schema": ("row.inserted", "c", "inventory.customers"),
    "postgres-update-toast": ("row.updated", "u", "inventory.authors"),
    "postgres-delete": ("row.deleted", "d", "inventory.customers"),
    "postgres-snapshot-read": ("row.read", "r", "inventory.customers"),
    "postgres-truncate": ("table.truncated", "t", "inventory.customers"),
    "mysql-insert": ("row.inserted", "c", "inventory.orders"),
    "mysql-update": ("row.updated", "u", "inventory.orders"),
    "mysql-delete": ("row.deleted", "d", "inventory.orders"),
}
OTHERS = ("postgres-message", "heartbeat", "heartbeat-with-schema", "transaction-begin", "transaction-end",
          "mysql-schema-change")  # fmt: skip
UNSENT = "__debezium_unavailable_value"
UNSENT_BYTES = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="


def payload(name: str) -> bytes:
    return (FOLDER / f"{name}.json").read_bytes()


def unwrapped(value: bytes) -> dict[str, Any]:
    found = json.loads(value)
    return found.get("payload", found)


def both_forms(name: str) -> tuple[Event, Event]:
    """With the schema around it and without, whichever of the two the fixture is."""
    value = unwrapped(payload(name))
    wrapped = {"schema": {"type": "struct", "name": "x.Envelope"}, "payload": value}
    one, other = (event(json.dumps(form).encode(), format="debezium") for form in (value, wrapped))
    return one, other


def update(after: JSON, before: JSON = None) -> Event:
    envelope = {
        "op": "u",
        "before": before,
        "after": after,
        "source": {"schema": "s", "table": "t"},
        "ts_ms": 1,
    }
    return event(json.dumps(envelope).encode(), format="debezium")


def test_every_fixture_is_read() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {*ROWS, *OTHERS}


@pytest.mark.parametrize("name", ROWS)
def test_a_change_of_a_row_is_an_event_of_its_table(name: str) -> None:
    type_, op, table = ROWS[name]
    sent = unwrapped(payload(name))
    for made in (event(payload(name), format="debezium"), *both_forms(name)):
        assert (made.id, made.type, made.subject) == ("t/3/17", type_, table)
        assert made.data["op"] == op
        assert (made.data["source"], made.data["ts_ms"]) == (sent["source"], sent["ts_ms"])
        assert made.data["before"] == sent["before"]
        assert set(made.data) - {"unchanged"} == {"op", "before", "after", "source", "ts_ms"}
        assert made.time == datetime.fromtimestamp(sent["source"]["ts_ms"] / 1000, UTC)


def test_rows_hold_what_debezium_sent() -> None:
    made = event(payload("postgres-insert-with-schema"), format="debezium")
    assert made.data["after"] == {
        "id": 1005, "first_name": "Foo", "last_name": "Bär", "email": "foo@example.com",
    }  # fmt: skip
    assert "unchanged" not in made.data
    assert (made.meta["lsn"], made.meta["xid"]) == ("0/20DFAD0", 768)
    assert (made.meta["topic"], made.meta["offset"]) == ("t", 17)


def test_columns_that_the_database_did_not_send_are_absent_and_named() -> None:
    """Unchanged TOAST: text, bytea, arrays of text, of numbers and of uuids, hstore."""
    made = event(payload("postgres-update-toast"), format="debezium")
    assert made.data["after"] == {
        "id": 1005, "first_name": "Foo", "note": None, "updated_at": "2024-11-21T10:14:03.118211Z",
    }  # fmt: skip
    assert made.data["unchanged"] == ["biography", "photo", "tags", "scores", "attributes", "relatives"]
    assert not compile_pattern({"data.after.biography": {"exists": True}}).matches(made)
    assert not compile_pattern({"data.after.biography": None}).matches(made), "absent is not NULL"
    assert compile_pattern({"data.after.note": None}).matches(made)
    assert compile_pattern({"data.unchanged": "photo"}).matches(made)


@pytest.mark.parametrize("value", [
    UNSENT, [UNSENT], UNSENT_BYTES, [UNSENT_BYTES],
    UNSENT.encode().hex(), list(UNSENT.encode()), [float(byte) for byte in UNSENT.encode()],
    {UNSENT: UNSENT}, json.dumps({UNSENT: UNSENT}, separators=(",", ":")),
    {"wkb": "AQEAACDmEAAAAAAA/IPXl8EAAAD8g9eXwQ==", "srid": 4326},
])  # fmt: skip
def test_every_form_of_the_placeholder_is_no_value(value: JSON) -> None:
    made = update({"id": 1, "big": value}, {"id": 1, "big": value})
    assert made.data["after"] == made.data["before"] == {"id": 1}
    assert made.data["unchanged"] == ["big"]


@pytest.mark.parametrize("value", [
    "", [], {}, f" {UNSENT}", [UNSENT, "x"], [UNSENT, UNSENT], {"a": UNSENT}, {UNSENT: "x"}, None, 95, [95],
    {"wkb": 5}, {"wkb": "AAAA"},
])  # fmt: skip
def test_what_only_looks_like_the_placeholder_is_a_value(value: JSON) -> None:
    made = update({"big": value})
    assert made.data["after"] == {"big": value}
    assert "unchanged" not in made.data


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_row_is_a_plain_record(name: str) -> None:
    for made in (event(payload(name), format="debezium"), *both_forms(name)):
        assert (made.id, made.type, made.subject) == ("t/3/17", "kafka.record", "k")
        assert made.data == unwrapped(payload(name))


@pytest.mark.parametrize("name", OTHERS)
def test_an_expression_for_rows_harms_no_plain_record(name: str) -> None:
    def fails(_: Any) -> JSON:
        raise Undecodable("missing field")

    words: dict[str, Any] = {"id": "x", "expressions": {"x": fails}}
    assert event(payload(name), format="debezium", **words).id == "t/3/17"
    assert broken(payload("mysql-insert"), format="debezium", **words).reason == "missing field"


@pytest.mark.parametrize("value", [None, b"null", b'{"schema": null, "payload": null}', b"{}", b"[]", b'"c"'])
def test_values_without_an_envelope_are_plain_records(value: bytes | None) -> None:
    assert event(value, format="debezium").type == "kafka.record"


def test_a_table_called_schema_is_not_unwrapped() -> None:
    value = {"schema": 1, "payload": 2, "more": 3}
    assert event(json.dumps(value).encode(), format="debezium").data == value


@pytest.mark.parametrize(("word", "changes"), [
    ("source", {"source": None}), ("source", {"source": "x"}),
    ("names no table", {"source": {"schema": "s"}}),
    ("names no table", {"source": {"schema": "s", "table": 5}}), ("after", {"after": [1]}),
    ("before", {"before": 5}),
])  # fmt: skip
def test_an_envelope_that_is_half_there_is_a_dead_letter(word: str, changes: dict[str, Any]) -> None:
    value = {"op": "c", "after": {}, "before": None, "source": {"schema": "s", "table": "t"}, **changes}
    assert word in broken(json.dumps(value).encode(), format="debezium").reason


@pytest.mark.parametrize("op", [None, 5, [], {}, "x", "m", "C"])
def test_an_unknown_operation_is_a_plain_record(op: JSON) -> None:
    value = {"op": op, "after": {}, "source": {"schema": "s", "table": "t"}}
    assert event(json.dumps(value).encode(), format="debezium").type == "kafka.record"
