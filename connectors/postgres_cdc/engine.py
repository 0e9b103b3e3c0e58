"""What a Postgres source does with its server; everything here needs psycopg."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from connectors.postgres_cdc import gate, setup
from connectors.postgres_cdc.config import PostgresCdcConfig
from connectors.postgres_cdc.lsn import lsn_text, parse_lsn
from connectors.postgres_cdc.merge import Snapshot
from connectors.postgres_cdc.position import Position
from connectors.postgres_cdc.record import Origin
from connectors.postgres_cdc.replication import Walsender
from connectors.postgres_cdc.server import State, look, missing_tables, server
from connectors.postgres_cdc.session import Refused, Session
from connectors.postgres_cdc.snapshot import SnapshotReader
from connectors.postgres_cdc.stream import Stream
from connectors.postgres_cdc.transaction import Transactions
from eventflow.errors import SourceUnavailable, UsageError
from eventflow.offers import Progress, Resumption
from eventflow.source import Batch

ORIGIN_SECONDS: Final = 30.0
"""How long the answer holds: eventflow asks every second or so, and each answer is a connection."""
SETUP_SECONDS: Final = 60.0
"""How long a slot may take to be made: it waits for every transaction that is open."""
_INSUFFICIENT: Final = "42501"


class Engine:
    """One source's dealings with its server. `url` is asked for at every connection."""

    def __init__(
        self, name: str, config: PostgresCdcConfig, url: Callable[[], str], slot: str, publication: str
    ) -> None:
        self._name = name
        self._config = config
        self._url = url
        self._names = (slot, publication)
        self._sender: Walsender | None = None
        self._origin: tuple[float, str] | None = None

    async def origin(self) -> str:
        now = asyncio.get_running_loop().time()
        if self._origin is None or now > self._origin[0] + ORIGIN_SECONDS:
            async with await self._session() as session:
                found = await server(session)
            self._origin = (now, f"{found.system}/{found.database}")
        return self._origin[1]

    # ------------------------------------------------------------------ reading

    async def batches(self, position: Position | None) -> AsyncGenerator[Batch]:
        """The snapshot's batches where one is asked for, then the stream's."""
        try:
            if position is None:
                position = await self._beginning()
                yield Batch([], cursor=position.to_json())
            if position.snapshot is not None and not position.snapshot.complete:
                async with aclosing(self._read_tables(position)) as reading:
                    async for batch in reading:
                        position = Position.from_json(batch.cursor)
                        yield batch
            async with aclosing(self._stream(position)) as stream:
                async for batch in stream:
                    yield batch
        finally:
            self._origin = None  # whatever ended it: another server may answer next time

    async def _beginning(self) -> Position:
        """Where the slot stands. Stored before anything is read: from then on it is the authority."""
        async with await self._session() as session, await self._walsender() as sender:
            found = gate.check(self._name, self._config, self._names, await self._look(session), None)
            _, timeline, _, _ = (await sender.rows("IDENTIFY_SYSTEM"))[0]
        snapshot = Snapshot({}) if self._config.snapshot == "initial" else None
        return Position(parse_lsn(found.confirmed or ""), 0, int(timeline or 0), snapshot)

    async def _read_tables(self, position: Position) -> AsyncGenerator[Batch]:
        async with await self._session() as session, await self._walsender() as sender:
            state = await self._look(session)
            gate.check(self._name, self._config, self._names, state, position)
            reader = SnapshotReader(self._config, self._origin_of(state), self._names[0], sender, session)
            async with aclosing(reader.batches(position, state)) as batches:
                async for batch in batches:
                    yield batch

    async def _stream(self, position: Position) -> AsyncGenerator[Batch]:
        async with await self._walsender() as sender:
            async with await self._session() as session:
                state = await self._look(session)
                gate.check(self._name, self._config, self._names, state, position)
                timeline = await gate.check_timeline(self._name, sender, position)
                await gate.start(self._name, sender, session, self._names, position)
            position = replace(position, timeline=timeline)
            changes = Transactions(self._origin_of(state), self._config.by_name, position)
            self._sender = sender
            try:
                async with aclosing(Stream(sender, changes).batches()) as batches:
                    async for batch in batches:
                        yield batch
            finally:
                self._sender = None

    def confirm(self, lsn: int) -> None:
        """What was committed before `lsn` is durable."""
        if self._sender is not None:
            self._sender.confirm(lsn)

    # ------------------------------------------------------------------ for operators

    async def progress(self, position: Position | None) -> Progress:
        async with await self._session() as session:
            state = await self._look(session)
        if position is None or state.slot is None:
            return Progress(None, "bytes", None if state.slot else f"there is no slot '{self._names[0]}'")
        lag = max(0, parse_lsn(state.server.wal) - position.lsn)
        return Progress(lag, "bytes", _kept(self._names[0], state, position))

    async def resume_at(self, position: Position | None, where: str) -> Resumption:
        async with await self._session() as session, await self._walsender() as sender:
            state = await self._look(session)
            _, timeline, _, _ = (await sender.rows("IDENTIFY_SYSTEM"))[0]
        if state.slot is None or state.slot.lost or state.slot.confirmed is None:
            raise UsageError(
                f"source '{self._name}': the slot '{self._names[0]}' is "
                f"{'lost' if state.slot else 'not there'}; "
                f"make it first: eventflow sources setup {self._name} --run"
            )
        first, last = state.slot.confirmed, state.server.wal
        lsn = parse_lsn({"earliest": first, "latest": last}.get(where) or _lsn(where))
        if not parse_lsn(first) <= lsn <= parse_lsn(last):
            raise UsageError(
                f"source '{self._name}': {where} is not between {first} and {last}, what the slot has"
            )
        begin = None if position is None else lsn_text(position.lsn)
        snapshot = None
        if position is not None and position.snapshot is not None and not position.snapshot.complete:
            snapshot = position.snapshot
        resumed = Position(lsn, 0, int(timeline or 0), snapshot)
        return Resumption(resumed.to_json(), {"from": begin, "to": lsn_text(lsn)})

    async def preparation(self) -> Sequence[str]:
        async with await self._session() as session:
            return await self._needed(session)

    async def prepare(self) -> Sequence[str]:
        async with await self._session() as session:
            await session.run(f"SET statement_timeout = '{SETUP_SECONDS:g}s'")
            needed = await self._needed(session)
            for statement in needed:
                try:
                    await session.run(statement)
                except Refused as error:
                    owner = " (whoever owns the tables may run it)" if error.state == _INSUFFICIENT else ""
                    raise SourceUnavailable(f"source '{self._name}': {statement}: {error}{owner}") from error
        return needed

    async def _needed(self, session: Session) -> Sequence[str]:
        state = await self._look(session)
        if missing := missing_tables(self._config, state.tables):
            raise SourceUnavailable(f"source '{self._name}': there is no table {', '.join(missing)}")
        return setup.statements(self._config, *self._names, state)

    async def examine(self) -> Sequence[str]:
        async with await self._session() as session:
            return setup.warnings(self._config, *self._names, await self._look(session))

    # ------------------------------------------------------------------ connections

    async def _session(self) -> Session:
        return await Session.open(self._url(), self._name)

    async def _walsender(self) -> Walsender:
        return await Walsender.open(self._url(), self._name, replication=True)

    async def _look(self, session: Session) -> State:
        return await look(session, self._config, *self._names)

    def _origin_of(self, state: State) -> Origin:
        return Origin(self._name, state.server.database)


def _lsn(text: str) -> str:
    try:
        return lsn_text(parse_lsn(text))
    except ValueError as error:
        raise UsageError(f"{error}; or write earliest or latest") from error


def _kept(slot: str, state: State, position: Position) -> str | None:
    """What the slot costs the server."""
    assert state.slot is not None
    if state.slot.lost:
        return f"the slot '{slot}' is lost"
    kept = f"the slot keeps {_size(state.slot.kept or 0)} of WAL on the server"
    if position.snapshot is not None and not position.snapshot.complete:
        kept = f"reading the tables; {kept}"
    if state.slot.safe is None:
        return f"{kept}, without bound: max_slot_wal_keep_size is -1"
    return f"{kept}; {_size(max(0, state.slot.safe))} more and it is lost"


def _size(number: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number // 1024} KiB"
