"""The watermark source: what eventflow calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import ClassVar

from pydantic import BaseModel

from connectors.sql_watermark.config import SqlWatermarkConfig
from eventflow.event import JSON
from eventflow.source import Batch, Delivery, Receipt, Sends, SourceContext


class SqlWatermarkSource:
    """A table that grows."""

    Config: ClassVar[type[BaseModel]] = SqlWatermarkConfig
    delivery: ClassVar[Delivery] = Delivery.ordered

    def __init__(self, name: str, config: SqlWatermarkConfig, context: SourceContext) -> None:
        self._name = name
        self._config = config
        self._context = context

    @classmethod
    def sends(cls, config: SqlWatermarkConfig) -> Sends:
        """For `check`: the one type, and its fields."""
        return Sends(frozenset({"table.grew"}), frozenset({"new_rows", "from", "to"}))

    async def origin(self) -> str | None:
        return None

    async def partitions(self) -> Sequence[str]:
        return [""]

    async def batches(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        await asyncio.Event().wait()
        yield Batch([])

    async def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None:
        """Nobody waits for it."""

    async def refused(self, batch: Batch, error: Exception) -> None:
        """Nobody waits for it."""
