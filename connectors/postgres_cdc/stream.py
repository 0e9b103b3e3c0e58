"""Batches from the stream, bounded in rows and bytes, however large a transaction is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from connectors.postgres_cdc.replication import Walsender
from connectors.postgres_cdc.transaction import Transactions
from eventflow.event import Record
from eventflow.source import Batch

BATCH_RECORDS: Final = 4_000
BATCH_BYTES: Final = 4 << 20
"""Of messages; as Python values they are several times that."""
IDLE_SECONDS: Final = 10.0
"""How often the position moves over WAL that holds nothing for us, so that the server may let go of it."""
IDLE_BYTES: Final = 16 << 20
"""After so much of it the position moves at once."""


class Stream:
    """One connection's stream in batches.

    While a batch is being committed the next one is read ahead, no further: decoding then costs no time of
    its own, and whatever is behind that waits in the server.
    """

    def __init__(self, sender: Walsender, changes: Transactions) -> None:
        self._sender = sender
        self._changes = changes
        self._loop = asyncio.get_running_loop()
        self._stored = changes.position.lsn
        self._moved = self._loop.time()
        self._records: list[Record] = []
        self._size = 0
        self._failed: Exception | None = None

    async def batches(self) -> AsyncGenerator[Batch]:
        """For ever. Raises `SourceUnavailable`."""
        while True:
            await self._collect()
            if self._records or self._overdue():
                batch = Batch(self._records, cursor=self._changes.position.to_json())
                self._stored, self._moved = self._changes.position.lsn, self._loop.time()
                self._records, self._size = [], 0
                with self._sender.on_arrival(self._read_ahead):
                    yield batch
                if self._failed:
                    raise self._failed
            else:
                self._size = 0
                await asyncio.sleep(0)  # all of it was for others: let the loop have its turn

    @property
    def _full(self) -> bool:
        return len(self._records) >= BATCH_RECORDS or self._size >= BATCH_BYTES

    async def _collect(self) -> None:
        """What there is, up to a batch; a transaction that has begun to arrive is waited for."""
        sender, changes = self._sender, self._changes
        drained = False
        while not self._full:
            if self._feed():
                drained = False
            elif not drained:
                sender.receive()
                drained = True
            else:
                changes.idle_at(sender.end)
                if (self._records and not changes.open) or self._overdue():
                    break
                if sender.urged:
                    sender.send_status()
                await sender.wait(IDLE_SECONDS)
                sender.receive()

    def _feed(self) -> bool:
        """Take in the messages that are here, up to a batch; False where there was none."""
        read, feed, records = self._sender.read, self._changes.feed, self._records
        before, room = self._size, BATCH_BYTES
        while self._size < room and len(records) < BATCH_RECORDS:
            message = read()
            if message is None:
                break
            feed(message, records)
            self._size += len(message)
        return self._size > before

    def _read_ahead(self) -> bool:
        """Called when something arrives during a commit: whether more is wanted."""
        try:
            self._sender.receive()
            self._feed()
        except Exception as error:  # of the server or of a message: the reader gets it, not the event loop
            self._failed = error
        return self._failed is None and not self._full

    def _overdue(self) -> bool:
        """Whether the position should move although there is no record."""
        if self._changes.open:
            return False
        passed = self._changes.position.lsn - self._stored
        waited = self._loop.time() - self._moved
        return passed > 0 and (self._sender.urged or passed >= IDLE_BYTES or waited >= IDLE_SECONDS)
