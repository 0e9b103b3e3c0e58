"""Fixtures that every folder of tests may use. All of Postgres comes from `eventflow.testing.postgres`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from eventflow.store.pool import Pool, connect
from eventflow.testing.postgres import DatabaseServer


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def database_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DatabaseServer]:
    """One embedded server for the whole session."""
    async with DatabaseServer(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def database(database_server: DatabaseServer) -> AsyncIterator[str]:
    """The URL of a migrated database of this test's own."""
    async with database_server.database() as url:
        yield url


@pytest_asyncio.fixture(loop_scope="session")
async def empty_database(database_server: DatabaseServer) -> AsyncIterator[str]:
    """The URL of a database of this test's own, without eventflow's schema."""
    async with database_server.empty_database() as url:
        yield url


@pytest_asyncio.fixture(loop_scope="session")
async def pool(database: str) -> AsyncIterator[Pool]:
    """A pool of sessions on `database`."""
    async with await connect(database) as connected:
        yield connected
