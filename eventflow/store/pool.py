"""Connections to Postgres: how they are made, their types, and what a server must promise.

asyncpg carries no types. `Connection` and `Pool` are the part of it that eventflow uses, so that the rest
of the code can be checked strictly and does not name the driver.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Final, LiteralString, Protocol
from uuid import UUID

import asyncpg

from eventflow.errors import StoreError, UnsafeDurability

MINIMUM_SERVER: Final = 15
DEFAULT_IDLE_IN_TRANSACTION: Final = timedelta(seconds=20)
"""Below the default lease of 30 s: a stopped node's locks are gone before its work is given away."""

CONNECT_SECONDS: Final = 10.0
"""How long a server may take to let a session in; asyncpg's own patience is a minute."""

LEAST_PATIENCE: Final = timedelta(seconds=10)
"""A node waits for a statement as long as its lease, but not less than this."""

_SLOW_SECONDS: Final = 600.0
_COPY_FACTOR: Final = 4

_driver: Any = asyncpg

DISCONNECTED: Final[tuple[type[Exception], ...]] = (
    ConnectionError,  # refused, reset, no such socket or host, see `_open`; not what a local disk raises
    TimeoutError,  # no session in time, or no answer to a statement
    asyncpg.InterfaceError,  # the connection was closed under us
    asyncpg.InternalClientError,  # the server had said goodbye, and the driver has not yet noticed the end
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
)
"""What a statement raises when Postgres is away. The outcome of a COMMIT in flight is then unknown."""


class Row(Protocol):
    """One row of a result, by column name or number."""

    def __getitem__(self, key: str | int, /) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __len__(self) -> int: ...
    def get(self, key: str, default: Any = None, /) -> Any: ...
    def keys(self) -> Iterator[str]: ...
    def values(self) -> Iterator[Any]: ...
    def items(self) -> Iterator[tuple[str, Any]]: ...


class Transaction(Protocol):
    """A transaction, or a savepoint where one is open already; commits unless its block raises."""

    async def start(self) -> None: ...
    async def commit(self) -> None: ...
    async def rollback(self) -> None: ...
    async def __aenter__(self) -> Any: ...
    async def __aexit__(self, *exc: object) -> Any: ...


class Statement(Protocol):
    """A prepared statement; good as long as its connection is held."""

    async def fetch(self, *args: Any, timeout: float | None = None) -> list[Row]: ...
    async def fetchrow(self, *args: Any, timeout: float | None = None) -> Row | None: ...
    async def fetchval(self, *args: Any, column: int = 0, timeout: float | None = None) -> Any: ...
    async def explain(self, *args: Any, analyze: bool = False) -> Any: ...


class Connection(Protocol):
    """A session: the part of `asyncpg.Connection` that eventflow uses. One statement at a time."""

    async def execute(self, query: LiteralString, *args: Any, timeout: float | None = None) -> str: ...
    async def executemany(
        self, command: LiteralString, args: Iterable[Sequence[Any]], *, timeout: float | None = None
    ) -> None: ...
    async def fetch(self, query: LiteralString, *args: Any, timeout: float | None = None) -> list[Row]: ...
    async def fetchrow(
        self, query: LiteralString, *args: Any, timeout: float | None = None
    ) -> Row | None: ...
    async def fetchval(
        self, query: LiteralString, *args: Any, column: int = 0, timeout: float | None = None
    ) -> Any: ...
    async def prepare(self, query: LiteralString, *, timeout: float | None = None) -> Statement: ...
    async def copy_records_to_table(
        self,
        table_name: str,
        *,
        records: Iterable[Sequence[Any]] | AsyncIterable[Sequence[Any]],
        columns: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> str: ...
    def transaction(
        self, *, isolation: str | None = None, readonly: bool = False, deferrable: bool = False
    ) -> Transaction: ...
    async def add_listener(
        self, channel: str, callback: Callable[[Connection, int, str, str], Any]
    ) -> None: ...
    def add_termination_listener(self, callback: Callable[[Connection], Any]) -> None: ...
    def get_server_pid(self) -> int: ...
    def set_patience(self, seconds: float | None) -> float | None: ...
    def is_closed(self) -> bool: ...
    async def close(self, *, timeout: float | None = None) -> None: ...
    def terminate(self) -> None: ...


class Pool(Protocol):
    """Sessions to share: the part of `asyncpg.Pool` that eventflow uses. Bound to its event loop.

    A session comes back as it was left, only without an open transaction (asyncpg's full reset costs a
    round trip on every release). So use `SET LOCAL` and transaction-level advisory locks on it, and
    listen on a connection of your own.
    """

    def acquire(self, *, timeout: float | None = None) -> AbstractAsyncContextManager[Connection]: ...
    async def close(self) -> None: ...
    def terminate(self) -> None: ...
    async def __aenter__(self) -> Pool: ...
    async def __aexit__(self, *exc: object) -> Any: ...


def _session_settings(node: UUID | None, idle_in_transaction: timedelta) -> Mapping[str, str]:
    return {
        # Whoever takes over from a stopped node finds and ends its backends by this name.
        "application_name": "eventflow" if node is None else f"eventflow {node}",
        "search_path": "eventflow",
        "timezone": "UTC",
        "idle_in_transaction_session_timeout": str(int(idle_in_transaction / timedelta(milliseconds=1))),
        # Compiling a plan costs more than any of eventflow's short statements.
        "jit": "off",
    }


class _Session(_driver.Connection):
    """A session whose statements are answered in time, or end with it.

    A network that swallows packets, or a proxy in it, tells nobody: without a bound a statement waits for
    ever, and so does its cancellation. What times out counts as a disconnect: its outcome is unknown.
    """

    _patience: float | None = None

    def set_patience(self, seconds: float | None) -> float | None:
        """How long statements may take from now on, None for ever; the patience before."""
        before, self._patience = self._patience, seconds
        return before

    @asynccontextmanager
    async def _in_time(self, seconds: float | None) -> AsyncGenerator[None]:
        try:
            async with asyncio.timeout(seconds or self._patience):
                yield
        except TimeoutError:
            self.terminate()
            raise

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        async with self._in_time(timeout):
            return await _driver.Connection.execute(self, query, *args)

    async def executemany(self, command: str, args: Any, *, timeout: float | None = None) -> Any:
        async with self._in_time(timeout):
            return await _driver.Connection.executemany(self, command, args)

    async def fetch(self, query: str, *args: Any, timeout: float | None = None, **more: Any) -> Any:
        async with self._in_time(timeout):
            return await _driver.Connection.fetch(self, query, *args, **more)

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None, **more: Any) -> Any:
        async with self._in_time(timeout):
            return await _driver.Connection.fetchrow(self, query, *args, **more)

    async def fetchval(self, query: str, *args: Any, timeout: float | None = None, **more: Any) -> Any:
        async with self._in_time(timeout):
            return await _driver.Connection.fetchval(self, query, *args, **more)

    async def copy_records_to_table(
        self, table_name: str, *, timeout: float | None = None, **more: Any
    ) -> Any:
        """A batch may be many megabytes: more patience than for other statements."""
        async with self._in_time(timeout or (self._patience and _COPY_FACTOR * self._patience)):
            return await _driver.Connection.copy_records_to_table(self, table_name, **more)


class _Sessions(_driver.Pool):
    """A pool that waits for a session, and for one to come back, as long as for a statement."""

    def __init__(self, *args: Any, patience: float | None, **more: Any) -> None:
        self._patience = patience
        _driver.Pool.__init__(self, *args, **more)

    def acquire(self, *, timeout: float | None = None) -> Any:
        return _driver.Pool.acquire(self, timeout=timeout or self._patience)


async def _open(*args: Any, patience: float | None, **more: Any) -> Any:
    """A session. Whatever the system says where it cannot be had is a `ConnectionError`."""
    try:
        session = await _driver.connect(*args, **more)
    except (ConnectionError, TimeoutError):
        raise
    except OSError as error:
        raise ConnectionError(str(error)) from error
    session.set_patience(patience)
    return session


def _seconds(patience: timedelta | None) -> float | None:
    return None if patience is None else patience.total_seconds()


@contextmanager
def unhurried(connection: Connection) -> Generator[None]:
    """Statements in here may take ten minutes each: for the slow work that nothing waits for."""
    before = connection.set_patience(_SLOW_SECONDS)
    try:
        yield
    finally:
        if is_alive(connection):
            connection.set_patience(before)


async def _keep_session(_connection: Connection) -> None:
    """Reset nothing: asyncpg has rolled back before it calls this."""


async def connect(
    url: str,
    *,
    node: UUID | None = None,
    size: int = 10,
    idle_in_transaction: timedelta = DEFAULT_IDLE_IN_TRANSACTION,
    patience: timedelta | None = None,
) -> Pool:
    """A pool of at most `size` sessions, one of them open already; the caller closes it.

    `node` becomes part of the application_name; `idle_in_transaction` must be below the lease. A statement
    that takes longer than `patience` raises `TimeoutError` and ends its session.
    Raises one of `DISCONNECTED` where the server is away.
    """
    seconds = _seconds(patience)
    sessions: Any = _Sessions(
        url,
        patience=seconds,
        connect=partial(_open, patience=seconds),
        min_size=1,
        max_size=size,
        max_queries=50_000,
        max_inactive_connection_lifetime=300.0,
        reset=_keep_session,
        loop=None,
        connection_class=_Session,
        record_class=_driver.Record,
        timeout=CONNECT_SECONDS,
        server_settings=_session_settings(node, idle_in_transaction),
    )
    pool: Pool = await sessions
    return pool


async def connect_once(
    url: str,
    *,
    node: UUID | None = None,
    idle_in_transaction: timedelta = DEFAULT_IDLE_IN_TRANSACTION,
    patience: timedelta | None = None,
) -> Connection:
    """One session outside any pool, for LISTEN and short commands; the caller closes it."""
    connection: Connection = await _open(
        url,
        patience=_seconds(patience),
        connection_class=_Session,
        timeout=CONNECT_SECONDS,
        server_settings=_session_settings(node, idle_in_transaction),
    )
    return connection


def is_alive(connection: Connection) -> bool:
    """Whether the session is still there. A pool that has lost one takes it back, and asking then raises."""
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:
        return False


_SERVER_FACTS: Final[LiteralString] = """
SELECT current_setting('server_version_num')::int / 10000 AS major,
       current_setting('server_encoding') AS encoding,
       pg_is_in_recovery() AS in_recovery,
       current_setting('fsync') AS fsync,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('full_page_writes') AS full_page_writes
"""


async def check_server(connection: Connection, *, allow_unsafe: bool) -> None:
    """Refuse a server that cannot keep eventflow's promises; `allow_unsafe` lets durability be off.

    Raises `StoreError` (too old, wrong encoding, a standby) or `UnsafeDurability`.
    """
    facts = await connection.fetchrow(_SERVER_FACTS)
    assert facts is not None
    if facts["major"] < MINIMUM_SERVER:
        raise StoreError(
            f"this Postgres is version {facts['major']}; eventflow needs {MINIMUM_SERVER} or newer"
        )
    if facts["encoding"] != "UTF8":
        raise StoreError(
            f"the database's encoding is {facts['encoding']}; create one with ENCODING 'UTF8' for eventflow"
        )
    if facts["in_recovery"]:
        raise StoreError("this Postgres is a standby and takes no writes; point at the primary")
    if not allow_unsafe:
        _refuse_unsafe(facts)


def _refuse_unsafe(facts: Row) -> None:
    # 'local', 'remote_write', 'on' and 'remote_apply' all wait for the local disk; only 'off' does not.
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        if facts[setting] == "off":
            raise UnsafeDurability(
                f"Postgres runs with {setting} = off and may lose what it has acknowledged; switch it on, "
                "or set EVENTFLOW_ALLOW_UNSAFE_DURABILITY=true to accept that"
            )
