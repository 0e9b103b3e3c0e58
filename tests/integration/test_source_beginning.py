"""What a source began with is said once, by whichever node is first, and holds for all of them."""

from __future__ import annotations

import asyncio

from eventflow.store.ownership import began_with
from eventflow.store.pool import Pool
from tests.acceptance.serving import fetch, until


async def test_the_first_to_say_it_is_believed_for_ever(pool: Pool) -> None:
    async with pool.acquire() as conn:
        assert await began_with(conn, "orders", ["a/0", "a/1"]) == {"a/0", "a/1"}
        assert await began_with(conn, "orders", ["a/0", "a/1", "b/0"]) == {"a/0", "a/1"}
        assert await began_with(conn, "others", []) == set()
        assert await began_with(conn, "others", ["a/0"]) == set(), "nothing is an answer too"


async def test_nodes_that_say_it_at_one_time_hear_the_same(pool: Pool) -> None:
    """The second waits until the first has committed, although its own snapshot is older."""
    async with pool.acquire() as one, pool.acquire() as two:
        begun = one.transaction()
        await begun.start()
        assert await began_with(one, "orders", ["a/0"]) == {"a/0"}
        second = asyncio.ensure_future(began_with(two, "orders", ["a/0", "b/0"]))

        async def waits() -> bool:
            return bool(await fetch(pool, "SELECT FROM pg_stat_activity WHERE wait_event = 'transactionid'"))

        await until(waits, 10, "the second to wait")
        await begun.commit()
        assert await second == {"a/0"}
