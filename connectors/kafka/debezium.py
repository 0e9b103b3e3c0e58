"""Debezium's change events: rows as events, everything else that its connectors write as plain records.

Both forms of Kafka Connect's JSON converter are read: with `{"schema": ..., "payload": ...}` around and
without. Rows have the shape that a `postgres_cdc` source gives. Source: Debezium's documentation of its
connectors ("Data change events") and, for columns that the database did not send, of the option
`unavailable.value.placeholder`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any, Final, cast
from uuid import UUID

from connectors.kafka.formats import Content, content_type, decode_value, moment
from eventflow.content import base64_text
from eventflow.errors import Undecodable
from eventflow.event import JSON

TYPES: Final = {
    "c": "row.inserted",
    "u": "row.updated",
    "d": "row.deleted",
    "r": "row.read",
    "t": "table.truncated",
}
_WRAPPED: Final = {"schema", "payload"}

_PLACEHOLDER: Final = "__debezium_unavailable_value"
_BYTES: Final = _PLACEHOLDER.encode()
_UUID: Final = str(UUID(bytes=hashlib.md5(_BYTES, usedforsecurity=False).digest(), version=3))
_TEXTS: Final = frozenset({
    _PLACEHOLDER,
    base64_text(_BYTES),  # bytea; the other two with binary.handling.mode base64-url-safe and hex
    base64.urlsafe_b64encode(_BYTES).decode(),
    _BYTES.hex(),
    f'{{"{_PLACEHOLDER}":"{_PLACEHOLDER}"}}',  # hstore as JSON
})  # fmt: skip
_LISTS: Final = (
    *([text] for text in sorted(_TEXTS)),
    [_UUID],
    list(_BYTES),  # arrays of numbers have one element for each byte
    [base64_text(bytes([byte])) for byte in _BYTES],  # of decimals, precise
    [str(byte) for byte in _BYTES],  # of decimals, as text
)
_HSTORE: Final = {_PLACEHOLDER: _PLACEHOLDER}
_SHAPES: Final = frozenset({
    base64_text(bytes.fromhex("0101000020E6100000000000FC83D797C1000000FC83D797C1")),
    base64_text(bytes.fromhex("0101000020E61000000C21E7FDFF7F66401842CEFBFF7F5640")),
})  # fmt: skip
"""PostGIS: the geometry and the geography that stand for none, as well-known binary."""

Row = dict[str, Any]


def read_debezium(raw: bytes, headers: Mapping[str, JSON]) -> Content:
    """A row event, or whatever else a Debezium topic holds. Raises `Undecodable`."""
    value = decode_value(raw)
    if isinstance(value, dict) and cast("Row", value).keys() == _WRAPPED:
        value = cast("Row", value)["payload"]
    kind = content_type(headers) if headers else None
    op = cast("Row", value).get("op") if isinstance(value, dict) else None
    if not isinstance(op, str) or op not in TYPES:
        # Heartbeats, transaction boundaries, schema changes, logical decoding messages (op m).
        return Content(value, datacontenttype=kind, vague=True)
    return _row(cast("Row", value), kind)


def _row(envelope: Row, kind: str | None) -> Content:
    source = envelope.get("source")
    if not isinstance(source, dict):
        raise Undecodable("no Debezium envelope: it has `op` and no `source`")
    origin = cast("Row", source)
    before, _ = _sent(envelope, "before")
    after, unchanged = _sent(envelope, "after")
    op = envelope["op"]
    data: Row = {
        "op": op,
        "before": before,
        "after": after,
        "source": source,
        "ts_ms": envelope.get("ts_ms"),
    }
    if unchanged:
        data["unchanged"] = unchanged
    return Content(
        data,
        type=TYPES[op],
        subject=_table(origin),
        time=moment(origin["ts_ms"]) if type(origin.get("ts_ms")) is int and origin["ts_ms"] > 0 else None,
        datacontenttype=kind,
        meta=_transaction(origin),
    )


def _table(source: Row) -> str:
    """schema.table; where the database has no schemas (MySQL, MongoDB), db.table."""
    schema = source.get("schema") or source.get("db")
    table = source.get("table") or source.get("collection")
    if not isinstance(schema, str) or not isinstance(table, str):
        raise Undecodable("no Debezium envelope: `source` names no table")
    return f"{schema}.{table}"


def _transaction(source: Row) -> dict[str, JSON]:
    """Postgres' position and transaction, written as a `postgres_cdc` source writes them."""
    found: dict[str, JSON] = {}
    lsn, xid = source.get("lsn"), source.get("txId")
    if type(lsn) is int and lsn >= 0:
        found["lsn"] = f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
    if type(xid) is int:
        found["xid"] = xid
    return found


def _sent(envelope: Row, side: str) -> tuple[JSON, list[str]]:
    """The row without the columns that the database did not send, and their names."""
    row = envelope.get(side)
    if row is None or isinstance(row, str):  # MongoDB's documents are text
        return row, []
    if not isinstance(row, dict):
        raise Undecodable(f"no Debezium envelope: `{side}` is no row")
    columns = cast("Row", row)
    missing = [name for name, value in columns.items() if _is_missing(value)]
    if not missing:
        return columns, missing
    return {name: value for name, value in columns.items() if name not in missing}, missing


def _is_missing(value: JSON) -> bool:
    if isinstance(value, str):
        return value in _TEXTS
    if isinstance(value, list):
        return value in _LISTS
    if isinstance(value, dict):
        held = cast("Row", value)
        wkb = held.get("wkb")
        return held == _HSTORE or (isinstance(wkb, str) and wkb in _SHAPES)
    return False
