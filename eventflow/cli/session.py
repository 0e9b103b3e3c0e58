"""From a command to the database: settings, the pool, and one sentence for whatever stands in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import urlsplit

from eventflow.embedded import Embedded
from eventflow.errors import StoreError, UsageError
from eventflow.settings import Settings, load_settings
from eventflow.store.failures import server_refusal
from eventflow.store.migrate import check_schema
from eventflow.store.pool import Connection, Pool, connect

T = TypeVar("T")


@asynccontextmanager
async def reached(settings: Settings) -> AsyncIterator[Pool]:
    """A pool on the configured database, or on the embedded one, started if need be; its schema unchecked.

    Raises `StoreError` where the server cannot be reached, `UsageError` where there is no database at all.
    """
    if settings.database_url:
        async with _pool(settings.database_url, _place(settings.database_url)) as pool:
            yield pool
        return
    if not (settings.data / "postgres").exists():
        raise UsageError(
            f"there is no database yet: EVENTFLOW_DATABASE_URL is not set, and nothing is in {settings.data}; "
            "`eventflow serve` makes one there, EVENTFLOW_DATA names another folder"
        )
    async with Embedded(settings.data) as embedded, _pool(embedded.url, str(settings.data)) as pool:
        yield pool


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Pool]:
    """`reached`, and the schema is this version's. Raises `SchemaMismatch` where it is not."""
    async with reached(settings) as pool:
        async with pool.acquire() as conn:
            await check_schema(conn)
        yield pool


@asynccontextmanager
async def _pool(url: str, place: str) -> AsyncIterator[Pool]:
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
    finally:
        await pool.close()


def _place(url: str) -> str:
    """Host, port and database of a URL; its password is nobody's business."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2] or "the default socket"
    return f"{host}{parts.path}"


def ask(question: Callable[[Connection], Awaitable[T]]) -> T:
    """Run `question` on one connection of the configured database, start to end of a command."""

    async def run() -> T:
        async with connected(load_settings()) as pool, pool.acquire() as conn:
            return await question(conn)

    return asyncio.run(run())


def ask_pool(question: Callable[[Pool], Awaitable[T]]) -> T:
    """The same for what needs several connections."""

    async def run() -> T:
        async with connected(load_settings()) as pool:
            return await question(pool)

    return asyncio.run(run())
