"""One change as an event: Debezium's names in `data`, so that rules read both alike."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from connectors.postgres_cdc import pgoutput
from connectors.postgres_cdc.lsn import lsn_text
from connectors.postgres_cdc.pgoutput import Change, Relation, Row
from eventflow.errors import Undecodable
from eventflow.event import JSON, Broken, Event, Record, decode_json

TYPES: Final = {
    "c": "row.inserted",
    "u": "row.updated",
    "d": "row.deleted",
    "r": "row.read",
    "t": "table.truncated",
}
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)  # Postgres counts microseconds from here
_encode: Final = msgspec.json.Encoder().encode  # values.py makes nothing that JSON cannot say


@dataclass(frozen=True, slots=True)
class Origin:
    """What is the same for all events of a source."""

    source: str
    database: str


def postgres_time(microseconds: int) -> datetime:
    """A time of the protocol."""
    return _EPOCH + timedelta(microseconds=microseconds)


class TableEvents:
    """Makes the events of one table in one transaction, or in one snapshot. What they share is made once."""

    def __init__(
        self, origin: Origin, table: str, *, prefix: str, lsn: int, time: datetime, xid: int | None
    ) -> None:
        """`prefix` begins the ids; `lsn` is where the transaction's commit stands, or the snapshot."""
        schema, _, name = table.partition(".")
        self._name = origin.source
        self._table = table
        self._prefix = prefix
        self._time = time
        self._meta: dict[str, JSON] = {"lsn": lsn_text(lsn)} | ({} if xid is None else {"xid": xid})
        self._ts_ms = (time - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)
        self._source: dict[str, JSON] = {
            "connector": "postgresql", "name": origin.source, "db": origin.database, "schema": schema,
            "table": name, "ts_ms": self._ts_ms, "lsn": lsn, "txId": xid,
            "snapshot": "true" if xid is None else "false",
        }  # fmt: skip
        self._tail = b',"source":%b,"ts_ms":%d' % (_encode(self._source), self._ts_ms)

    def event(
        self, n: int, op: str, before: Row | None, after: Row | None, unchanged: Sequence[str]
    ) -> Event:
        """The event of change `n`. `raw` is put together from parts, equal to `data` encoded."""
        data: dict[str, JSON] = {
            "op": op, "before": before, "after": after, "source": self._source, "ts_ms": self._ts_ms,
        }  # fmt: skip
        raw = b'{"op":"%b","before":%b,"after":%b%b' % (
            op.encode(), b"null" if before is None else _encode(before),
            b"null" if after is None else _encode(after), self._tail,
        )  # fmt: skip
        if unchanged:
            data["unchanged"] = list(unchanged)
            raw += b',"unchanged":' + _encode(unchanged)
        return Event(
            source=self._name, id=f"{self._prefix}/{n}", type=TYPES[op], data=data, raw=raw + b"}",
            subject=self._table, time=self._time, meta=self._meta,
        )  # fmt: skip

    def broken(self, n: int, message: bytes, relation: Relation, reason: str) -> Broken:
        """A change that is no JSON: the message as it came, with what is needed to read it."""
        position = {"lsn": self._meta["lsn"], "n": n, "table": self._table}
        return Broken(self._name, message, reason, position, {**self._meta, "relation": relation.to_json()})

    def unread(self, n: int, names: Sequence[str], values: Sequence[bytes | None], reason: str) -> Broken:
        """A row of a snapshot that is no JSON: `name=value` by lines, as the values came."""
        raw = b"\n".join(
            name.encode() + b"=" + (b"" if value is None else value)
            for name, value in zip(names, values, strict=True)
        )
        position = {"lsn": self._meta["lsn"], "n": n, "table": self._table}
        return Broken(self._name, raw, f"table {self._table}, {reason}", position, self._meta)


def operation(change: Change) -> str:
    """c, u or d, by what there is."""
    before, after, _ = change
    if after is None:
        return "d"
    return "c" if before is None else "u"


OPERATIONS: Final = {pgoutput.INSERT: "c", pgoutput.UPDATE: "u", pgoutput.DELETE: "d"}


def reread(source: str, raw: bytes, meta: Mapping[str, JSON]) -> Record:
    """The record of bytes that were kept: an event's JSON, or a message that was none, perhaps edited."""
    relation = meta.get("relation")
    if relation and raw[:1] != b"{":
        return _reread_message(source, raw, meta, Relation.from_json(relation))
    try:
        data = decode_json(raw)
        kind = TYPES[data["op"]]
        table = f"{data['source']['schema']}.{data['source']['table']}"
    except Undecodable as error:
        return Broken(source, raw, error.reason, meta=meta)
    except (KeyError, TypeError):
        return Broken(source, raw, "no change: `op` and `source` of a change are missing", meta=meta)
    return Event(source=source, id=_id(meta), type=kind, data=data, raw=raw, subject=table, meta=meta)


def _reread_message(source: str, raw: bytes, meta: Mapping[str, Any], relation: Relation) -> Record:
    try:
        op = OPERATIONS[raw[0]]
        before, after, unchanged = pgoutput.change(raw, relation)
    except Undecodable as error:
        return Broken(source, raw, error.reason, meta=meta)
    except (LookupError, ValueError, struct.error) as error:
        return Broken(source, raw, f"no message of Postgres: {error!r}", meta=meta)
    data = {"op": op, "before": before, "after": after, **({"unchanged": unchanged} if unchanged else {})}
    return Event(source=source, id=_id(meta), type=TYPES[op], data=data, raw=raw,
                 subject=relation.full_name, meta=meta)  # fmt: skip


def _id(meta: Mapping[str, Any]) -> str:
    """Of the event that stands for it when it is sent in again: the core adds what tells it apart."""
    return f"{meta.get('lsn')}/{meta.get('n', 0)}"
