"""Batches from the stream, bounded in rows and bytes, however large a transaction is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from connectors.postgres_cdc.replication import Walsender
from connectors.postgres_cdc.transaction import Transactions
from eventflow.event import Record
from eventflow.source import Batch

BATCH_RECORDS: Final = 1_000
BATCH_BYTES: Final = 4 << 20
"""Of messages; as Python values they are several times that."""
IDLE_SECONDS: Final = 10.0
"""How often the position moves over WAL that holds nothing for us, so that the server may let go of it."""
IDLE_BYTES: Final = 16 << 20
"""After so much of it the position moves at once."""


class Stream:
    """One connection's stream in batches. Between them the socket is not read."""

    def __init__(self, sender: Walsender, changes: Transactions) -> None:
        self._sender = sender
        self._changes = changes
        self._loop = asyncio.get_running_loop()
        self._stored = changes.position.lsn
        self._moved = self._loop.time()

    async def batches(self) -> AsyncGenerator[Batch]:
        """For ever."""
        while True:
            records = await self._collect()
            if records or self._overdue():
                position = self._changes.position
                self._stored, self._moved = position.lsn, self._loop.time()
                yield Batch(records, cursor=position.to_json())
            else:
                await asyncio.sleep(0)  # all of it was for others: let the loop have its turn

    async def _collect(self) -> list[Record]:
        """What there is, up to a batch; a transaction that has begun to arrive is waited for."""
        sender, changes = self._sender, self._changes
        records: list[Record] = []
        size, drained = 0, False
        while len(records) < BATCH_RECORDS and size < BATCH_BYTES:
            message = sender.read()
            if message is not None:
                changes.feed(message, records)
                size += len(message)
                drained = False
            elif not drained:
                sender.receive()
                drained = True
            else:
                changes.idle_at(sender.end)
                if records and not changes.open:
                    break
                if self._overdue():
                    break
                if sender.urged:
                    sender.send_status()
                await sender.wait(IDLE_SECONDS)
                sender.receive()
        return records

    def _overdue(self) -> bool:
        """Whether the position should move although there is no record."""
        if self._changes.open:
            return False
        passed = self._changes.position.lsn - self._stored
        waited = self._loop.time() - self._moved
        return passed > 0 and (self._sender.urged or passed >= IDLE_BYTES or waited >= IDLE_SECONDS)
