"""The `kafka` kind of task on real brokers: what a producer must survive."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from connectors.kafka import publish
from connectors.kafka.task import IDEMPOTENCY_KEY, KafkaTask, PublishConfig
from eventflow.errors import TaskError
from eventflow.task import Context
from tests.kafka.broker import Broker, Cluster
from tests.kafka.conftest import described


@pytest_asyncio.fixture
async def kind() -> AsyncGenerator[KafkaTask]:
    made = KafkaTask()
    yield made
    await made.close()


def context(run: str = "run-1") -> Context:
    return Context(run, "flow", "announce", 1, {}, None, logging.getLogger("test"))


def config(broker: Broker, topic: str, **words: Any) -> PublishConfig:
    return PublishConfig.model_validate({
        "bootstrap": broker.bootstrap, "topic": topic, "value": {"n": 1}, **words,
    })  # fmt: skip


async def records(broker: Broker, topic: str, partition: int = 0) -> list[ConsumerRecord[bytes, bytes]]:
    """Everything that stands in a partition."""
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap, isolation_level="read_committed")
    await consumer.start()
    try:
        at = TopicPartition(topic, partition)
        consumer.assign([at])
        consumer.seek(at, 0)
        end = (await consumer.end_offsets([at]))[at]
        found: list[ConsumerRecord[bytes, bytes]] = []
        async with asyncio.timeout(20):
            while len(found) < end:
                found.append(await consumer.getone())
        return found
    finally:
        await consumer.stop()


async def test_the_result_says_where_the_record_stands(kafka: Broker, topic: str, kind: KafkaTask) -> None:
    await kafka.create_topic(topic, partitions=3)
    result: Any = await kind.run(config(kafka, topic, partition=2, key="k", headers={"a": 1}), context())
    (written,) = await records(kafka, topic, 2)
    assert result == {"topic": topic, "partition": 2, "offset": 0, "timestamp": written.timestamp}
    assert (written.key, written.value) == (b"k", b'{"n":1}')
    assert written.headers == (("a", b"1"), (IDEMPOTENCY_KEY, b"run-1:announce"))


async def test_a_topic_that_is_not_there_is_named(
    kafka: Broker, topic: str, kind: KafkaTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_REQUEST_MILLISECONDS", 300)
    with pytest.raises(TaskError, match=f"^kafka: there is no topic '{topic}'$"):
        await kind.run(config(kafka, topic), context())


async def test_a_record_that_the_broker_finds_too_large_harms_no_other(
    kafka: Broker, topic: str, kind: KafkaTask
) -> None:
    await kafka.create_topic(topic, settings={"max.message.bytes": "2000"})
    large = config(kafka, topic, value="x" * 5000)

    async def one(number: int) -> object:
        try:
            return await kind.run(large if number == 5 else config(kafka, topic), context(f"run-{number}"))
        except TaskError as error:
            return str(error)

    outcomes = [await one(number) for number in range(10)]
    assert [outcome for outcome in outcomes if isinstance(outcome, str)] == [
        f"kafka: topic '{topic}': MessageSizeTooLarge"
    ]
    keys = [dict(one.headers)[IDEMPOTENCY_KEY] for one in await records(kafka, topic)]
    assert keys == [b"run-%d:announce" % number for number in range(10) if number != 5]


async def test_a_dead_broker_fails_the_attempt_in_time_and_a_living_one_takes_the_next(
    kind: KafkaTask, topic: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka's idempotent producer would wait for ever, and write what we gave up on once it can."""
    monkeypatch.setattr(publish, "DELIVERY_SECONDS", 1.0)
    async with Cluster(tmp_path) as kafka:
        await kafka.create_topic(topic)
        await kind.run(config(kafka, topic), context("before"))
        kafka.kill()
        with pytest.raises(
            TaskError, match=r"^kafka: no broker (has confirmed the record within 1 s|answers)"
        ):
            await kind.run(config(kafka, topic), context("given up"))
        await kafka.restart()
        monkeypatch.setattr(publish, "DELIVERY_SECONDS", 20.0)
        await kind.run(config(kafka, topic), context("after"))
        keys = [dict(one.headers)[IDEMPOTENCY_KEY] for one in await records(kafka, topic)]
    assert keys == [b"before:announce", b"after:announce"]


async def test_what_is_written_survives_the_death_of_the_leader(
    three: Cluster, topic: str, kind: KafkaTask
) -> None:
    """Written means by all in sync: a leader that dies at once after has lost nothing."""
    await three.create_topic(topic)
    for number in range(20):
        await kind.run(config(three, topic), context(f"run-{number}"))
    leader = (await described(three, topic)).leader
    three.kill(leader)
    try:
        await kind.run(config(three, topic), context("run-20"))
        keys = [dict(one.headers)[IDEMPOTENCY_KEY] for one in await records(three, topic)]
        assert keys == [b"run-%d:announce" % number for number in range(21)]
    finally:
        await three.restart(leader)
