"""Plans that do not depend on statistics, for the statements that run the queue.

A queue in a new database is planned before its first ANALYZE, and a cached plan outlives the table that it
was made for: peers fall to a tenth there. Every queue statement is a chain of look-ups through an index,
whatever the sizes: these settings leave the planner nothing else, and price look-ups as what they cost.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from eventflow.store.pool import Connection, Pool, is_alive

SET_PLANS: Final = """
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET random_page_cost = 0.01;
SET plan_cache_mode = force_generic_plan
"""
RESET_PLANS: Final = """
RESET enable_seqscan;
RESET enable_bitmapscan;
RESET enable_hashjoin;
RESET enable_mergejoin;
RESET random_page_cost;
RESET plan_cache_mode
"""


@asynccontextmanager
async def queue_session(pool: Pool) -> AsyncGenerator[Connection]:
    """A session of the pool for queue statements only; it goes back as it came."""
    async with pool.acquire() as conn:
        await conn.execute(SET_PLANS)
        try:
            yield conn
        finally:
            if is_alive(conn):
                await conn.execute(RESET_PLANS)
