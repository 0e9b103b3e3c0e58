"""kafka_commit: records from a real broker to COMMIT, beside the slower of its two halves done bare.

One node reads all twelve partitions of a topic side by side, as it does in `serve`, with 100 rules of which
one takes every tenth record. The halves are aiokafka's consumer with strict JSON decoding and nothing else,
and the bare batch transaction that writes the same rows; the floor is the smaller rate of the two.
`kafka_event_to_commit` is how long one record takes from being sent to being committed, at a low rate.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from confluent_kafka import Producer

from bench import floors
from bench.figure import Figure
from bench.ingest import LEASE, payloads, rules
from connectors.kafka import KafkaSource
from connectors.kafka.config import KafkaConfig
from eventflow.context import predicate
from eventflow.event import JSON, decode_json, new_uid
from eventflow.garbage import collect_rarely
from eventflow.ingest import Ingest
from eventflow.revisions import Revisions
from eventflow.rulefile.connectors import find_connectors
from eventflow.source import Batch, Receipt, SourceContext
from eventflow.store import ownership, rulesets
from eventflow.store.pool import Pool, connect
from eventflow.store.signals import Signals
from tests.kafka.broker import Cluster

TOPIC: Final = "bench"
PARTITIONS: Final = 12
BATCHES: Final = 48
ROUNDS: Final = 5
LATENCIES: Final = 300


class Counted:
    """A Kafka source that says when `wanted` records are durable; else it is the real one."""

    def __init__(self, name: str, config: KafkaConfig, folder: Path, wanted: int) -> None:
        self._source = KafkaSource(name, config, _context(folder))
        self.left = wanted
        self.done = asyncio.Event()

    async def partitions(self) -> Sequence[str]:
        """The real one's."""
        return await self._source.partitions()

    async def batches(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        """The real one's."""
        async with aclosing(self._source.batches(partition, cursor)) as batches:
            async for batch in batches:
                yield batch

    async def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None:
        """Count, and let the real one know."""
        await self._source.committed(batch, receipts)
        self.left -= len(batch.records)
        if self.left <= 0:
            self.done.set()


def _context(folder: Path) -> SourceContext:
    """No ledger and no secret: Kafka wants neither here."""

    def none(*_: Any) -> Any:
        raise NotImplementedError

    async def began_with(partitions: Sequence[str]) -> Sequence[str]:
        return partitions

    return SourceContext(folder, none, none, none, predicate, lambda: datetime.now(UTC), began_with)


def _produce(bootstrap: str, batches: Sequence[Sequence[bytes]]) -> None:
    """Evenly over the partitions, in lots of 100."""
    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 10**6}
    )
    raws = [raw for batch in batches for raw in batch]
    for number, raw in enumerate(raws):
        producer.produce(TOPIC, raw, key=b"k-%d" % (number % 997), partition=number // 100 % PARTITIONS)
        if number % 1_000 == 0:
            producer.poll(0)
    assert producer.flush(60) == 0, "the broker did not take all records"


async def _bare_consume(bootstrap: str, wanted: int) -> float:
    """Records per second of aiokafka and strict JSON."""
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, isolation_level="read_committed"
    ) as consumer:
        started, left = time.perf_counter(), wanted
        at = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
        consumer.assign(at)
        await consumer.seek_to_beginning(*at)
        while left > 0:
            for records in (await consumer.getmany(timeout_ms=1_000)).values():
                for record in records:
                    decode_json(record.value or b"null")
                left -= len(records)
        return wanted / (time.perf_counter() - started)


async def _reading(pool: Pool, ingest: Ingest, source: Counted, name: str) -> list[asyncio.Task[None]]:
    """A task for each partition, as `serve` runs them."""
    node = new_uid()
    claims: list[ownership.Claim] = []
    async with pool.acquire() as conn:
        for partition in await source.partitions():
            claim = await ownership.claim(conn, name, partition, node, LEASE, None)
            assert claim is not None
            claims.append(claim)
    read: Any = source
    return [asyncio.create_task(ingest.run_partition(read, claim)) for claim in claims]


async def _until(done: asyncio.Event, tasks: Sequence[asyncio.Task[None]]) -> None:
    """Raises what ended a reading early."""
    waiting = asyncio.create_task(done.wait())
    await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    if not done.is_set():
        waiting.cancel()
        for task in tasks:
            if task.done():
                task.result()


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _ours(pool: Pool, ingest: Ingest, bootstrap: str, name: str, folder: Path, wanted: int) -> float:
    """Records per second, connecting included. A new name begins at the beginning."""
    config = KafkaConfig(bootstrap=bootstrap, topics=[TOPIC], initial="earliest")
    source = Counted(name, config, folder, wanted)
    started = time.perf_counter()
    tasks = await _reading(pool, ingest, source, name)
    await _until(source.done, tasks)
    rate = wanted / (time.perf_counter() - started)
    await _ended(tasks)
    return rate


async def _latencies(pool: Pool, ingest: Ingest, bootstrap: str, folder: Path) -> list[float]:
    """Seconds from a record being sent to its commit, one after the other; sorted."""
    config = KafkaConfig(bootstrap=bootstrap, topics=[TOPIC], initial="latest")
    source = Counted("latency", config, folder, 0)
    tasks = await _reading(pool, ingest, source, "latency")
    found: list[float] = []
    try:
        async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
            for number, raw in enumerate(raw for batch in payloads(1) for raw in batch[:LATENCIES]):
                source.left, sent = 1, time.perf_counter()
                source.done.clear()
                await producer.send(TOPIC, raw, partition=number % PARTITIONS)
                await _until(source.done, tasks)
                found.append(time.perf_counter() - sent)
    finally:
        await _ended(tasks)
    return sorted(found[PARTITIONS:])  # the first of each partition finds nothing open


async def figures(url: str) -> list[Figure]:
    """All three in turns, so that a neighbour on the machine disturbs them alike; medians."""
    with tempfile.TemporaryDirectory(prefix="eventflow-bench-kafka-") as place:
        folder = Path(place)
        async with await connect(url) as pool, Cluster(folder / "kafka", heap="512m") as kafka:
            ingest = await _node(pool, folder)
            batches = payloads(BATCHES)
            wanted = sum(map(len, batches))
            await kafka.create_topic(TOPIC, PARTITIONS)
            await asyncio.to_thread(_produce, kafka.bootstrap, batches)
            consumed, written, ours = [], [], []
            await _ours(pool, ingest, kafka.bootstrap, "warm-up", folder, wanted // 4)
            for number in range(ROUNDS):
                async with pool.acquire() as conn:
                    written.append(
                        await floors.rate_of_batches(conn, batches, datetime.now(UTC), minimal=False)
                    )
                consumed.append(await _bare_consume(kafka.bootstrap, wanted))
                ours.append(await _ours(pool, ingest, kafka.bootstrap, f"bench-{number}", folder, wanted))
            latencies = await _latencies(pool, ingest, kafka.bootstrap, folder)
    mine, reads, writes = (sorted(rates)[ROUNDS // 2] for rates in (ours, consumed, written))
    floor, typical = min(reads, writes), latencies[len(latencies) // 2]
    return [
        Figure("kafka_bare_consume", reads, "records/s", None, reads),
        Figure("kafka_bare_transaction", writes, "records/s", None, writes),
        Figure("kafka_commit", mine, "records/s", floor, mine / floor),
        Figure("kafka_event_to_commit_p50", typical * 1_000, "ms", None, typical * 1_000),
    ]


async def _node(pool: Pool, folder: Path) -> Ingest:
    text = rules().replace("bench.event", "kafka.record")
    revisions = Revisions(pool, find_connectors(), folder)
    async with pool.acquire() as conn:
        await rulesets.apply(
            conn, {"bench.yaml": text.encode()}, folder=folder, origin="bench", code_version="0",
            take_over=True,
        )  # fmt: skip
    await revisions.refresh()
    collect_rarely()  # as `serve` does; it serves the two floors as well
    return Ingest(pool, LEASE, revisions, Signals("bench"))
