"""Messages of the stream in, records and the position after them out.

Every change of a transaction has a number, counted from 1 whatever becomes of it, so that ids stay the
same when a transaction is read again from its middle.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from datetime import datetime
from typing import Final

from connectors.postgres_cdc import pgoutput
from connectors.postgres_cdc.lsn import lsn_text
from connectors.postgres_cdc.merge import remaining
from connectors.postgres_cdc.pgoutput import Relation
from connectors.postgres_cdc.position import Position
from connectors.postgres_cdc.record import OPERATIONS, Origin, TableEvents, operation, postgres_time
from eventflow.errors import SourceUnavailable, Undecodable
from eventflow.event import Record

_ALL: Final = 1 << 62


class Transactions:
    """The stream of one connection, from `position` on."""

    def __init__(self, origin: Origin, tables: Collection[str], position: Position) -> None:
        self._origin = origin
        self._tables = tables
        self._start = position
        self._snapshot = position.snapshot
        self._until = position.snapshot.until if position.snapshot else 0
        self._timeline = position.timeline
        self._relations: dict[int, Relation] = {}
        self._events: dict[int, TableEvents] = {}
        self._done = position.lsn
        self._commit: int | None = None
        self._prefix = ""
        self._time: datetime | None = None
        self._xid = 0
        self._n = 0
        self._skip = 0

    @property
    def open(self) -> bool:
        """Whether a transaction is half read."""
        return self._commit is not None

    @property
    def position(self) -> Position:
        """After the last message."""
        lsn, n = (self._done, 0) if self._commit is None else (self._commit, max(self._n, self._known_n()))
        return Position(lsn, n, self._timeline, self._snapshot if lsn < self._until else None)

    def _known_n(self) -> int:
        return self._start.n if self._commit == self._start.lsn else 0

    def idle_at(self, lsn: int) -> None:
        """The server has sent everything before `lsn`."""
        if self._commit is None:
            self._done = max(self._done, lsn)

    def feed(self, message: bytes, records: list[Record]) -> None:
        """Append what `message` says to `records`."""
        kind = message[0]
        if kind in OPERATIONS:
            self._n += 1
            if self._n > self._skip:
                self._change(kind, message, records)
        elif kind == pgoutput.BEGIN:
            self._begin(message)
        elif kind == pgoutput.COMMIT:
            self._done = max(self._done, pgoutput.commit(message)[1])
            self._commit = None
        elif kind == pgoutput.RELATION:
            relation = pgoutput.relation(message)
            self._relations[relation.oid] = relation
            self._events.pop(relation.oid, None)
        elif kind == pgoutput.TRUNCATE:
            self._truncate(message, records)

    def _begin(self, message: bytes) -> None:
        """What the stored position knows is passed over: after a crash the slot stands before it."""
        self._commit, time, self._xid = pgoutput.begin(message)
        self._time = postgres_time(time)
        self._prefix = lsn_text(self._commit)
        self._n = 0
        self._events.clear()
        if self._commit < self._start.lsn:
            self._skip = _ALL
        else:
            self._skip = self._known_n()

    def _change(self, kind: int, message: bytes, records: list[Record]) -> None:
        oid = pgoutput.relation_oid(message)
        relation = self._relations[oid]
        events = self._events.get(oid)
        if events is None:
            if relation.full_name not in self._tables:
                return
            events = self._events[oid] = self._of(relation)
        try:
            change = pgoutput.change(message, relation)
        except Undecodable as error:
            records.append(events.broken(self._n, message, relation, error.reason))
            return
        except (LookupError, struct.error) as error:
            raise SourceUnavailable(f"a message that is none, {error!r}: {message[:40]!r}") from error
        op = OPERATIONS[kind]
        if self._commit is not None and self._commit < self._until:
            joined = self._joined(op, change, relation)
            if joined is None:
                return
            op, change = joined
        records.append(events.event(self._n, op, *change))

    def _joined(
        self, op: str, change: pgoutput.Change, relation: Relation
    ) -> tuple[str, pgoutput.Change] | None:
        """The change beside the snapshot."""
        assert self._snapshot is not None
        assert self._commit is not None
        table = self._snapshot.tables.get(relation.full_name)
        if table is None:
            return op, change
        left = remaining(change, table, self._commit)
        if left is None or left is change:
            return None if left is None else (op, change)
        return operation(left), left

    def _truncate(self, message: bytes, records: list[Record]) -> None:
        """One event for each table. A table that was read later is not emptied by it."""
        for oid in pgoutput.truncate(message):
            self._n += 1
            relation = self._relations[oid]
            if self._n <= self._skip or relation.full_name not in self._tables or self._read_later(relation):
                continue
            events = self._events.setdefault(oid, self._of(relation))
            records.append(events.event(self._n, "t", None, None, ()))

    def _read_later(self, relation: Relation) -> bool:
        """Truncating changes a table's file, and what was read of another file was read again."""
        table = self._snapshot.tables.get(relation.full_name) if self._snapshot else None
        return table is not None and self._commit is not None and self._commit < table.segments[0].lsn

    def _of(self, relation: Relation) -> TableEvents:
        lsn, time = self._commit, self._time
        assert lsn is not None and time is not None  # noqa: PT018 - set by one message
        return TableEvents(
            self._origin, relation.full_name, prefix=self._prefix, lsn=lsn, time=time,
            xid=self._xid,
        )  # fmt: skip
