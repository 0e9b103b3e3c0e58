"""From a command to the database: settings, the pool, and one sentence for whatever stands in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import urlsplit

from eventflow.embedded import Embedded
from eventflow.errors import StoreError, UsageError
from eventflow.settings import Settings, load_settings
from eventflow.store.failures import is_disconnect, server_refusal
from eventflow.store.migrate import check_schema, migrate
from eventflow.store.pool import Connection, Pool, connect

T = TypeVar("T")


@asynccontextmanager
async def reached(settings: Settings, *, create: bool = False) -> AsyncGenerator[Pool]:
    """A pool on the configured database, or on the embedded one, started if need be; its schema unchecked.

    `create` makes the embedded one where there is none. Raises `StoreError` where the server cannot be
    reached or goes away, `UsageError` where there is no database at all.
    """
    if settings.database_url:
        async with _pool(settings.database_url, _place(settings.database_url)) as pool:
            yield pool
        return
    if not create and not (settings.data / "postgres").exists():
        raise UsageError(
            "there is no database yet: EVENTFLOW_DATABASE_URL is not set, and nothing is in "
            f"{settings.data}; `eventflow serve` makes one there, EVENTFLOW_DATA names another folder"
        )
    async with Embedded(settings.data) as embedded, _pool(embedded.url, str(settings.data)) as pool:
        yield pool


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
    try:
        pool = await connect(url, size=4)
    except Exception as error:
        refusal = server_refusal(error)
        if refusal is None:
            raise
        raise StoreError(
            f"cannot reach Postgres at {place}: {refusal}; start it, or correct EVENTFLOW_DATABASE_URL"
        ) from error
    try:
        yield pool
        await pool.close()
    except Exception as error:
        # A command also reads files; what names one is no word from Postgres.
        if not is_disconnect(error) or getattr(error, "filename", None) is not None:
            raise
        raise StoreError(f"Postgres at {place} went away: {error}; run the command again") from error
    finally:
        pool.terminate()


def _place(url: str) -> str:
    """Host, port and database of a URL; its password is nobody's business."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2] or "the default socket"
    return f"{host}{parts.path}"


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
