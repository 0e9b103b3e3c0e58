"""The Kafka source over a real broker: the contract, transactions, what `sources` shows, topics that come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewPartitions

from connectors.kafka import KafkaSource
from connectors.kafka.config import KafkaConfig
from eventflow.event import Event, Record
from eventflow.offers import Progress
from eventflow.source import Batch, SourceContext
from eventflow.testing.reading import Core, Reading
from eventflow.testing.source_contract import OrderedSourceContract
from tests.kafka.broker import Broker
from tests.kafka.conftest import numbered, reading, send, source, until


class TestKafkaOnABroker(OrderedSourceContract):
    @pytest_asyncio.fixture(autouse=True)
    async def _topic(self, kafka: Broker, topic: str) -> AsyncGenerator[None]:
        self.kafka, self.topic, self.sent = kafka, topic, 0
        await kafka.create_topic(topic, partitions=3)
        yield

    def make(self, context: SourceContext) -> KafkaSource:
        config = KafkaConfig(bootstrap=self.kafka.bootstrap, topics=[self.topic], initial="earliest")
        return KafkaSource("orders", config, context)

    async def send(self, key: str) -> None:
        self.sent += 1
        await send(self.kafka, self.topic, [json.dumps({"key": key}).encode()], partition=self.sent % 3)

    async def send_broken(self) -> bytes:
        await send(self.kafka, self.topic, [b"{"])
        return b"{"

    def key_of(self, event: Event) -> str:
        return event.data["key"]


def numbers(records: list[Record]) -> list[int]:
    return [record.data["n"] for record in records if isinstance(record, Event)]


async def transaction(producer: AIOKafkaProducer, topic: str, first: int, last: int, *, commit: bool) -> None:
    await producer.begin_transaction()
    for value in numbered(first, last):
        await producer.send(topic, value, partition=0)
    await producer.flush()
    await (producer.commit_transaction() if commit else producer.abort_transaction())


async def lag(core: Core, broker: Broker, topic: str) -> Progress:
    """As another process sees it, by the stored position."""
    partition = f"{topic}/0"
    return await source(core, broker, topic).progress(partition, core.cursor(partition))


async def drained(core: Core, broker: Broker, topic: str) -> None:
    """Read on until nothing is left: the lag must return to 0."""

    async def caught_up() -> bool:
        return (await lag(core, broker, topic)).lag == 0

    async with reading(core, broker, topic) as records:
        read = asyncio.ensure_future(records.take(1_000_000))
        try:
            await until(caught_up, "there is still a lag")
        finally:
            read.cancel()
            await asyncio.gather(read, return_exceptions=True)


async def test_aborted_transactions_are_never_seen_and_leave_no_lag(
    kafka: Broker, topic: str, tmp_path: Path
) -> None:
    """Markers and aborted records are offsets too: 4 transactions of 10, every second one aborted."""
    core = Core(tmp_path)
    await kafka.create_topic(topic)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=topic) as producer:
        for number in range(4):
            first = number * 10
            await transaction(producer, topic, first, first + 9, commit=number % 2 == 0)
        await drained(core, kafka, topic)
        await transaction(producer, topic, 40, 49, commit=False)
    await drained(core, kafka, topic)  # and where there is nothing but an aborted one
    assert numbers(core.taken) == [*range(10), *range(20, 30)]
    cursor = core.cursor(f"{topic}/0")
    assert cursor["offset"] == 55
    once_more = [batch async for batch in source(core, kafka, topic).again(f"{topic}/0", cursor)]
    assert [record for batch in once_more for record in batch.records] == core.taken
    cut = [batch async for batch in source(core, kafka, topic).again(f"{topic}/0", {**cursor, "offset": 15})]
    assert numbers([record for batch in cut for record in batch.records]) == list(range(10))


async def test_an_open_transaction_is_waited_for_and_said(kafka: Broker, topic: str, tmp_path: Path) -> None:
    core = Core(tmp_path)
    await kafka.create_topic(topic)
    await send(kafka, topic, numbered(0, 4))
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=topic) as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b'{"n":5}', partition=0)
        await send(kafka, topic, numbered(6, 7))
        async with reading(core, kafka, topic) as records:
            await records.take(5)
            seen = await lag(core, kafka, topic)
            assert (seen.lag, seen.unit) == (3, "records")
            assert seen.note is not None
            assert seen.note.startswith("an open transaction holds back 3 records since 20")
            await producer.commit_transaction()
            rest = await records.take(3)
    assert numbers(rest) == [5, 6, 7]
    await drained(core, kafka, topic)
    assert (await lag(core, kafka, topic)).note is None


async def test_holes_that_compaction_left_are_passed_over(kafka: Broker, topic: str, tmp_path: Path) -> None:
    core = Core(tmp_path)
    await kafka.create_topic(
        topic,
        settings={
            "cleanup.policy": "compact",
            "segment.ms": "100",
            "min.cleanable.dirty.ratio": "0.01",
            "max.compaction.lag.ms": "100",
        },
    )
    for number in range(20):
        await send(kafka, topic, numbered(number, number), key=b"one")

    async def compacted() -> bool:
        await asyncio.sleep(0.2)
        await send(
            kafka, topic, [b'{"n":-1}'], key=b"two"
        )  # another segment, so that the last can be cleaned
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap)
        await consumer.start()
        try:
            at = TopicPartition(topic, 0)
            consumer.assign([at])
            await consumer.seek_to_beginning(at)
            return (await consumer.getone()).offset >= 10
        finally:
            await consumer.stop()

    await until(compacted, "nothing was compacted", 30)
    await drained(core, kafka, topic)
    assert 19 in numbers(core.taken)
    assert len(core.taken) < 15


async def test_the_offsets_of_the_group_follow_for_lag_tools(
    kafka: Broker, topic: str, tmp_path: Path
) -> None:
    core = Core(tmp_path)
    await kafka.create_topic(topic)
    await send(kafka, topic, numbered(0, 9))

    async def published() -> bool:
        async with kafka.admin() as admin:
            found = await admin.list_consumer_group_offsets(f"group-{topic}")
        at = found.get(TopicPartition(topic, 0))
        return at is not None and at.offset == 10

    async with reading(core, kafka, topic, group=f"group-{topic}") as records:
        partition, batch = await records.next()
        assert not await published(), "shown before it was committed"
        await records.commit(partition, batch)
        await until(published, "the group's offset does not follow")
    core = Core(tmp_path)
    async with reading(core, kafka, topic, group=f"group-{topic}") as records:
        assert numbers(await records.take(10)) == list(range(10)), "the group's offsets decide nothing"


async def test_a_group_that_refuses_our_offsets_harms_nothing(
    kafka: Broker, topic: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody else's consumers use the name: the coordinator refuses ours."""
    core = Core(tmp_path)
    await kafka.create_topic(topic)
    group = f"group-{topic}"
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap, group_id=group)
    await consumer.start()
    try:
        async with reading(core, kafka, topic, group=group) as records:
            for first in range(0, 30, 10):
                await send(kafka, topic, numbered(first, first + 9))
                await records.take(10)
    finally:
        await consumer.stop()
    assert numbers(core.taken) == list(range(30))
    assert capsys.readouterr().out.count("group_offsets_not_published") == 1


async def test_latest_begins_at_the_end_once_and_for_all(kafka: Broker, topic: str, tmp_path: Path) -> None:
    """The end at the first start counts, not the one at the restart before the first record."""
    core = Core(tmp_path)
    await kafka.create_topic(topic)
    await send(kafka, topic, numbered(0, 9))
    batches = source(core, kafka, topic, initial="latest").batches(f"{topic}/0", None)
    core.commit(f"{topic}/0", await anext(batches))
    await batches.aclose()
    await send(kafka, topic, numbered(10, 12))
    async with reading(core, kafka, topic, initial="latest") as records:
        assert numbers(await records.take(3)) == [10, 11, 12]


async def test_what_comes_later_is_read_from_its_beginning_also_with_latest(
    kafka: Broker, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New partitions, and new topics that the pattern takes."""
    monkeypatch.setattr("connectors.kafka.source.LISTING_SECONDS", 0.0)
    core = Core(tmp_path)
    await kafka.create_topic(f"{topic}.eu")
    orders = source(core, kafka, None, pattern=f"{topic}.*", initial="latest")
    assert await orders.partitions() == [f"{topic}.eu/0"]
    async with kafka.admin() as admin:
        await admin.create_partitions({f"{topic}.eu": NewPartitions(2)})
    await kafka.create_topic(f"{topic}.us")
    await send(kafka, f"{topic}.us", numbered(0, 2))

    async def listed() -> bool:
        return await orders.partitions() == [f"{topic}.eu/0", f"{topic}.eu/1", f"{topic}.us/0"]

    await until(listed, "the new ones are not found")
    await send(kafka, f"{topic}.eu", numbered(3, 5), partition=1)
    async with Reading(orders, core) as records:
        assert sorted(numbers(await records.take(6))) == list(range(6))


async def test_internal_topics_match_no_pattern(kafka: Broker, topic: str, tmp_path: Path) -> None:
    await kafka.create_topic(topic)
    core = Core(tmp_path)
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap, group_id=topic)
    await consumer.start()  # __consumer_offsets is there now
    await consumer.stop()
    listed = await source(core, kafka, None, pattern="**").partitions()
    assert f"{topic}/0" in listed
    assert not [partition for partition in listed if partition.startswith("__")]


async def test_a_timestamp_begins_with_the_first_record_that_is_not_older(
    kafka: Broker, topic: str, tmp_path: Path
) -> None:
    core = Core(tmp_path)
    await kafka.create_topic(topic, settings={"retention.ms": "-1"})  # it is older than a week
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    for number in range(5):
        instant = noon + timedelta(minutes=number)
        await send(kafka, topic, numbered(number, number), timestamp=int(instant.timestamp() * 1000))
    async with reading(core, kafka, topic, initial={"timestamp": "2026-01-31T13:02:00+01:00"}) as records:
        assert numbers(await records.take(3)) == [2, 3, 4]
    batches = source(Core(tmp_path), kafka, topic, initial={"timestamp": "2027-01-01T00:00:00Z"}).batches(
        f"{topic}/0", None
    )
    first: Batch = await anext(batches)
    await batches.aclose()
    assert first.cursor["offset"] == 5, "none is that late: it begins at the end"


async def test_a_huge_record_comes_alone_and_many_come_in_pieces(
    kafka: Broker, topic: str, tmp_path: Path
) -> None:
    """10 MB in one record, 10 times what a fetch asks for; and 30 MB of small ones, compressed to nothing."""
    core = Core(tmp_path)
    await kafka.create_topic(topic, settings={"max.message.bytes": "20000000"})
    huge = json.dumps({"n": 0, "text": "x" * 10_000_000}).encode()
    await send(kafka, topic, [huge])
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap, compression_type="gzip", max_batch_size=10_000_000, linger_ms=50
    ) as producer:
        for number in range(1, 301):
            value = json.dumps({"n": number, "text": "y" * 100_000}).encode()
            await producer.send(topic, value, partition=0)
        await producer.flush()
    found: list[int] = []
    async with reading(core, kafka, topic) as records:
        while len(found) < 301:
            partition, batch = await records.next()
            assert sum(len(record.raw) for record in batch.records) < 11_000_000
            found += numbers(list(batch.records))
            core.taken.clear()
            await records.commit(partition, batch)
    assert found == list(range(301))
