"""A session with the server over libpq, on the event loop: one command at a time, values as text.

Over psycopg's `pq` and not its cursors, because a replication connection takes simple queries only, and
because a cancelled task must not wait for a server that does not answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Self

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus
from psycopg.pq.abc import PGresult

from eventflow.errors import SourceUnavailable
from eventflow.event import JSON, decode_json

SETTINGS: Final = (
    "-c datestyle=ISO -c timezone=UTC -c intervalstyle=iso_8601 -c extra_float_digits=1 -c bytea_output=hex "
    "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c wal_sender_timeout=60s"
)
"""What values.py reads; and a session may sit still for as long as our own commits take."""
CONNECT_SECONDS: Final = 10
ANSWER_SECONDS: Final = 30.0
"""How long a question about the server may take."""


class Refused(Exception):
    """The server answered with an error. `state` is its SQLSTATE."""

    def __init__(self, state: str, message: str) -> None:
        self.state = state
        super().__init__(message)


def application_name(source: str) -> str:
    """How the server knows the sessions of this source, of every node."""
    return f"eventflow source {source}".encode("ascii", "replace").decode()[:63]


class Session:
    """One connection. `async with` closes it, at once and whatever it is doing."""

    def __init__(self, connection: psycopg.AsyncConnection, source: str) -> None:
        self._connection = connection
        self._pq: pq.abc.PGconn = connection.pgconn
        self._source = source
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def open(cls, url: str, source: str, *, replication: bool = False) -> Self:
        """Connect. Raises `SourceUnavailable`."""
        _check_address(url, source)
        try:
            connection = await psycopg.AsyncConnection.connect(
                url, autocommit=True, client_encoding="UTF8", application_name=application_name(source),
                replication="database" if replication else "false", connect_timeout=CONNECT_SECONDS,
                keepalives=1, keepalives_idle=10, keepalives_interval=5, keepalives_count=3,
                tcp_user_timeout=30_000, options=SETTINGS,
            )  # fmt: skip
        except (psycopg.Error, OSError, UnicodeError) as error:
            raise SourceUnavailable(f"source '{source}': cannot connect: {said(error)}") from error
        session = cls(connection, source)
        if connection.pgconn.parameter_status(b"server_encoding") == b"SQL_ASCII":
            # The server cannot convert what it does not know, and would fail at the first such byte for ever.
            await session.run("SET client_encoding = 'SQL_ASCII'")
        return session

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._connection.close()

    async def run(self, command: str, *values: str | None) -> PGresult:
        """The last result of `command`. Raises `Refused`, or `SourceUnavailable` where the session is gone.

        `values` stand for $1 and so on; a replication connection takes none.
        """
        try:
            if values:
                self._pq.send_query_params(
                    command.encode(), [None if v is None else v.encode() for v in values]
                )
            else:
                self._pq.send_query(command.encode())
            result = await self._result()
        except (psycopg.Error, OSError) as error:
            raise self.gone(error) from error
        if result.status == ExecStatus.FATAL_ERROR:
            raise self._refusal(result)
        return result

    async def rows(self, query: str, *values: str | None) -> Sequence[Sequence[str | None]]:
        """All rows, as text. Raises `SourceUnavailable`."""
        try:
            result = await self.run(query, *values)
        except Refused as error:
            raise self._refuses(error) from error
        return [
            [None if value is None else value.decode("utf-8", "replace") for value in row]
            for row in values_of(result)
        ]

    async def json(self, query: str, *values: str | None) -> JSON:
        """The one value that `query` gives, which is JSON; None where it gives no row or NULL.

        Raises `SourceUnavailable` where that takes too long or is refused.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                rows = values_of(await self.run(query, *values))
        except TimeoutError:
            raise self.gone(TimeoutError(f"no answer within {ANSWER_SECONDS:g} s")) from None
        except Refused as error:
            raise self._refuses(error) from error
        value = rows[0][0] if rows else None
        return None if value is None else decode_json(value)

    def _refuses(self, error: Refused) -> SourceUnavailable:
        return SourceUnavailable(f"source '{self._source}': the server refuses: {error}")

    def gone(self, error: Exception) -> SourceUnavailable:
        return SourceUnavailable(f"source '{self._source}': the server is gone: {said(error)}")

    async def _result(self) -> PGresult:
        # Commands are short, so that this hardly ever waits.
        while self._pq.flush():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        last: PGresult | None = None
        while True:
            if self._pq.is_busy():
                await self.readable()
                self._pq.consume_input()
                continue
            result = self._pq.get_result()
            if result is None:
                assert last is not None, "a command has a result"
                return last
            last = result
            if result.status == ExecStatus.COPY_BOTH:
                return result

    def socket(self) -> int:
        """Its number. Raises `SourceUnavailable` where there is none any more."""
        try:
            return self._pq.socket
        except psycopg.Error as error:
            raise self.gone(error) from error

    async def readable(self) -> None:
        """Until the socket has something to read."""
        arrived: asyncio.Future[None] = self._loop.create_future()
        socket = self.socket()
        self._loop.add_reader(socket, _resolve, arrived)
        try:
            await arrived
        finally:
            self._loop.remove_reader(socket)

    def _refusal(self, result: PGresult) -> Exception:
        message = " ".join(result.get_error_message("utf-8").split())
        if self._pq.status == ConnStatus.BAD:
            return self.gone(ConnectionError(message))
        return Refused((result.error_field(DiagnosticField.SQLSTATE) or b"").decode(), message)


def values_of(result: PGresult) -> Sequence[Sequence[bytes | None]]:
    """Its rows."""
    columns = range(result.nfields)
    return [[result.get_value(n, column) for column in columns] for n in range(result.ntuples)]


def _check_address(url: str, source: str) -> None:
    """Raises `SourceUnavailable` for a `url` that is none, without a word of it: it may hold a password.

    libpq takes a password up to its first `@` or `/`, and would quote the rest of it as a host that it cannot
    find. A host may begin with `@`, which is a socket without a file.
    """
    try:
        found = {word: str(value or "") for word, value in conninfo_to_dict(url).items()}
    except psycopg.Error:
        raise SourceUnavailable(f"source '{source}': the url is no Postgres address") from None
    strayed = any("@" in found.get(word, "")[1:] for word in ("host", "hostaddr", "port", "dbname"))
    if strayed or found.get("port", "").strip("0123456789,"):
        raise SourceUnavailable(
            f"source '{source}': the url's host, port or database holds what may be a part of the password; "
            f"write `@` in a password as %40, `/` as %2F, `:` as %3A and `%` as %25"
        )


def said(error: Exception) -> str:
    """In one line."""
    return " ".join(str(error).split()) or repr(error)


def _resolve(arrived: asyncio.Future[None]) -> None:
    if not arrived.done():
        arrived.set_result(None)
