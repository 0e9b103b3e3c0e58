"""The kill run's proxy: a COMMIT is lost before it arrives, or its answer after it was done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio

from eventflow.store.pool import DISCONNECTED, Connection, connect_once
from tests.chaos.faults import Moment
from tests.chaos.link import Link, Trap


@pytest_asyncio.fixture(loop_scope="session")
async def link(database: str) -> AsyncIterator[Link]:
    parts = urlsplit(database)
    link = Link(Path(parse_qs(parts.query)["host"][0]), user=parts.username or "", database=parts.path[1:])
    await link.start()
    yield link
    await link.close()


async def insert(conn: Connection) -> None:
    async with conn.transaction():
        await conn.execute("INSERT INTO rule_counter (rule, name, value) VALUES ('r', 'n', 1)")


async def rows(database: str) -> int:
    conn = await connect_once(database)
    try:
        return int(await conn.fetchval("SELECT count(*) FROM rule_counter"))
    finally:
        await conn.close()


async def let_go_when_sprung(trap: Trap, *, deliver: bool) -> None:
    await asyncio.wait_for(trap.sprung.wait(), 5)
    trap.let_go(deliver=deliver)


@pytest.mark.parametrize(
    ("moment", "durable"), [(Moment.before_commit, 0), (Moment.after_commit, 1), (Moment.before_request, 0)]
)
async def test_a_cut_at_a_moment_decides_what_is_durable(
    link: Link, database: str, moment: Moment, durable: int
) -> None:
    conn = await connect_once(link.url)
    trap = link.arm(moment, 0)
    cutting = asyncio.ensure_future(let_go_when_sprung(trap, deliver=False))
    with pytest.raises(DISCONNECTED):
        await insert(conn)
    await cutting
    assert await rows(database) == durable
    conn.terminate()


async def test_a_trap_lets_as_many_moments_pass_as_it_is_told_and_may_deliver(
    link: Link, database: str
) -> None:
    conn = await connect_once(link.url)
    trap = link.arm(Moment.before_commit, 1)
    await conn.execute("BEGIN")
    await conn.execute("COMMIT")
    delivering = asyncio.ensure_future(let_go_when_sprung(trap, deliver=True))
    await insert(conn)
    await delivering
    assert await rows(database) == 1
    await conn.close()


async def test_a_stalled_link_delivers_later(link: Link) -> None:
    conn = await connect_once(link.url)
    link.stall()
    asking = asyncio.ensure_future(conn.fetchval("SELECT 1"))
    done, _ = await asyncio.wait([asking], timeout=0.2)
    assert not done
    link.flow()
    assert await asyncio.wait_for(asking, 5) == 1
    await conn.close()
