"""librdkafka's mock cluster: Kafka's protocol in memory, without Java.

It has no transactions to abort, no retention and no topic that can be deleted: those are tested on a real
broker, in tests/kafka.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Self

from confluent_kafka import KafkaError, Message, Producer


class MockCluster:
    """A cluster of this process; `bootstrap` is where it listens. Topics come into being when written to."""

    def __init__(self, brokers: int = 1, partitions: int = 4) -> None:
        self._producer = Producer({
            "bootstrap.servers": "mock:1",
            "test.mock.num.brokers": brokers,
            "linger.ms": 0,
            "log_level": 0,
        })  # fmt: skip
        found = self._producer.list_topics(timeout=10).brokers.values()
        self.bootstrap = ",".join(sorted(f"{broker.host}:{broker.port}" for broker in found))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.flush(5)

    def topic(self, name: str) -> int:
        """Make the topic; how many partitions it has."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            topic = self._producer.list_topics(name, timeout=10).topics[name]
            if topic.error is None and topic.partitions:
                return len(topic.partitions)
        raise TimeoutError(f"the mock cluster does not make topic {name}")

    def send(self, topic: str, value: bytes | None, **options: Any) -> tuple[int, int]:
        """Produce one record and wait until it is there: its partition and offset."""
        there: list[tuple[int, int]] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            assert error is None, error
            there.append((message.partition(), message.offset()))  # type: ignore[arg-type]

        self._producer.produce(topic, value, on_delivery=delivered, **options)
        self._producer.flush(10)
        return there[0]

    def send_all(self, topic: str, values: Sequence[bytes], **options: Any) -> None:
        """Produce many; returns once all are there."""
        for value in values:
            self._producer.produce(topic, value, **options)
        assert self._producer.flush(10) == 0
