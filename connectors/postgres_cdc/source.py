"""The Postgres source: what eventflow calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import ClassVar

from pydantic import BaseModel

from connectors.postgres_cdc.config import PostgresCdcConfig, default_name
from eventflow.errors import SourceUnavailable
from eventflow.event import JSON
from eventflow.source import Batch, Delivery, Receipt, SourceContext


class PostgresCdcSource:
    """Changes of tables in commit order."""

    Config: ClassVar[type[BaseModel]] = PostgresCdcConfig
    delivery: ClassVar[Delivery] = Delivery.ordered

    def __init__(self, name: str, config: PostgresCdcConfig, context: SourceContext) -> None:
        self._name = name
        self._config = config
        self._context = context
        self._slot = config.slot or default_name(name)

    async def origin(self) -> str | None:
        raise SourceUnavailable("being written")

    async def partitions(self) -> Sequence[str]:
        return (self._slot,)

    async def batches(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        raise SourceUnavailable("being written")
        yield Batch([])

    async def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None:
        pass

    async def refused(self, batch: Batch, error: Exception) -> None:
        pass
