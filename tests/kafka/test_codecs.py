"""Every codec, and transactions of several producers between each other, as a real broker keeps them."""

from __future__ import annotations

import asyncio
import itertools
import random
from pathlib import Path

import pytest
from confluent_kafka import Producer

from eventflow.event import Event
from eventflow.testing.reading import Core
from tests.kafka.broker import Broker
from tests.kafka.conftest import numbered, reading


def producer(kafka: Broker, codec: str, **more: str) -> Producer:
    return Producer({
        "bootstrap.servers": kafka.bootstrap, "compression.type": codec, "linger.ms": 20, "log_level": 0,
        **more,
    })  # fmt: skip


async def read(core: Core, kafka: Broker, topic: str, count: int) -> list[int]:
    async with reading(core, kafka, topic) as records:
        return [record.data["n"] for record in await records.take(count) if isinstance(record, Event)]


@pytest.mark.parametrize("codec", ["none", "gzip", "lz4", "snappy", "zstd"])
async def test_every_codec_is_read(kafka: Broker, topic: str, tmp_path: Path, codec: str) -> None:
    def produce() -> None:
        sending = producer(kafka, codec)
        for value in numbered(0, 499):
            sending.produce(topic, value, key=b"k", headers={"h": b"v"}, partition=0)
        assert sending.flush(20) == 0

    await kafka.create_topic(topic)
    await asyncio.to_thread(produce)
    assert await read(Core(tmp_path), kafka, topic, 500) == list(range(500))


@pytest.mark.parametrize("codec", ["none", "zstd"])
async def test_of_transactions_that_lie_between_each_other_the_committed_ones_count(
    kafka: Broker, topic: str, tmp_path: Path, codec: str
) -> None:
    """Three producers on one partition; about half of what they do is aborted."""

    def produce() -> list[int]:
        chance, numbers, committed = random.Random(1), itertools.count(), list[int]()
        producers = [producer(kafka, codec, **{"transactional.id": f"{topic}.{n}"}) for n in range(3)]
        begun: dict[int, list[int]] = {}
        for one in producers:
            one.init_transactions(20)
        for step in range(120):
            at = chance.randrange(3)
            if at not in begun:
                producers[at].begin_transaction()
                begun[at] = []
            for number in itertools.islice(numbers, chance.randrange(1, 4)):
                producers[at].produce(topic, b'{"n":%d}' % number, partition=0)
                begun[at].append(number)
            producers[at].flush(20)
            if chance.random() < 0.3 or step >= 117:
                ended = begun.pop(at)
                if chance.random() < 0.5:
                    producers[at].commit_transaction(20)
                    committed += ended
                else:
                    producers[at].abort_transaction(20)
        for at, ended in begun.items():
            producers[at].commit_transaction(20)
            committed += ended
        return sorted(committed)

    await kafka.create_topic(topic)
    expected = await asyncio.to_thread(produce)
    assert len(expected) > 50
    assert await read(Core(tmp_path), kafka, topic, len(expected)) == expected
