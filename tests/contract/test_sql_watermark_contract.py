"""The watermark source keeps the contract on a real table: a `send` is a row, an event stands for several."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pytest
import pytest_asyncio

from connectors.sql_watermark import SqlWatermarkSource
from connectors.sql_watermark.config import SqlWatermarkConfig
from eventflow.event import Event
from eventflow.source import Source, SourceContext
from eventflow.testing.source_contract import OrderedSourceContract
from tests.contract.test_docs_connectors import run, write_files

TABLE = "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key text)"


class TestSqlWatermarkContract(OrderedSourceContract):
    words: ClassVar[dict[str, Any]] = {"initial": "earliest", "every": "50ms"}

    @pytest_asyncio.fixture(autouse=True, loop_scope="session")
    async def _table(self, empty_database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
        monkeypatch.setenv("WATERMARK_URL", empty_database)
        self.sent: list[str] = []
        async with await psycopg.AsyncConnection.connect(empty_database, autocommit=True) as self.conn:
            await self.conn.execute(TABLE)
            yield

    def make(self, context: SourceContext) -> Source:
        words = {"url": "${secret.WATERMARK_URL}", "table": "public.orders", "column": "id", **self.words}
        return SqlWatermarkSource("orders", SqlWatermarkConfig.model_validate(words), context)

    async def send(self, key: str) -> None:
        self.sent.append(key)
        await self.conn.execute("INSERT INTO orders (key) VALUES (%s)", [key])

    async def send_broken(self) -> bytes | None:
        """A table holds nothing that cannot be counted."""
        return None

    def key_of(self, event: Event) -> str:
        raise AssertionError("see keys_of")

    def keys_of(self, event: Event) -> Sequence[str]:
        """The numbers say which rows; here they have no gaps."""
        first, last = int(event.data["from"] or 0), int(event.data["to"])
        assert event.data["new_rows"] == last - first
        return self.sent[first:last]


class TestLaggingContract(TestSqlWatermarkContract):
    words: ClassVar[dict[str, Any]] = {"initial": "earliest", "every": "50ms", "lag": "100ms"}


def test_the_rule_file_of_the_page_loads(tmp_path: Path) -> None:
    assert write_files("sql_watermark.md", tmp_path) == ["rules/orders.yaml"]
    run(tmp_path, "-m", "eventflow", "check", "rules")
