"""The captured database: a writer whose history stands in a table that the same transactions write.

It lies on the same server as eventflow's, which is killed: what a writer was told then is no truth, the
history is. One writer, so the history's order is the commits' order. Beside it two writers fill a table that
is only counted, and commit lower ids after higher ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any, Final, LiteralString

import psycopg

from tests.chaos import generator
from tests.chaos.truth import Change

SCHEMA: Final[LiteralString] = """
CREATE TABLE plain (id bigint PRIMARY KEY, version bigint NOT NULL, note text);
CREATE TABLE whole (id bigint PRIMARY KEY, version bigint NOT NULL, note text);
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE wide (id bigint PRIMARY KEY, version bigint NOT NULL, note text);
ALTER TABLE wide ALTER COLUMN note SET STORAGE EXTERNAL;
CREATE TABLE history (number bigint PRIMARY KEY, key text NOT NULL);
CREATE TABLE visits (id bigserial PRIMARY KEY, note text);
"""
TABLES: Final[tuple[LiteralString, ...]] = ("plain", "whole", "wide")

Rows = dict[LiteralString, dict[int, int]]
"""Table -> id -> version of what is there."""

Pause = Callable[[], Awaitable[bool]]
"""Waits for the turn of the next plan; False where the load has stopped."""


class Shop:
    """The database `shop` of the run's server. `sent` counts changes whose commit was answered."""

    def __init__(self, seed: int, server: str) -> None:
        self.sent = 0
        self.url = server.replace("/postgres?", "/shop?", 1)
        self._server = server
        self._seed = seed
        self._random = Random(f"{seed}:shop")
        self._next = 1

    async def create(self) -> None:
        """The database and its tables."""
        async with await psycopg.AsyncConnection.connect(self._server, autocommit=True) as server:
            await server.execute("CREATE DATABASE shop")
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as shop:
            await shop.execute(SCHEMA)

    async def run(self, pause: Pause) -> None:
        """Changes until the load stops, through every death of the server."""
        live: Rows | None = None
        session: Any = None
        for size in generator.changes(self._seed):
            if not await pause():
                break
            try:
                if live is None:
                    session = await psycopg.AsyncConnection.connect(self.url)
                    live = await self._live(session)
                live = await self._change(session, size, live)
            except psycopg.Error:
                live = None
                if session is not None:
                    with suppress(psycopg.Error):
                        await session.close()
        if session is not None:
            await session.close()

    async def _live(self, session: Any) -> Rows:
        """What is there, and the next number: after a death nobody knows whether the last commit landed."""
        found: Rows = {}
        for table in TABLES:
            rows = await (await session.execute(f"SELECT id, version FROM {table}")).fetchall()
            found[table] = dict(rows)
        row = await (await session.execute("SELECT coalesce(max(number), 0) + 1 FROM history")).fetchone()
        self._next = row[0]
        await session.rollback()
        return found

    async def _change(self, session: Any, size: int, live: Rows) -> Rows:
        """One transaction; what is there after it."""
        after: Rows = {table: dict(rows) for table, rows in live.items()}
        number = self._next
        for number in range(self._next, self._next + size):
            key = await self._one(session, number, after)
            await session.execute("INSERT INTO history VALUES (%s, %s)", (number, key))
        await session.commit()
        self._next = number + 1
        self.sent += size
        return after

    async def _one(self, session: Any, number: int, live: Rows) -> str:
        table = self._random.choice(TABLES)
        rows = live[table]
        act = self._random.choice(("insert", "insert", "update", "update", "delete")) if rows else "insert"
        if act == "insert":
            note = "x" * self._random.choice((10, 100, 3000))
            await session.execute(f"INSERT INTO {table} VALUES (%s, 1, %s)", (number, note))
            rows[number] = 1
            return f"c/public.{table}/{number}/1"
        row = self._random.choice(sorted(rows))
        if act == "delete":
            await session.execute(f"DELETE FROM {table} WHERE id = %s", (row,))
            del rows[row]
            return f"d/public.{table}/{row}/gone"
        rows[row] += 1
        await session.execute(f"UPDATE {table} SET version = %s WHERE id = %s", (rows[row], row))
        return f"u/public.{table}/{row}/{rows[row]}"

    async def visit(self, name: str, pause: Pause) -> None:
        """Rows that are only counted, in transactions that stay open for a while."""
        random = Random(f"{self._seed}:{name}")
        while await pause():
            try:
                async with await psycopg.AsyncConnection.connect(self.url) as session:
                    for _ in range(random.randint(1, 3)):
                        await session.execute("INSERT INTO visits (note) VALUES (%s)", (name,))
                    await asyncio.sleep(random.choice((0, 0, 0.3, 0.9)))
            except psycopg.Error:
                continue

    async def history(self) -> list[Change]:
        """Every change, in commit order."""
        async with await psycopg.AsyncConnection.connect(self.url) as session:
            rows = await (await session.execute("SELECT number, key FROM history ORDER BY number")).fetchall()
        return [Change(number, key) for number, key in rows]

    async def visits(self) -> int:
        """How many rows there are to count."""
        async with await psycopg.AsyncConnection.connect(self.url) as session:
            row = await (await session.execute("SELECT count(*) FROM visits")).fetchone()
        assert row is not None
        return int(row[0])
