"""A real Postgres for tests: one server for all of them, a migrated database of its own for each.

    async with DatabaseServer(tmp_path) as server, server.database() as url:
        ...

Durability stays on: what a test sees is what a user gets.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self, cast

from eventflow.embedded import Embedded
from eventflow.store.migrate import migrate
from eventflow.store.pool import connect_once

_TEMPLATE: Final = "eventflow_template"


class DatabaseServer:
    """An embedded server in `folder`, with a migrated template database that others are copied from."""

    def __init__(self, folder: Path) -> None:
        self._embedded = Embedded(folder)
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        await self._embedded.__aenter__()
        await self._execute(f'CREATE DATABASE "{_TEMPLATE}"')
        template = await connect_once(self._url(_TEMPLATE))
        try:
            await migrate(template)
        finally:
            await template.close()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._embedded.__aexit__(*exc)

    @asynccontextmanager
    async def database(self) -> AsyncGenerator[str]:
        """The URL of a fresh, migrated database; dropped afterwards with whoever is still connected."""
        name = f"test_{next(self._numbers)}"
        await self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{_TEMPLATE}"')
        try:
            yield self._url(name)
        finally:
            await self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    @asynccontextmanager
    async def empty_database(self) -> AsyncGenerator[str]:
        """As `database`, but without the migrations."""
        name = f"test_{next(self._numbers)}"
        await self._execute(f'CREATE DATABASE "{name}"')
        try:
            yield self._url(name)
        finally:
            await self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _url(self, database: str) -> str:
        return self._embedded.url.replace("/postgres?", f"/{database}?", 1)

    async def _execute(self, command: str) -> None:
        connection = await connect_once(self._embedded.url)
        try:
            # DDL takes no parameters; the names are made above.
            await connection.execute(cast("Any", command))
        finally:
            await connection.close()
