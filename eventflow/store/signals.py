"""Waking each other: an `asyncio.Event` inside the process, one coalesced NOTIFY across processes.

NOTIFY goes out after COMMIT from a connection of its own: inside every transaction it serialises commits
on one global lock and halves their rate. It carries no data and may be lost; slow polling is the net.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from eventflow.store.pool import Connection


class Signal(StrEnum):
    """What there may be news of."""

    tasks = "tasks"
    outbox = "outbox"
    ruleset = "ruleset"


PROOF_SECONDS: Final = 5.0
"""How often a connection that has nothing to say proves that it is still there."""

NOTIFY: Final = "SELECT pg_notify('eventflow', t.name || ' ' || $2) FROM unnest($1::text[]) AS t(name)"


class Clock:
    """The database's time as this node knows it: as last told, and by the machine's steady clock since."""

    def __init__(self) -> None:
        self.set(datetime.now(UTC))

    def set(self, told: datetime) -> None:
        """Take the database's time as it has just been told."""
        self._told, self._at = told.astimezone(UTC), time.monotonic()

    def now(self) -> datetime:
        """Aware, in UTC."""
        return self._told + timedelta(seconds=time.monotonic() - self._at)


class Signals:
    """The three events of this process, and their way to the other ones.

    `peers` is how many other nodes are alive; with none, nothing is sent. `clock` is the database's.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self._events = {signal: asyncio.Event() for signal in Signal}
        self._pending: set[Signal] = set()
        self._to_send = asyncio.Event()
        self.peers = 0
        self.clock = Clock()

    def event(self, signal: Signal) -> asyncio.Event:
        """Set when there is news; whoever acts on it clears it first."""
        return self._events[signal]

    def send(self, signal: Signal) -> None:
        """There is news: wake this process now and the others soon. Never blocks."""
        self._events[signal].set()
        if self.peers:
            self._pending.add(signal)
            self._to_send.set()

    async def run(self, conn: Connection) -> None:
        """Listen and send on this connection until it breaks; whatever was missed is polled for."""
        # Whoever only listens would never notice: to send, even nothing, raises on a closed connection.
        conn.add_termination_listener(lambda _: self._to_send.set())
        await conn.add_listener("eventflow", self._heard)
        for event in self._events.values():
            event.set()
        while True:
            # Not `wait_for`: in Python 3.11 it loses a cancellation that comes together with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(PROOF_SECONDS):
                    await self._to_send.wait()
            self._to_send.clear()
            pending, self._pending = self._pending, set()
            await conn.execute(NOTIFY, sorted(pending), self._node)

    def _heard(self, _conn: Connection, _pid: int, _channel: str, payload: str) -> None:
        name, _, sender = payload.partition(" ")
        if sender != self._node and name in Signal.__members__:
            self._events[Signal(name)].set()


async def tell(conn: Connection, signal: Signal) -> None:
    """From a command, which is no node: wake every node."""
    await conn.execute(NOTIFY, [signal], "command")
