"""The Kafka side: a broker of the run's own, a producer that commits and aborts, what the log holds then.

What a producer was told when its broker died is no truth: the log is. It is read at the end by another
client than the one that eventflow uses (librdkafka), and only what is committed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka import KafkaError as ClientError

from tests.chaos import generator
from tests.chaos.generator import OrderPlan
from tests.chaos.processes import CannotRun
from tests.chaos.truth import Order
from tests.kafka.broker import BrokerError, Cluster

TOPIC: Final = "orders"
PARTITIONS: Final = 6
ANSWER: Final = 8.0
"""Seconds that the producer waits for one answer; then it begins anew."""

Pause = Callable[[], Awaitable[bool]]
"""Waits for the turn of the next plan; False where the load has stopped."""

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # that a dead broker does not answer is no news here


class Topic:
    """One broker, one topic. `sent` counts the runs that acknowledged commits ask for."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.sent = 0
        self._seed = seed
        self._cluster = Cluster(folder / "kafka")
        self._routes = Random(f"{seed}:orders:routes")
        self._producer: AIOKafkaProducer | None = None

    @property
    def bootstrap(self) -> str:
        return self._cluster.bootstrap

    async def start(self) -> None:
        """Start the broker and make the topic. Raises `CannotRun`."""
        try:
            await self._cluster.start()
            await self._cluster.create_topic(TOPIC, PARTITIONS)
        except BrokerError as error:
            raise CannotRun(str(error)) from error

    def kill(self) -> None:
        """kill -9 of the broker."""
        self._cluster.kill()

    async def start_again(self) -> None:
        """The broker, on the log that it left; returns once it answers."""
        await self._cluster.restart()

    async def stop(self) -> None:
        """Leaves no process."""
        await self._close_producer()
        self._cluster.kill()

    async def run(self, pause: Pause) -> None:
        """Each plan is one transaction; what a dead broker leaves of one is aborted by the next producer."""
        asyncio.get_running_loop().set_exception_handler(_hush_client)
        for plan in generator.orders(self._seed):
            if not await pause():
                break
            try:
                async with asyncio.timeout(ANSWER):
                    await self._send(plan)
            except (KafkaError, OSError, TimeoutError, AssertionError):
                await self._close_producer()
        await self._end_what_is_open()

    async def _send(self, plan: OrderPlan) -> None:
        producer = await self._open_producer()
        await producer.begin_transaction()
        for order in plan.orders:
            partition = order.number % PARTITIONS
            await producer.send(TOPIC, order.text.encode(), key=order.key.encode(), partition=partition)
        if plan.aborted:
            await producer.flush()
            await producer.abort_transaction()
        else:
            await producer.commit_transaction()
            self.sent += sum(not is_broken(order.text) for order in plan.orders)

    async def _open_producer(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self.bootstrap, transactional_id="kill run", request_timeout_ms=3_000,
                retry_backoff_ms=100,
            )  # fmt: skip
            self._producer = producer
            await producer.start()
        return self._producer

    async def _close_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaError, OSError, TimeoutError, AssertionError):
                async with asyncio.timeout(3):
                    await producer.stop()

    async def _end_what_is_open(self) -> None:
        """A producer of the same name ends what the one before has left open: else the log ends there."""
        await self._close_producer()
        while True:
            try:
                async with asyncio.timeout(ANSWER):
                    await self._open_producer()
                    await self._close_producer()
            except (KafkaError, OSError, TimeoutError):
                await self._close_producer()
                await asyncio.sleep(0.2)
            else:
                return

    async def read(self) -> list[Order]:
        """Every committed record, by partition and offset."""
        return await asyncio.to_thread(lambda: list(self._read()))

    def _read(self) -> Iterator[Order]:
        consumer: Any = Consumer({
            "bootstrap.servers": self.bootstrap, "group.id": "kill run", "isolation.level": "read_committed",
            "enable.auto.commit": False, "enable.partition.eof": True,
        })  # fmt: skip
        consumer.assign([TopicPartition(TOPIC, n, OFFSET_BEGINNING) for n in range(PARTITIONS)])
        ended: set[int] = set()
        try:
            while len(ended) < PARTITIONS:
                message = consumer.poll(10)
                if message is None:
                    raise TimeoutError("the broker has stopped answering")
                if (error := message.error()) is None:
                    yield _order(message)
                elif error.code() == ClientError._PARTITION_EOF:
                    ended.add(message.partition())
        finally:
            consumer.close()


def _hush_client(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What the client's own tasks fail with when their broker dies is heard where it was asked."""
    if not isinstance(context.get("exception"), KafkaError):
        loop.default_exception_handler(context)


def is_broken(text: str) -> bool:
    """Whether a record's text is no JSON."""
    return not text.endswith("}")


def _order(message: Any) -> Order:
    text = message.value().decode()
    return Order(
        f"{TOPIC}/{message.partition()}", message.offset(), message.key().decode(), text,
        broken=is_broken(text),
    )  # fmt: skip
