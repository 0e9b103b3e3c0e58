"""The Postgres source keeps the contract, over a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from connectors.postgres_cdc import PostgresCdcSource
from connectors.postgres_cdc.config import PostgresCdcConfig
from eventflow.event import Event
from eventflow.source import SourceContext
from eventflow.store.pool import connect_once
from eventflow.testing.postgres import DatabaseServer
from eventflow.testing.reading import Core
from eventflow.testing.source_contract import OrderedSourceContract

TOO_DEEP = "[" * 70 + "]" * 70


class TestPostgresCdcContract(OrderedSourceContract):
    @pytest_asyncio.fixture(autouse=True, loop_scope="session")
    async def _table(self, database_server: DatabaseServer, tmp_path: Any) -> AsyncIterator[None]:
        async with database_server.empty_database() as url:
            self.url = url
            self.conn: Any = await connect_once(url)
            await self.conn.execute("CREATE TABLE public.things (key text PRIMARY KEY, doc json)")
            self.slot = "contract_" + url.split("/")[3].split("?")[0]
            self.core = Core(tmp_path)
            source = self.make(self.core.context())
            await source.prepare()
            yield
            await drop_slot(self.conn, self.slot)
            await self.conn.close()

    def make(self, context: SourceContext) -> PostgresCdcSource:
        config = PostgresCdcConfig(url=self.url, tables=["public.things"], slot=self.slot)  # type: ignore[list-item]
        return PostgresCdcSource("things", config, context)

    async def send(self, key: str) -> None:
        await self.conn.execute("INSERT INTO public.things VALUES ($1, '{}')", key)

    async def send_broken(self) -> bytes:
        """JSON that Postgres keeps and that is nested deeper than an event may be."""
        await self.conn.execute("INSERT INTO public.things VALUES ('broken', $1::text::json)", TOO_DEEP)
        oid = await self.conn.fetchval("SELECT 'public.things'::regclass::oid")
        values = b"".join(b"t" + len(v).to_bytes(4, "big") + v for v in (b"broken", TOO_DEEP.encode()))
        return b"I" + oid.to_bytes(4, "big") + b"N\0\2" + values

    def key_of(self, event: Event) -> str:
        return event.data["after"]["key"]


async def drop_slot(conn: Any, slot: str) -> None:
    """Once nobody reads it: a session that was closed a moment ago may still be there."""
    async with asyncio.timeout(20):
        while await conn.fetchval("SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1", slot):
            await asyncio.sleep(0.01)
    await conn.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1", slot
    )
