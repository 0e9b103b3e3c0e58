"""The Kafka source: what eventflow calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import ClassVar

from pydantic import BaseModel

from connectors.kafka.config import KafkaConfig
from eventflow.event import JSON
from eventflow.source import Batch, Delivery, Receipt, SourceContext


class KafkaSource:
    """Topics of one Kafka cluster. The reading side follows within the hour."""

    Config: ClassVar[type[BaseModel]] = KafkaConfig
    delivery: ClassVar[Delivery] = Delivery.ordered

    def __init__(self, name: str, config: KafkaConfig, context: SourceContext) -> None:
        self._name, self._config, self._context = name, config, context

    async def origin(self) -> str | None:
        raise NotImplementedError

    async def partitions(self) -> Sequence[str]:
        raise NotImplementedError

    async def batches(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        raise NotImplementedError
        yield

    async def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None:
        raise NotImplementedError

    async def refused(self, batch: Batch, error: Exception) -> None:
        raise NotImplementedError
