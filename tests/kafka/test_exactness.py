"""Each record once in effect and in order, through `eventflow serve` on a cluster whose nodes are killed."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections import defaultdict
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest_asyncio
from confluent_kafka import KafkaException, Producer

from eventflow.store.pool import Pool
from tests.acceptance.serving import Place, fetch, until
from tests.kafka.broker import Broker, Cluster

PARTITIONS = 12
TRANSACTIONS = 100
EACH = 500
LEASE = {"EVENTFLOW_LEASE": "3s"}

RULES = """
sources:
  orders: {{connector: kafka, bootstrap: "{bootstrap}", topics: [{topic}], initial: earliest}}
rules:
  hundredth: {{from: orders, match: {{data.hit: true}}, emit: order.seen}}
"""

Truth = dict[int, list[int]]
"""The numbers of committed records by partition, in their order."""


@pytest_asyncio.fixture
async def place(tmp_path: Path, database: str, three: Cluster, topic: str) -> AsyncGenerator[Place]:
    await three.create_topic(topic, partitions=PARTITIONS)
    yield Place(tmp_path / "place", database, RULES.format(bootstrap=three.bootstrap, topic=topic))


def produce(broker: Broker, topic: str, first: int, last: int, seed: int, aborted: float = 0.5) -> Truth:
    """Transactions `first` to `last`, a random part of them `aborted`; what was committed."""
    choose = random.Random(seed)
    committed: Truth = defaultdict(list)
    producer = Producer({
        "bootstrap.servers": broker.bootstrap, "transactional.id": topic, "log_level": 0,
        "transaction.timeout.ms": 30_000, "linger.ms": 5,
    })  # fmt: skip
    producer.init_transactions(60)
    for transaction in range(first, last):
        producer.begin_transaction()
        written: Truth = defaultdict(list)
        for number in range(transaction * EACH, (transaction + 1) * EACH):
            partition = choose.randrange(PARTITIONS)
            value = json.dumps({"n": number, "hit": number % 100 == 0, "text": "x" * 450}).encode()
            producer.produce(topic, value, partition=partition)
            written[partition].append(number)
        if choose.random() < aborted:
            producer.flush(60)  # written for good, and then taken back
            producer.abort_transaction(60)
            continue
        if not commit(producer):
            continue
        for partition, numbers in written.items():
            committed[partition] += numbers
    return committed


def commit(producer: Producer) -> bool:
    """Whether the transaction was committed: a broker's death may have aborted it."""
    while True:
        try:
            producer.commit_transaction(60)
        except KafkaException as failed:
            error = failed.args[0]
            if error.txn_requires_abort():
                producer.abort_transaction(60)
                return False
            if not error.retriable():
                raise
        else:
            return True


IN_ORDER = """
SELECT id, (convert_from(data, 'UTF8')::json->>'n')::int AS n
FROM event WHERE source = 'orders' AND partition = $1
ORDER BY ingested, uid
"""


async def taken(pool: Pool) -> int:
    (row,) = await fetch(
        pool, "SELECT coalesce(sum(taken), 0)::bigint AS n FROM source_partition WHERE source = 'orders'"
    )
    return row["n"]


async def check(pool: Pool, place: Place, topic: str, truth: Truth) -> None:
    """Each committed record is one event, in order per partition, and each hundredth fired once."""
    for number, numbers in truth.items():
        rows = await fetch(pool, IN_ORDER, f"{topic}/{number}")
        assert len({row["id"] for row in rows}) == len(rows), f"an offset of partition {number} came twice"
        found = [row["n"] for row in rows]
        assert found == numbers, f"partition {number}: {len(found)} records, {len(numbers)} were committed"
    count = sum(map(len, truth.values()))
    (events,) = await fetch(pool, "SELECT count(*) AS n FROM event WHERE source = 'orders'")
    assert events["n"] == count
    hits = sum(number % 100 == 0 for numbers in truth.values() for number in numbers)
    (fired,) = await fetch(pool, "SELECT count(*) AS n FROM firing WHERE rule = 'hundredth'")
    assert fired["n"] == hits

    async def caught_up() -> bool:
        return (await audit(place))["lag"] == 0

    # What was aborted last is moved over by a batch without records, which may be a moment later.
    await until(caught_up, 30, "there is still a lag")
    books = await audit(place, "--deep")
    assert (books["taken"], books["unknown"], books["lag"]) == (count, 0, 0)


async def audit(place: Place, *words: str) -> dict[str, Any]:
    """The books of the source; they must balance."""
    code, out, err = await place.command("audit", *words, "--json")
    assert code == 0, out + err
    (books,) = [row for row in json.loads(out) if row["source"] == "orders"]
    return books


async def all_taken(pool: Pool, truth: Truth) -> None:
    count = sum(map(len, truth.values()))

    async def enough() -> bool:
        return await taken(pool) >= count

    await until(enough, 90, f"not all of {count} records were taken in")


async def until_taken(pool: Pool, count: int) -> None:
    async def enough() -> bool:
        return await taken(pool) >= count

    await until(enough, 60, f"{count} records were not taken in")


async def test_kill_9_of_the_node_and_of_a_broker_lose_and_double_nothing(
    place: Place, pool: Pool, three: Cluster, topic: str
) -> None:
    writing = asyncio.create_task(asyncio.to_thread(produce, three, topic, 0, TRANSACTIONS, seed=1))
    async with place.serve(settings=LEASE) as served:
        await until_taken(pool, 1_000)
        three.kill(1)
        await until_taken(pool, 5_000)
        await served.kill()
    restarting = asyncio.create_task(three.restart(1))
    async with place.serve(settings=LEASE):
        truth = await writing
        await restarting
        await all_taken(pool, truth)
        await check(pool, place, topic, truth)


async def test_a_node_that_was_stopped_past_its_lease_commits_nothing_any_more(
    place: Place, pool: Pool, three: Cluster, topic: str
) -> None:
    """It holds half of the partitions with records in its hands; the other node takes them over."""
    writing = asyncio.create_task(asyncio.to_thread(produce, three, topic, 0, TRANSACTIONS // 2, seed=2))
    async with place.serve(settings=LEASE) as first, place.serve(path=None, settings=LEASE):
        await until_taken(pool, 1_000)
        first.signal(signal.SIGSTOP)
        try:
            truth = await writing
            await all_taken(pool, truth)
        finally:
            first.signal(signal.SIGCONT)
        more = await asyncio.to_thread(produce, three, topic, TRANSACTIONS // 2, TRANSACTIONS * 3 // 4, 3)
        for partition, numbers in more.items():
            truth[partition] += numbers
        await all_taken(pool, truth)
        await check(pool, place, topic, truth)
