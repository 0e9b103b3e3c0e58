"""pgoutput messages as values: a pure decoder of protocol version 1.

Specification: PostgreSQL, "Logical Replication Message Formats" (protocol-logicalrep-message-formats).
A transaction arrives whole, after its commit: Begin, then changes, each after the Relation message of its
table where that is new or has changed, then Commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

from connectors.postgres_cdc.values import Converter, converter
from eventflow.errors import Undecodable
from eventflow.event import JSON

BEGIN: Final = ord("B")
COMMIT: Final = ord("C")
RELATION: Final = ord("R")
INSERT: Final = ord("I")
UPDATE: Final = ord("U")
DELETE: Final = ord("D")
TRUNCATE: Final = ord("T")

OLD_ROW: Final = ord("O")
_KEY_ROW: Final = ord("K")
_NULL: Final = ord("n")
_TEXT: Final = ord("t")
_UNCHANGED: Final = ord("u")

_BEGIN: Final = Struct(">qqi").unpack_from
_COMMIT: Final = Struct(">Bqqq").unpack_from
_RELATION: Final = Struct(">I").unpack_from
_COUNT: Final = Struct(">H").unpack_from
_SIZE: Final = Struct(">I").unpack_from
_TRUNCATE: Final = Struct(">iB").unpack_from
_COLUMN: Final = Struct(">Ii").unpack_from

Row = dict[str, JSON]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `key` where it belongs to the replica identity."""

    name: str
    oid: int
    key: bool


class Relation:
    """A table as it was when the changes that follow were made. `identity` is one of d, n, f, i."""

    __slots__ = (
        "_converters",
        "_names",
        "_number",
        "columns",
        "full_name",
        "identity",
        "name",
        "oid",
        "schema",
    )

    def __init__(self, oid: int, schema: str, name: str, identity: str, columns: Sequence[Column]) -> None:
        self.oid = oid
        self.schema = schema
        self.name = name
        self.full_name = f"{schema}.{name}"
        self.identity = identity
        self.columns = tuple(columns)
        self._number = len(columns)
        self._converters: list[tuple[str, Converter]] = [
            (column.name, converter(column.oid)) for column in columns
        ]

    def row(self, message: bytes, at: int) -> tuple[Row, list[str], int]:
        """The TupleData at `at`: the row, the names of its unchanged TOAST columns, where it ends.

        Raises `Undecodable` naming the column that has no JSON form.
        """
        if _COUNT(message, at)[0] != self._number:
            raise Undecodable(f"table {self.full_name}: a row and its description differ in columns")
        row: Row = {}
        unchanged: list[str] = []
        at += 2
        name = ""
        try:
            for name, convert in self._converters:
                kind = message[at]
                if kind == _TEXT:
                    start = at + 5
                    at = start + _SIZE(message, at + 1)[0]
                    row[name] = convert(message[start:at])
                elif kind == _NULL:
                    row[name] = None
                    at += 1
                elif kind == _UNCHANGED:
                    unchanged.append(name)
                    at += 1
                else:
                    raise Undecodable(f"a value of unknown form {kind}")
        except (Undecodable, ValueError) as error:
            raise Undecodable(f"table {self.full_name}, column {name}: {error}") from error
        return row, unchanged, at

    def key(self, message: bytes, at: int) -> tuple[Row, list[str], int]:
        """As `row`, of a tuple in which only the columns of the replica identity mean anything."""
        row, unchanged, at = self.row(message, at)
        return {column.name: row[column.name] for column in self.columns if column.key}, unchanged, at

    def to_json(self) -> JSON:
        """What makes a kept message readable later."""
        columns = [[column.name, column.oid, column.key] for column in self.columns]
        return {"oid": self.oid, "schema": self.schema, "table": self.name, "identity": self.identity,
                "columns": columns}  # fmt: skip

    @classmethod
    def from_json(cls, value: Any) -> Relation:
        """The inverse."""
        columns = [Column(name, oid, key) for name, oid, key in value["columns"]]
        return cls(value["oid"], value["schema"], value["table"], value["identity"], columns)


Change = tuple[Row | None, Row | None, Sequence[str]]
"""Row before (None: not sent), row after, and the columns that `after` lacks because they did not change."""


def begin(message: bytes) -> tuple[int, int, int]:
    """LSN of the commit record, commit time in microseconds since 2000, transaction id."""
    return _BEGIN(message, 1)


def commit(message: bytes) -> tuple[int, int]:
    """LSN of the commit record, and of what follows it."""
    _, lsn, end, _ = _COMMIT(message, 1)
    return lsn, end


def relation_oid(message: bytes) -> int:
    """Whose row a change is."""
    return _RELATION(message, 1)[0]


def change(message: bytes, relation: Relation) -> Change:
    """An Insert, Update or Delete. Raises `Undecodable`."""
    kind = message[0]
    if kind == INSERT:
        after, unchanged, _ = relation.row(message, 6)
        return None, after, unchanged
    before, at = None, 5
    if message[at] in (OLD_ROW, _KEY_ROW):
        read = relation.row if message[at] == OLD_ROW else relation.key
        before, _, at = read(message, at + 1)
    if kind == DELETE:
        return before, None, ()
    after, unchanged, _ = relation.row(message, at + 1)
    return before, after, unchanged


def truncate(message: bytes) -> Sequence[int]:
    """The OIDs of the tables, in the server's order."""
    number, _ = _TRUNCATE(message, 1)
    return Struct(f">{number}I").unpack_from(message, 6)


def relation(message: bytes) -> Relation:
    """A Relation message. An empty schema name means pg_catalog."""
    schema, at = _string(message, 5)
    name, at = _string(message, at)
    identity, (number,) = chr(message[at]), _COUNT(message, at + 1)
    at += 3
    columns: list[Column] = []
    for _ in range(number):
        column, after = _string(message, at + 1)
        columns.append(Column(column, _COLUMN(message, after)[0], message[at] & 1 == 1))
        at = after + 8
    return Relation(relation_oid(message), schema or "pg_catalog", name, identity, columns)


def _string(message: bytes, at: int) -> tuple[str, int]:
    end = message.index(0, at)
    return message[at:end].decode("utf-8", "replace"), end + 1
