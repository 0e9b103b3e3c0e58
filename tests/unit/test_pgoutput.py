"""pgoutput messages and texts of columns as values; snapshots and changes put together; no server."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest

from connectors.postgres_cdc import gate, pgoutput
from connectors.postgres_cdc.lsn import lsn_text, parse_lsn
from connectors.postgres_cdc.merge import Segment, Snapshot, TableRead, remaining
from connectors.postgres_cdc.pgoutput import Relation
from connectors.postgres_cdc.position import Position
from connectors.postgres_cdc.record import Origin, TableEvents, reread
from connectors.postgres_cdc.transaction import Transactions
from connectors.postgres_cdc.values import converter
from eventflow.errors import Undecodable
from eventflow.event import JSON, Broken, Event, Record, decode_json, encode_json

ORDERS = b"".join([
    b"R", struct.pack(">I", 4_000_000_000), b"public\0orders\0d", struct.pack(">H", 2),
    b"\1id\0", struct.pack(">Ii", 23, -1), b"\0state\0", struct.pack(">Ii", 25, -1),
])  # fmt: skip


def row(*values: bytes | None) -> bytes:
    encoded = [b"n" if value is None else b"t" + struct.pack(">i", len(value)) + value for value in values]
    return struct.pack(">H", len(values)) + b"".join(encoded)


def insert(*values: bytes | None) -> bytes:
    return b"I" + struct.pack(">I", 4_000_000_000) + b"N" + row(*values)


def begin(lsn: int) -> bytes:
    return b"B" + struct.pack(">qqi", lsn, 0, 7)


def commit(lsn: int, end: int) -> bytes:
    return b"C" + struct.pack(">Bqqq", 0, lsn, end, 0)


@pytest.mark.parametrize(
    ("oid", "text", "value"),
    [
        (16, b"t", True), (16, b"f", False), (20, b"-9223372036854775808", -(2**63)),
        (26, b"4294967295", 2**32 - 1),
        (701, b"0.1", 0.1), (701, b"1e+300", 1e300), (701, b"-Infinity", "-Infinity"), (700, b"NaN", "NaN"),
        (1700, b"12.50", 12.5), (1700, b"7", 7), (1700, b"-0.000000000000000000", 0.0), (1700, b"NaN", "NaN"),
        (1700, b"9" * 100, int("9" * 100)), (1700, b"9" * 101, "9" * 101), (1700, b"-Infinity", "-Infinity"),
        (1700, b"1234567890123.4500000", 1234567890123.45),
        (1700, b"123456789012345.67", "123456789012345.67"),
        (1700, b"100000000000000000.5", "100000000000000000.5"), (1700, b"1000000000000000000.0", 1e18),
        (3802, b'{"a": [1.5, null]}', {"a": [1.5, None]}), (17, b"\\x", ""), (17, b"\\x00ff", "AP8="),
        (1184, b"2026-01-02 03:04:05.1+00", "2026-01-02T03:04:05.1Z"), (1184, b"infinity", "infinity"),
        (1184, b"0044-03-15 00:00:00+00 BC", "0044-03-15 00:00:00+00 BC"),
        (1184, b"12026-01-02 03:04:05+00", "12026-01-02T03:04:05Z"),
        (1114, b"2026-01-02 03:04:05", "2026-01-02T03:04:05"), (1114, b"-infinity", "-infinity"),
        (1007, b"{}", []), (1007, b"{1,NULL,-3}", [1, None, -3]), (1007, b"[2:3]={4,5}", [4, 5]),
        (1009, rb'{"a\"b\\c",d e,"NULL","{}"}', ['a"b\\c', "d e", "NULL", "{}"]),
        (1007, b"{{{1},{2}}}", [[[1], [2]]]), (3807, rb'{"{\"a\": 1}"}', [{"a": 1}]),
        (99999, "é".encode(), "é"),
    ],
)  # fmt: skip
def test_a_text_becomes_the_value_of_its_type_and_json_keeps_it(oid: int, text: bytes, value: JSON) -> None:
    made = converter(oid)(text)
    assert made == value
    assert type(made) is type(value)
    assert decode_json(encode_json(made)) == made


@pytest.mark.parametrize(("oid", "text"), [(25, b"\xff"), (114, b"1e999"), (114, b"[" * 63 + b"]" * 63)])
def test_what_json_cannot_hold_is_undecodable(oid: int, text: bytes) -> None:
    with pytest.raises((Undecodable, ValueError)):
        converter(oid)(text)


def test_json_as_deep_as_an_event_can_hold_is_read() -> None:
    nested = converter(114)(b"[" * 62 + b"]" * 62)
    assert decode_json(encode_json({"after": {"doc": nested}})) == {"after": {"doc": nested}}


def test_a_relation_and_its_rows() -> None:
    relation = pgoutput.relation(ORDERS)
    assert (relation.full_name, relation.oid, relation.identity) == ("public.orders", 4_000_000_000, "d")
    assert pgoutput.change(insert(b"1", None), relation) == (None, {"id": 1, "state": None}, [])
    key = struct.pack(">I", 4_000_000_000) + b"K" + row(b"1", None)
    assert pgoutput.change(b"D" + key, relation) == ({"id": 1}, None, ())
    update = b"U" + key + b"N" + row(b"2", b"x")
    assert pgoutput.change(update, relation) == ({"id": 1}, {"id": 2, "state": "x"}, [])
    assert Relation.from_json(relation.to_json()).to_json() == relation.to_json()


def test_a_position_in_the_middle_of_a_transaction_passes_over_what_it_knows() -> None:
    messages = [
        begin(100),
        ORDERS,
        insert(b"1", b"a"),
        insert(b"2", b"b"),
        insert(b"3", b"c"),
        commit(100, 150),
    ]
    changes = Transactions(Origin("s", "db"), {"public.orders"}, Position(100, 2))
    records: list[Record] = []
    for message in [begin(50), ORDERS, insert(b"0", b"old"), commit(50, 99), *messages]:
        changes.feed(message, records)
    assert [record.id for record in records if isinstance(record, Event)] == ["0/64/3"]
    assert changes.position == Position(150)
    changes.idle_at(200)
    assert changes.position == Position(200)


def test_the_position_counts_within_a_transaction_and_is_not_moved_by_a_keepalive_then() -> None:
    changes = Transactions(Origin("s", "db"), {"public.orders"}, Position(0))
    records: list[Record] = []
    for message in (begin(100), ORDERS, insert(b"1", b"a"), insert(b"2", b"b")):
        changes.feed(message, records)
    changes.idle_at(500)
    assert changes.position == Position(100, 2)
    assert Position.from_json(decode_json(encode_json(changes.position.to_json()))) == changes.position


def test_rows_of_tables_that_nobody_asked_for_count_but_are_no_events() -> None:
    changes = Transactions(Origin("s", "db"), {"public.items"}, Position(0))
    records: list[Record] = []
    for message in (begin(100), ORDERS, insert(b"1", b"a")):
        changes.feed(message, records)
    assert records == []
    assert changes.position == Position(100, 1)


@pytest.mark.parametrize(
    ("before", "after", "left"),
    [  # ids up to 10 were read at 100, the rest at 200; the change was committed at 150
        (None, {"id": 5}, (None, {"id": 5}, ())),
        (None, {"id": 15}, None),
        ({"id": 5}, {"id": 6}, ({"id": 5}, {"id": 6}, ())),
        ({"id": 15}, {"id": 16}, None),
        ({"id": 5}, {"id": 15}, ({"id": 5}, None, ())),
        ({"id": 15}, {"id": 5}, (None, {"id": 5}, ())),
        ({"id": 5}, None, ({"id": 5}, None, ())),
        ({"id": 15}, None, None),
    ],
)
def test_of_a_change_remains_what_was_not_read_with_it(before: JSON, after: JSON, left: JSON) -> None:
    table = TableRead(["id"], "1", [Segment([10], 100), Segment(None, 200)])
    assert remaining((before, after, ()), table, 150) == left
    assert remaining((before, after, ()), table, 250) == (before, after, ())
    assert remaining((before, after, ()), table, 50) is None
    snapshot = Snapshot({"public.orders": table})
    assert snapshot.complete
    assert snapshot.until == 200
    assert Snapshot.from_json(decode_json(encode_json(snapshot.to_json()))) == snapshot


def test_what_was_kept_reads_as_it_did() -> None:
    events = TableEvents(
        Origin("s", "db"),
        "public.orders",
        prefix="0/64",
        lsn=100,
        time=datetime(2026, 1, 2, tzinfo=UTC),
        xid=7,
    )
    event = events.event(3, "u", None, {"id": 1}, ["doc"])
    again = reread("s", event.raw, event.meta)
    assert isinstance(again, Event)
    assert (again.type, again.subject, again.data) == (event.type, event.subject, event.data)
    assert decode_json(event.raw) == event.data
    for raw in (b'{"op": "x"}', b"[]", b"{", b'{"op": ["c"], "source": {}}'):
        assert isinstance(reread("s", raw, event.meta), Broken)
    broken = events.broken(4, insert(b"1", b"\xff"), pgoutput.relation(ORDERS), "no text")
    assert isinstance(reread("s", broken.raw, broken.meta), Broken)
    for raw in (b"", b"I", b"X123456789", insert(b"1")):
        assert isinstance(reread("s", raw, broken.meta), Broken)
    mended = reread("s", insert(b"1", b"x"), broken.meta)
    assert isinstance(mended, Event)
    assert mended.data["after"] == {"id": 1, "state": "x"}


@pytest.mark.parametrize("lsn", [0, 1, 0x16B3748, 2**32, 2**63 - 1])
def test_log_sequence_numbers(lsn: int) -> None:
    assert parse_lsn(lsn_text(lsn)) == lsn
    for text in ("", "/", "1", "x/1", "1/123456789"):
        with pytest.raises(ValueError, match=r".*"):
            parse_lsn(text)


def test_where_a_timeline_was_left() -> None:
    history = "1\t0/16B3748\tno recovery target specified\n\n2\t0/5000000\tbefore x\n"
    assert gate.switched(history, 1) == 0x16B3748
    assert gate.switched(history, 2) == 0x5000000
    assert gate.switched(history, 3) is None
