"""Partitions of Kafka that change hands in mid-batch: the position in Postgres decides, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from eventflow.context import context_of
from eventflow.errors import OwnershipLost
from eventflow.event import new_uid
from eventflow.ingest import Ingest
from eventflow.revisions import Revisions
from eventflow.rulefile.connectors import find_connectors
from eventflow.source import Source
from eventflow.store import ownership, rulesets
from eventflow.store.ownership import Claim
from eventflow.store.pool import Pool
from eventflow.store.signals import Signals
from tests.acceptance.serving import fetch, until
from tests.kafka_mock import MockCluster

LEASE = timedelta(seconds=30)
RULES = """
sources:
  orders: {{connector: kafka, bootstrap: "{bootstrap}", topics: [orders], initial: earliest}}
rules:
  each: {{from: orders, emit: seen}}
"""


@pytest.fixture
def mock(monkeypatch: pytest.MonkeyPatch) -> Iterator[MockCluster]:
    monkeypatch.setattr("connectors.kafka.partition.WAIT_MS", 100)  # the mock does not end a wait early
    with MockCluster() as cluster:
        cluster.topic("orders")
        yield cluster


class Node:
    """One of several on the same Postgres."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.id: UUID = new_uid()
        self.pool = pool
        self.revisions = Revisions(pool, find_connectors(), folder / str(self.id))
        self.ingest = Ingest(pool, LEASE, self.revisions, Signals("test"))

    async def source(self) -> Source:
        spec = (await self.revisions.refresh()).sources["orders"]
        return spec.factory(spec.name, spec.config, context_of(spec, self.pool))

    async def claim(self) -> Claim:
        async with self.pool.acquire() as conn:
            claim = await ownership.claim(conn, "orders", "orders/0", self.id, LEASE, None)
        assert claim is not None
        return claim


async def two_nodes(pool: Pool, mock: MockCluster, folder: Path) -> tuple[Node, Node]:
    text = RULES.format(bootstrap=mock.bootstrap)
    async with pool.acquire() as conn:
        await rulesets.apply(
            conn, {"r.yaml": text.encode()}, folder=folder, origin="test", code_version="0", take_over=True
        )
    return Node(pool, folder), Node(pool, folder)


async def lease_runs_out(pool: Pool) -> None:
    await fetch(pool, "UPDATE source_partition SET lease_until = now() - interval '1 s' RETURNING 1")


async def offsets(pool: Pool) -> list[str]:
    return [
        row["id"] for row in await fetch(pool, "SELECT id FROM event WHERE source = 'orders' ORDER BY uid")
    ]


async def reads_until(node: Node, claim: Claim, pool: Pool, last: str) -> None:
    """The node reads until it has taken in the record `last`."""

    async def taken() -> bool:
        return last in await offsets(pool)

    task = asyncio.ensure_future(node.ingest.run_partition(await node.source(), claim))
    try:
        await until(taken, 20, last)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_next_owner_reads_on_from_the_position_in_postgres(
    mock: MockCluster, pool: Pool, tmp_path: Path
) -> None:
    first, second = await two_nodes(pool, mock, tmp_path)
    mock.send_all("orders", [b"%d" % number for number in range(5)], partition=0)
    await reads_until(first, await first.claim(), pool, "orders/0/4")
    mock.send_all("orders", [b"%d" % number for number in range(5, 10)], partition=0)
    await lease_runs_out(pool)
    await reads_until(second, await second.claim(), pool, "orders/0/9")
    assert await offsets(pool) == [f"orders/0/{number}" for number in range(10)]


async def test_a_node_that_slept_past_its_lease_commits_nothing_of_what_it_holds(
    mock: MockCluster, pool: Pool, tmp_path: Path
) -> None:
    sleeper, second = await two_nodes(pool, mock, tmp_path)
    mock.send_all("orders", [b"%d" % number for number in range(10)], partition=0)
    held = await sleeper.claim()
    batches = (await sleeper.source()).batches("orders/0", held.cursor)
    batch = await anext(batches)
    while not batch.records:
        await sleeper.ingest._until_durable(batch, held)
        batch = await anext(batches)
    await lease_runs_out(pool)
    await reads_until(second, await second.claim(), pool, "orders/0/9")
    with pytest.raises(OwnershipLost):
        await sleeper.ingest._until_durable(batch, held)
    await batches.aclose()
    assert await offsets(pool) == [f"orders/0/{number}" for number in range(10)]
