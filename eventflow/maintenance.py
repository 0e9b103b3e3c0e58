"""What keeps a database healthy: days of the event table, retention, dead nodes. Tasks: `store/rescue.py`.

Every node runs it; each statement is safe beside the same one on another node.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, date, timedelta
from typing import Final

import structlog

from eventflow.store import nodes, retention
from eventflow.store.partitions import DAYS_AHEAD, ensure_event_partitions
from eventflow.store.pool import Connection, Pool, unhurried

log = structlog.get_logger()

LOOKS_PER_LEASE: Final = 10
HOURLY: Final = 3600.0
TRY_AGAIN: Final = 300.0
"""Seconds. Not at once: what waits for a lock makes others wait behind it."""


class Maintenance:
    """Ends what dead nodes left behind, soon after their lease; does the slow work once an hour."""

    def __init__(self, pool: Pool, lease: timedelta, keep: timedelta) -> None:
        self._pool = pool
        self._lease = lease
        self._keep = keep
        self._next_slow = time.monotonic()

    async def run(self) -> None:
        """Go round for ever. Raises what Postgres raises; called again it goes on."""
        while True:
            async with self._pool.acquire() as conn:
                await nodes.forget_dead(conn, self._lease / LOOKS_PER_LEASE)
                if time.monotonic() >= self._next_slow:
                    self._next_slow = time.monotonic() + TRY_AGAIN
                    with unhurried(conn):
                        await self._slow(conn)
                    self._next_slow = time.monotonic() + HOURLY
            await asyncio.sleep(self._lease.total_seconds() / LOOKS_PER_LEASE)

    async def _slow(self, conn: Connection) -> None:
        before = await retention.cutoff(conn, self._keep)
        today: date = (before + self._keep).astimezone(UTC).date()
        await ensure_event_partitions(conn, today, DAYS_AHEAD + 1)
        await retention.expire_runs(conn, before)
        await retention.expire_firings(conn, before)
        await retention.expire_keys(conn)
        for name in await retention.expire_days(conn, before.astimezone(UTC).date()):
            log.info("day_expired", partition=name)
