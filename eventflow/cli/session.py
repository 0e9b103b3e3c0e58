"""From a command to the database: settings, the pool, and one sentence for whatever stands in between."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from eventflow.embedded import Embedded
from eventflow.errors import StoreError, UsageError
from eventflow.settings import Settings, load_settings
from eventflow.store.failures import server_refusal
from eventflow.store.migrate import check_schema, migrate
from eventflow.store.pool import Connection, Pool, connect

T = TypeVar("T")

_HOST: Final = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::[0-9]*)?")


@asynccontextmanager
async def reached(settings: Settings, *, create: bool = False) -> AsyncGenerator[Pool]:
    """A pool on the configured database, or on the embedded one, started if need be; its schema unchecked.

    `create` makes the embedded one where there is none. Raises `StoreError` where the server cannot be
    reached or goes away, `UsageError` where there is no database at all.
    """
    if settings.database_url:
        async with _pool(settings.database_url, place(settings.database_url)) as pool:
            yield pool
        return
    if not create and not _is_there(settings.data):
        raise UsageError(
            "there is no database yet: EVENTFLOW_DATABASE_URL is not set, and nothing is in "
            f"{settings.data}; `eventflow serve` makes one there, EVENTFLOW_DATA names another folder"
        )
    async with Embedded(settings.data) as embedded, _pool(embedded.url, str(settings.data)) as pool:
        yield pool


def _is_there(data: Path) -> bool:
    """Whether the data folder holds a database. Raises `UsageError` where nobody lets us look."""
    try:
        return (data / "postgres").exists()
    except OSError as error:
        raise UsageError(
            f"the data folder {data} cannot be read: {error.strerror}; EVENTFLOW_DATA names another one"
        ) from error


@asynccontextmanager
async def connected(settings: Settings, *, create: bool = False) -> AsyncGenerator[Pool]:
    """`reached`, and the schema is this version's. Raises `SchemaMismatch` where it is not.

    `create` also migrates an embedded database: it is nobody else's.
    """
    async with reached(settings, create=create) as pool:
        async with pool.acquire() as conn:
            if create and not settings.database_url:
                await migrate(conn)
            await check_schema(conn)
        yield pool


@asynccontextmanager
async def _pool(url: str, place: str) -> AsyncGenerator[Pool]:
    with refusals_told(place):
        pool = await connect(url, size=4)
        try:
            yield pool
            await pool.close()
        finally:
            pool.terminate()


@contextmanager
def refusals_told(place: str) -> Generator[None]:
    """What Postgres or the way to it refuses becomes a `StoreError` that names the server."""
    try:
        yield
    except Exception as error:
        # A command also reads files; what names one is no word from Postgres.
        refusal = None if getattr(error, "filename", None) else server_refusal(error)
        if refusal is None:
            raise
        raise StoreError(
            f"cannot use Postgres at {place}: {refusal}; "
            "see that it runs and that EVENTFLOW_DATABASE_URL is right"
        ) from error


def place(url: str) -> str:
    """Host, port and database of a URL; its password is nobody's business. Raises `UsageError`."""
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2]
    if not all(_HOST.fullmatch(host) for host in hosts.split(",")):
        raise UsageError("EVENTFLOW_DATABASE_URL: cannot use its host and port; a port is a number")
    return f"{hosts or 'the default socket'}{parts.path}"


def ask(question: Callable[[Connection], Awaitable[T]]) -> T:
    """Run `question` on one connection of the configured database, start to end of a command."""

    async def run(pool: Pool) -> T:
        async with pool.acquire() as conn:
            return await question(conn)

    return ask_pool(run)


def ask_pool(question: Callable[[Pool], Awaitable[T]], *, create: bool = False) -> T:
    """The same for what needs several connections, or with `create` a database of its own to begin with."""

    async def run() -> T:
        async with connected(load_settings(), create=create) as pool:
            return await question(pool)

    return asyncio.run(run())
