"""What is in the tables, read once before the stream: `snapshot: initial`.

A temporary slot gives a consistent point, and this connection's transaction sees exactly what was committed
before it. Tables are read in the order of their keys, a batch at a time, and the cursor says how far;
whoever goes on later reads the rest at a later point, and `merge.py` joins the stream to that.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from connectors.postgres_cdc.config import PostgresCdcConfig, TableConfig
from connectors.postgres_cdc.lsn import lsn_text, parse_lsn
from connectors.postgres_cdc.merge import Segment, Snapshot, TableRead
from connectors.postgres_cdc.pgoutput import Row
from connectors.postgres_cdc.position import Position
from connectors.postgres_cdc.record import Origin, TableEvents
from connectors.postgres_cdc.replication import Walsender
from connectors.postgres_cdc.server import State, Table, tables
from connectors.postgres_cdc.session import Refused, Session, values_of
from connectors.postgres_cdc.setup import quoted
from connectors.postgres_cdc.values import Converter, converter
from eventflow.errors import SourceUnavailable, Undecodable
from eventflow.event import Record
from eventflow.source import Batch

BATCH_ROWS: Final = 1_000
BATCH_BYTES: Final = 4 << 20
_FIRST_ROWS: Final = 50

_INTEGERS: Final = {20, 21, 23}
_TEXTS: Final = {25, 1043, 2950, 1082}  # text, varchar, uuid, date: as text they are what the stream says
_ENCODINGS: Final = {"UTF8", "LATIN1"}  # byte order is the order of code points
"""Of keys whose order Postgres and Python agree on. Tables with others are read at one go."""


class SnapshotReader:
    """Reads what is left of a snapshot over one replication connection, at one consistent point."""

    def __init__(
        self, config: PostgresCdcConfig, origin: Origin, slot: str, sender: Walsender, session: Session
    ) -> None:
        self._config = config
        self._origin = origin
        self._slot = slot
        self._sender = sender
        self._session = session
        self._snapshot = Snapshot({})
        self._position = Position(0)
        self._lsn = 0
        self._time = datetime.now(UTC)

    async def batches(self, position: Position, state: State) -> AsyncGenerator[Batch]:
        """Until every table is read; the cursor of the last batch says so.

        Raises `SourceUnavailable`.
        """
        self._position = position
        self._snapshot, again = _continued(position.snapshot or Snapshot({}), self._config, state)
        await self._open(state)
        stored = position.snapshot
        for table in self._config.tables:
            if self._snapshot.tables[table.table].complete:
                continue
            if table.table in again:
                stored = self._snapshot
                yield self._batch([self._events(table).event(0, "t", None, None, ())])
            async for records in self._read(table, state.tables[table.table]):
                stored = self._snapshot
                yield self._batch(records)
        if stored is not self._snapshot:  # the last tables are empty
            yield self._batch([])

    def _batch(self, records: Sequence[Record]) -> Batch:
        return Batch(records, cursor=replace(self._position, snapshot=self._snapshot).to_json())

    def _events(self, table: TableConfig) -> TableEvents:
        prefix = f"{lsn_text(self._lsn)}/{table.table}"
        return TableEvents(self._origin, table.table, prefix=prefix, lsn=self._lsn, time=self._time, xid=None)

    async def _open(self, state: State) -> None:
        """See what was committed before `self._lsn`, and keep the tables' files as they are."""
        name = f"{self._slot[:45]}_{uuid4().hex[:16]}"
        listed = ", ".join(quoted(table) for table in self._config.tables)
        try:
            await self._sender.run("BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ")
            made = await self._sender.rows(
                f"CREATE_REPLICATION_SLOT \"{name}\" TEMPORARY LOGICAL pgoutput (SNAPSHOT 'use')"
            )
            self._lsn = parse_lsn(made[0][1] or "")
            await self._sender.run("SET LOCAL lock_timeout = '10s'")
            await self._sender.run(f"LOCK TABLE {listed} IN ACCESS SHARE MODE")
        except Refused as error:
            raise SourceUnavailable(f"source '{self._origin.source}': its snapshot: {error}") from error
        # A table rewritten after the snapshot was taken and before the lock would look empty to it.
        now = await tables(self._session, self._config)
        if any(now[name].file != found.file for name, found in state.tables.items()):
            raise SourceUnavailable(f"source '{self._origin.source}': a table was rewritten just now")

    async def _read(self, table: TableConfig, found: Table) -> AsyncGenerator[Sequence[Record]]:
        """Rows from behind the last key on; `self._snapshot` says how far with each."""
        already = self._snapshot.tables[table.table]
        try:
            await self._sender.run(f"DECLARE reading NO SCROLL CURSOR FOR {query(table, found, already)}")
            number, last, size = 0, False, _FIRST_ROWS
            events = self._events(table)
            while not last:
                result = await self._sender.run(f"FETCH {size} FROM reading")
                rows = values_of(result)
                last = len(rows) < size
                names = [(result.fname(i) or b"").decode() for i in range(result.nfields)]
                converters = [converter(result.ftype(i)) for i in range(result.nfields)]
                records = [
                    _record(events, number + n, names, converters, row) for n, row in enumerate(rows, 1)
                ]
                number += len(rows)
                self._advance(table.table, already, names, rows, converters, last)
                size = _next_size(rows)
                if records:
                    yield records
            await self._sender.run("CLOSE reading")
        except Refused as error:
            raise SourceUnavailable(
                f"source '{self._origin.source}': its snapshot of {table.table}: {error}"
            ) from error

    def _advance(
        self, name: str, already: TableRead, names: Sequence[str], rows: Sequence[Sequence[bytes | None]],
        converters: Sequence[Converter], last: bool,
    ) -> None:  # fmt: skip
        """Note in `self._snapshot` how far the table is read."""
        upto: list[Any] | None = None
        if not last:
            if not already.key:
                self._snapshot = self._snapshot.with_table(name, replace(already, begun=True))
                return
            at = [names.index(column) for column in already.key]
            upto = [converters[i](rows[-1][i] or b"") for i in at]
        segments = [*already.segments, Segment(upto, self._lsn)]
        self._snapshot = self._snapshot.with_table(name, replace(already, segments=segments))


def _continued(snapshot: Snapshot, config: PostgresCdcConfig, state: State) -> tuple[Snapshot, set[str]]:
    """Where reading goes on, and the tables that are read from their beginning again.

    Those are tables without a key that were not read to their end, and tables that got another file:
    they may have been emptied, and what was read of them before would stay.
    """
    read: dict[str, TableRead] = {}
    again: set[str] = set()
    for table in config.tables:
        found = state.tables[table.table]
        known = snapshot.tables.get(table.table)
        fresh = TableRead(_key(found, state), found.file or "")
        read[table.table] = known or fresh
        if known is None or known.complete:
            continue
        if known.begun or (known.segments and known.file != fresh.file):
            again.add(table.table)
            read[table.table] = fresh
    return Snapshot(read), again


def _key(found: Table, state: State) -> Sequence[str]:
    """The columns by whose order the table is read; none where that is not the same everywhere."""
    if state.server.encoding not in _ENCODINGS or not found.identifies:
        return ()
    if any(oid not in _INTEGERS | _TEXTS for _, oid in found.key):
        return ()
    return [name for name, _ in found.key]


def query(table: TableConfig, found: Table, already: TableRead) -> str:
    """The rows that are left of a table, in the order of its key.

    A replication connection takes no parameters: names are the catalogue's own, in quotes, `where` is the
    rule file's, and the key that was read last is written as a literal.
    """
    kinds = dict(found.key)
    order = [
        f'"{name}"' if kinds[name] in _INTEGERS else f'"{name}"::text COLLATE "C"' for name in already.key
    ]
    conditions = [f"({table.where})"] if table.where else []
    if already.segments:
        upto = ", ".join(_literal(value) for value in already.segments[-1].upto or ())
        conditions.append(f"({', '.join(order)}) > ({upto})")
    parts = ["SELECT", ", ".join(f'"{column}"' for column in found.columns), "FROM", quoted(table)]
    if conditions:
        parts += ["WHERE", " AND ".join(conditions)]
    if order:
        parts += ["ORDER BY", ", ".join(order)]
    return " ".join(parts)


def _literal(value: int | str) -> str:
    if isinstance(value, int):
        return str(value)
    return "'" + value.replace("'", "''") + "'"  # standard_conforming_strings is on since 9.1


def _record(
    events: TableEvents, n: int, names: Sequence[str], converters: Sequence[Converter],
    values: Sequence[bytes | None],
) -> Record:  # fmt: skip
    row: Row = {}
    name = ""
    try:
        for name, convert, value in zip(names, converters, values, strict=True):
            row[name] = None if value is None else convert(value)
    except (Undecodable, ValueError) as error:
        return events.unread(n, names, values, f"column {name}: {error}")
    return events.event(n, "r", None, row, ())


def _next_size(rows: Sequence[Sequence[bytes | None]]) -> int:
    """As many rows as fill a batch, by those that came last; never many times more at a step."""
    if not rows:
        return _FIRST_ROWS
    size = sum(len(value) for row in rows for value in row if value is not None) or 1
    return max(1, min(BATCH_ROWS, 4 * len(rows), BATCH_BYTES * len(rows) // size))
