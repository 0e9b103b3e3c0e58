"""`initial: latest`: for what was there when the source was first opened, whichever node opened it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from connectors.kafka import KafkaSource
from eventflow.errors import SourceUnavailable
from eventflow.testing.reading import Core
from tests.kafka.broker import Broker
from tests.kafka.conftest import numbered, send, source


@pytest.fixture(autouse=True)
def _listed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.kafka.source.LISTING_SECONDS", 0.0)


@asynccontextmanager
async def first(orders: KafkaSource, core: Core, partition: str) -> AsyncGenerator[int]:
    """Where the node begins to read the partition; its first position is committed."""
    batches = orders.batches(partition, core.cursor(partition))
    try:
        batch = await anext(batches)
        core.commit(partition, batch)
        yield batch.cursor["offset"]
    finally:
        await batches.aclose()


async def begins(orders: KafkaSource, core: Core, partition: str) -> int:
    async with first(orders, core, partition) as offset:
        return offset


class Nodes:
    """Nodes on one Postgres, which read topics that begin with the test's own name."""

    def __init__(self, kafka: Broker, topic: str, folder: Path) -> None:
        self._kafka, self._topic = kafka, topic
        self.core = Core(folder)

    async def start(self, **words: Any) -> KafkaSource:
        """One more node looks what is there."""
        given = {"pattern": f"{self._topic}.*", "initial": "latest", **words}
        node = source(self.core, self._kafka, None, **given)
        await node.partitions()
        return node


@pytest.fixture
def nodes(kafka: Broker, topic: str, tmp_path: Path) -> Nodes:
    return Nodes(kafka, topic, tmp_path)


async def test_three_nodes_that_start_together_begin_at_the_end_of_every_partition(
    kafka: Broker, topic: str, nodes: Nodes
) -> None:
    """Also where one has taken its first records in before another has begun."""
    await kafka.create_topic(f"{topic}.a", partitions=12)
    for number in range(12):
        await send(kafka, f"{topic}.a", numbered(1, 3), partition=number)
    started = [await nodes.start() for _ in range(3)]
    for number in range(12):
        assert await begins(started[number % 3], nodes.core, f"{topic}.a/{number}") == 3


async def test_what_was_made_while_a_node_ran_is_read_from_its_beginning_by_any(
    kafka: Broker, topic: str, nodes: Nodes
) -> None:
    await kafka.create_topic(f"{topic}.a")
    one = await nodes.start()
    for name in ("b", "c"):
        await kafka.create_topic(f"{topic}.{name}")
        await send(kafka, f"{topic}.{name}", numbered(0, 4))
    two = await nodes.start()
    assert await begins(two, nodes.core, f"{topic}.b/0") == 0
    assert await begins(one, nodes.core, f"{topic}.c/0") == 0


async def test_what_was_made_while_no_node_ran_is_read_from_its_beginning(
    kafka: Broker, topic: str, nodes: Nodes
) -> None:
    """And what the rule file names only now; there was nothing at all at the first start."""
    await kafka.create_topic(f"other.{topic}")
    await send(kafka, f"other.{topic}", numbered(0, 4))
    await nodes.start()
    await kafka.create_topic(f"{topic}.a")
    await send(kafka, f"{topic}.a", numbered(0, 4))
    later = await nodes.start(pattern=f"**{topic}**")
    assert await begins(later, nodes.core, f"{topic}.a/0") == 0
    assert await begins(later, nodes.core, f"other.{topic}/0") == 0


async def test_a_topic_that_is_named_before_it_is_there_is_read_from_its_beginning(
    kafka: Broker, topic: str, tmp_path: Path
) -> None:
    core = Core(tmp_path)
    orders = source(core, kafka, topic, initial="latest")
    with pytest.raises(SourceUnavailable, match="no such topic"):
        await orders.partitions()
    await kafka.create_topic(topic)
    await send(kafka, topic, numbered(0, 4))
    assert await begins(source(core, kafka, topic, initial="latest"), core, f"{topic}/0") == 0
