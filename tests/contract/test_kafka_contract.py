"""The Kafka source keeps the contract, over librdkafka's mock cluster; over a real broker in tests/kafka."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from connectors.kafka import KafkaSource, partition
from connectors.kafka.config import KafkaConfig
from eventflow.event import Event
from eventflow.source import SourceContext
from eventflow.testing.source_contract import OrderedSourceContract
from tests.kafka_mock import MockCluster


class TestKafka(OrderedSourceContract):
    @pytest.fixture(autouse=True)
    def _cluster(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(partition, "WAIT_MS", 100)  # the mock does not end a wait when a record comes
        with MockCluster() as self.cluster:
            self.cluster.topic("keys")
            yield

    def make(self, context: SourceContext) -> KafkaSource:
        config = KafkaConfig(bootstrap=self.cluster.bootstrap, topics=["keys"], initial="earliest")
        return KafkaSource("keys", config, context)

    async def send(self, key: str) -> None:
        self.cluster.send("keys", json.dumps({"key": key}).encode(), key=key)

    async def send_broken(self) -> bytes:
        self.cluster.send("keys", b"{")
        return b"{"

    def key_of(self, event: Event) -> str:
        return event.data["key"]
