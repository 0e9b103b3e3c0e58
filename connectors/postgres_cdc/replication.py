"""The stream of a slot: COPY BOTH with the server's walsender.

The only module that speaks the streaming protocol. Specification: PostgreSQL, "Streaming Replication
Protocol". Nothing is read from the socket but what is asked for, so a slow reader holds up the server by
TCP alone; a timer sends the standby's status meanwhile, because the server ends a connection that says
nothing for `wal_sender_timeout`.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg.pq import ExecStatus

from connectors.postgres_cdc.lsn import lsn_text
from connectors.postgres_cdc.session import Session, said
from eventflow.errors import SourceUnavailable

STATUS_SECONDS: Final = 10.0
"""As often as Postgres' own subscribers; the server's patience is 60 s."""
STATUS_BYTES: Final = 16 << 20
"""Of WAL that the server may let go of: then it hears so at once. The size of its files."""
SILENCE_SECONDS: Final = 30.0
"""Each status asks for an answer. A server that gives none for so long is gone."""

_DATA: Final = ord("w")
_KEEPALIVE: Final = ord("k")
_HEADER: Final = 25  # w, start of the WAL, its end, the server's time
_KEEPALIVE_FORM: Final = struct.Struct(">BqqB").unpack
_STATUS_FORM: Final = struct.Struct(">BqqqqB").pack


class Walsender(Session):
    """A replication connection. `end`: everything before this LSN has been sent, as the server said last.

    `urged` is true while the server waits for our status, as it does before it shuts down.
    """

    def __init__(self, connection: psycopg.AsyncConnection, source: str) -> None:
        super().__init__(connection, source)
        self.end = 0
        self.urged = False
        self._durable = 0
        self._told = 0
        self._silent = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def __aexit__(self, *exc: object) -> None:
        if self._timer:
            self._timer.cancel()
        await super().__aexit__(*exc)

    async def start(self, slot: str, publication: str, lsn: int) -> None:
        """Begin to stream what was committed at `lsn` or later. Raises `Refused`, `SourceUnavailable`."""
        result = await self.run(
            f'START_REPLICATION SLOT "{slot}" LOGICAL {lsn_text(lsn)} '
            f"(proto_version '1', publication_names '\"{publication}\"')"
        )
        assert result.status == ExecStatus.COPY_BOTH, result.status
        self._durable = lsn
        self._tick()

    def confirm(self, lsn: int) -> None:
        """What was committed before `lsn` is durable here; the server hears so with the next status."""
        self._durable = max(self._durable, lsn)
        if self.urged or self._durable - self._told >= STATUS_BYTES:
            self.send_status()

    def send_status(self) -> None:
        """Tell the server now. That a connection is gone shows when it is read."""
        durable = self._told = self._durable
        now = int(self._loop.time() * 1_000_000)  # the server only shows it
        message = _STATUS_FORM(ord("r"), max(durable, self.end), durable, durable, now, 1)
        self.urged = False
        try:
            self._pq.put_copy_data(message)
            self._pq.flush()
        except psycopg.Error:
            return

    def _tick(self) -> None:
        self.send_status()
        self._timer = self._loop.call_later(STATUS_SECONDS, self._tick)

    def read(self) -> bytes | None:
        """The next pgoutput message that is here, or None. Raises `SourceUnavailable`."""
        try:
            while True:
                size, view = self._pq.get_copy_data(1)
                if size <= 0:
                    if size < 0:
                        raise self._ended()
                    return None
                self._silent = 0.0
                if view[0] == _DATA:
                    return bytes(view[_HEADER:])
                if view[0] == _KEEPALIVE:
                    _, self.end, _, urged = _KEEPALIVE_FORM(view)
                    self.urged = self.urged or urged == 1
        except psycopg.Error as error:
            raise self.gone(error) from error

    def receive(self) -> None:
        """Take in what the socket holds. Raises `SourceUnavailable`."""
        try:
            self._pq.consume_input()
        except psycopg.Error as error:
            raise self.gone(error) from error

    @contextmanager
    def on_arrival(self, take: Callable[[], bool]) -> Generator[None]:
        """Inside, call `take` whenever something can be received, for as long as it says so."""
        socket = self.socket()

        def arrived() -> None:
            if not take():
                self._loop.remove_reader(socket)

        self._loop.add_reader(socket, arrived)
        try:
            yield
        finally:
            self._loop.remove_reader(socket)

    async def wait(self, seconds: float) -> None:
        """Until something can be received, at most so long. Raises `SourceUnavailable` after a silence."""
        try:
            async with asyncio.timeout(seconds):
                await self.readable()
        except TimeoutError:
            self._silent += seconds
            if self._silent > SILENCE_SECONDS:
                raise self.gone(TimeoutError(f"it has said nothing for {self._silent:g} s")) from None

    def _ended(self) -> SourceUnavailable:
        """The server ended the stream: its last word says why."""
        reason = "it ended the stream"
        try:
            while result := self._pq.get_result():
                reason = result.get_error_message("utf-8") or reason
        except psycopg.Error as error:
            reason = str(error)
        return self.gone(ConnectionError(said(ConnectionError(reason))))
