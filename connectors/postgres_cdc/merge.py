"""A snapshot joined to the stream: what was read when, and which changes it contains already.

A table is read in the order of its key, in one *segment* for each time that the reading was begun: a
segment holds the keys up to `upto` (None: all the rest) as they were at `lsn`, that is with every
transaction whose commit record stands before it. The stream begins before the first segment; of a change
that it brings, each key's part counts only where the key was read before that change. Folded in their
order, reads and changes then give the table, however often the reading was interrupted.

In the cursor: `{"tables": {"public.orders": {"key": ["id"], "file": "16397", "segments": [[[42],
"0/16B3748"], [null, "0/17C0000"]]}}}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from connectors.postgres_cdc.lsn import lsn_text, parse_lsn
from connectors.postgres_cdc.pgoutput import Change, Row
from eventflow.event import JSON

Key = list[Any]
"""A row's key: integers compare as such, texts by code point, as Postgres compares them under "C"."""


@dataclass(frozen=True, slots=True)
class Segment:
    """What was read at one go: keys up to `upto`, as they were at `lsn`."""

    upto: Key | None
    lsn: int


@dataclass(frozen=True, slots=True)
class TableRead:
    """How far a table is read. Without `key` it is read in one segment or from its beginning again.

    `file` names the file that holds it: TRUNCATE and rewriting give it another one. `begun` is set when a
    first row of a table without a key was handed over.
    """

    key: Sequence[str]
    file: str
    segments: Sequence[Segment] = ()
    begun: bool = False

    @property
    def complete(self) -> bool:
        return bool(self.segments) and self.segments[-1].upto is None

    def read_at(self, row: Row, other: Row | None) -> int:
        """When the key of `row` was read; `other` has what `row` lacks of it."""
        if len(self.segments) == 1:
            return self.segments[0].lsn
        key = [row[name] if name in row or other is None else other[name] for name in self.key]
        return next(segment.lsn for segment in self.segments if segment.upto is None or key <= segment.upto)

    def to_json(self) -> JSON:
        segments = [[segment.upto, lsn_text(segment.lsn)] for segment in self.segments]
        return {"key": list(self.key), "file": self.file, "segments": segments, "begun": self.begun}

    @classmethod
    def from_json(cls, value: Any) -> TableRead:
        segments = [Segment(upto, parse_lsn(lsn)) for upto, lsn in value["segments"]]
        return cls(value["key"], value["file"], segments, value["begun"])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every table's state, by `schema.table`. None yet: nothing was read."""

    tables: Mapping[str, TableRead]

    @property
    def complete(self) -> bool:
        return bool(self.tables) and all(table.complete for table in self.tables.values())

    @property
    def until(self) -> int:
        """From this LSN on the stream needs no look at what was read."""
        return max((s.lsn for table in self.tables.values() for s in table.segments), default=0)

    def with_table(self, name: str, table: TableRead) -> Snapshot:
        return replace(self, tables={**self.tables, name: table})

    def to_json(self) -> JSON:
        return {"tables": {name: table.to_json() for name, table in self.tables.items()}}

    @classmethod
    def from_json(cls, value: Any) -> Snapshot:
        return cls({name: TableRead.from_json(table) for name, table in value["tables"].items()})


def remaining(change: Change, table: TableRead, lsn: int) -> Change | None:
    """What a change committed at `lsn` still says beside what was read: None where nothing.

    A row whose key changed is two keys, and they may have been read at different times: then what is left
    is the end of the old one, or the beginning of the new one.
    """
    before, after, unchanged = change
    if after is None:
        assert before is not None, "the server sends the key of a row that it deletes"
        return None if lsn < table.read_at(before, None) else change
    new_known = lsn < table.read_at(after, before)
    old_known = new_known if before is None else lsn < table.read_at({**after, **before}, None)
    match old_known, new_known:
        case True, True:
            return None
        case True, False:
            return None, after, unchanged
        case False, True:
            return before, None, ()
        case _:
            return change
