"""A database with tables whose changes are read, for the tests of the Postgres source."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from connectors.postgres_cdc import PostgresCdcSource
from connectors.postgres_cdc.config import PostgresCdcConfig
from eventflow.event import JSON, Event, Record, decode_json
from eventflow.store.pool import connect_once
from eventflow.testing.reading import Core, Reading


def database_of(url: str) -> str:
    return url.split("/", 4)[3].split("?", 1)[0]


class Shop:
    """`conn` writes; `source()` is a new instance, as after a restart; `core` holds the position."""

    def __init__(self, url: str, conn: Any, folder: Path) -> None:
        self.url = url
        self.conn = conn
        self.core = Core(folder)
        self.slot = "shop_" + database_of(url)
        self.words: dict[str, Any] = {"tables": ["public.orders"]}

    async def run(self, *statements: str) -> None:
        for statement in statements:
            await self.conn.execute(statement)

    def source(self, name: str = "shop", **words: Any) -> PostgresCdcSource:
        said: dict[str, Any] = {"url": self.url, "slot": self.slot} | self.words | words
        config = PostgresCdcConfig(**said)
        return PostgresCdcSource(name, config, self.core.context())

    def reading(self, **words: Any) -> Reading:
        return Reading(self.source(**words), self.core)

    async def begin(self, *statements: str, **words: Any) -> None:
        """Make tables, then publication and slot."""
        self.words |= words
        await self.run(*statements)
        await self.source().prepare()

    async def take(self, count: int) -> list[Event]:
        """So many events, read and committed by an instance of their own."""
        async with self.reading() as reading:
            return events(await reading.take(count))

    async def settle(self) -> None:
        """Until nobody reads the slot."""
        query = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1"
        async with asyncio.timeout(20):
            while await self.conn.fetchval(query, self.slot):
                await asyncio.sleep(0.01)

    async def drop_slot(self) -> None:
        await self.settle()
        await self.conn.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1",
            self.slot,
        )


@asynccontextmanager
async def opened(url: str, folder: Path) -> AsyncIterator[Shop]:
    """A shop over the database; its slot is dropped in the end, else the database could not be."""
    conn = await connect_once(url)
    try:
        shop = Shop(url, conn, folder)
        yield shop
        await shop.drop_slot()
    finally:
        await conn.close()


def events(records: Sequence[Record]) -> list[Event]:
    """All of them; each one's raw bytes say what its data does."""
    for record in records:
        assert isinstance(record, Event), record
        assert decode_json(record.raw) == record.data
    return list(records)  # type: ignore[arg-type]


def said(event: Event) -> tuple[str, JSON, JSON]:
    return event.type, event.data["before"], event.data["after"]


def folded(records: Sequence[Record], key: str = "id") -> dict[Any, JSON]:
    """The table that the events tell of."""
    rows: dict[Any, JSON] = {}
    for event in events(records):
        before, after = event.data["before"], event.data["after"]
        match event.data["op"]:
            case "t":
                rows.clear()
            case "d":
                del rows[before[key]]
            case "u" if before is not None and before[key] != after[key]:
                old = rows.pop(before[key])
                assert after[key] not in rows
                rows[after[key]] = {**old, **after}
            case "u":
                rows[after[key]] = {**rows[after[key]], **after}
            case _:
                assert after[key] not in rows, f"{event.id}: {after[key]} is there already"
                rows[after[key]] = after
    return rows
