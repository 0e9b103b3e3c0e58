"""Records that cannot be decoded, from a real broker into a real Postgres."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import (
    _DefaultRecordBatchBuilderPy,  # pyright: ignore[reportPrivateUsage]
)

from eventflow.context import context_of
from eventflow.event import decode_json, new_uid
from eventflow.ingest import Ingest
from eventflow.revisions import Revisions
from eventflow.rulefile.connectors import find_connectors
from eventflow.store import ownership, rulesets
from eventflow.store.pool import Pool
from eventflow.store.signals import Signals
from tests.acceptance.serving import fetch, until
from tests.kafka.broker import Broker
from tests.kafka.conftest import send
from tests.unit.test_kafka_record import POISON

LEASE = timedelta(seconds=30)
RULES = """
sources:
  orders:
    {{connector: kafka, bootstrap: "{bootstrap}", topics: [{topic}], initial: earliest, format: {format}}}
workflows:
  load: {{tasks: {{load: {{shell: ["true"]}}}}}}
rules:
  each: {{from: orders, match: {{data.n: {{gte: 0}}}}, run: load}}
"""


@asynccontextmanager
async def reading(
    pool: Pool, folder: Path, kafka: Broker, topic: str, format_: str = "json"
) -> AsyncGenerator[asyncio.Task[None]]:
    """The topic's only partition on its way through the real transaction; the task ends when reading does."""
    text = RULES.format(bootstrap=kafka.bootstrap, topic=topic, format=format_)
    async with pool.acquire() as conn:
        await rulesets.apply(
            conn, {"r.yaml": text.encode()}, folder=folder, origin="test", code_version="0", take_over=True
        )
    revisions = Revisions(pool, find_connectors(), folder / "code")
    spec = (await revisions.refresh()).sources["orders"]
    source = spec.factory(spec.name, spec.config, context_of(spec, pool))
    async with pool.acquire() as conn:
        claim = await ownership.claim(conn, "orders", f"{topic}/0", new_uid(), LEASE, None)
    assert claim is not None
    ingest = Ingest(pool, LEASE, revisions, Signals("test"))
    task = asyncio.ensure_future(ingest.run_partition(source, claim))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def taken(pool: Pool, reader: asyncio.Task[None], number: int) -> None:
    """Wait until `number` records are taken in. Raises what ended the reading."""

    async def enough() -> bool:
        if reader.done():
            reader.result()
        (row,) = await fetch(pool, "SELECT coalesce(sum(taken), 0)::int AS n FROM source_partition")
        return row["n"] >= number

    await until(enough, 30, f"{number} records")


@pytest.mark.parametrize("format_", ["json", "cloudevents", "debezium"])
async def test_the_rest_commits(kafka: Broker, topic: str, tmp_path: Path, pool: Pool, format_: str) -> None:
    """One bad record in a hundred, of every kind: dead letters in the transaction of their neighbours."""
    kinds = list(POISON.values())
    value = {
        "json": '{"n":%d}',
        "cloudevents": '{"specversion":"1.0","id":"a","source":"/s","type":"x","data":{"n":%d}}',
        "debezium": '{"schema":null,"payload":{"n":%d}}',
    }[format_]
    values: list[bytes | None] = [
        kinds[n // 100 % len(kinds)] if n % 100 == 50 else (value % n).encode() for n in range(1_000)
    ]
    await kafka.create_topic(topic)
    await send(kafka, topic, values)
    async with reading(pool, tmp_path, kafka, topic, format_) as reader:
        await taken(pool, reader, 1_000)
    letters = await fetch(pool, "SELECT stage, raw, position, reason, xmin::text AS tx FROM dead_letter")
    events = await fetch(pool, "SELECT id, xmin::text AS tx FROM event")
    assert len(events) == 990
    by_offset = {decode_json(letter["position"])["offset"]: letter for letter in letters}
    assert {offset: letter["raw"] for offset, letter in by_offset.items()} == {
        n: values[n] for n in range(50, 1_000, 100)
    }
    assert all(letter["stage"] == "decode" and letter["reason"] for letter in letters)
    batch_of = {int(row["id"].rpartition("/")[2]): row["tx"] for row in events}
    assert all(
        letter["tx"] in (batch_of[offset - 1], batch_of[offset + 1]) for offset, letter in by_offset.items()
    )
    (runs,) = await fetch(pool, "SELECT count(*) AS n, count(DISTINCT event_uid) AS events FROM run")
    assert (runs["n"], runs["events"]) == (990, 990)


async def test_odd_keys_and_headers_harm_nothing(
    kafka: Broker, topic: str, tmp_path: Path, pool: Pool
) -> None:
    """No text, enormous, absent: what stands beside the value is kept in Postgres as it came."""
    await kafka.create_topic(topic)
    await send(kafka, topic, [b'{"n":1}'], key=b"\x00\xff", headers=[("a" * 5_000, b"\xff"), ("b", b"\x00")])
    await send(kafka, topic, [b'{"n":2}', None], key=b"k" * 700_000)
    await send(kafka, topic, [b'{"n":4}'], headers=[("h", None), ("h", b"1")])
    async with reading(pool, tmp_path, kafka, topic) as reader:
        await taken(pool, reader, 4)
    rows = await fetch(pool, "SELECT subject, attributes FROM event ORDER BY id")
    metas = [decode_json(row["attributes"])["meta"] for row in rows]
    assert [row["subject"] for row in rows] == ["base64:AP8=", "k" * 700_000, "k" * 700_000, None]
    assert metas[0]["key"] == {"base64": "AP8="}
    assert metas[0]["headers"] == {"a" * 5_000: {"base64": "/w=="}, "b": {"base64": "AA=="}}
    assert [meta.get("tombstone") for meta in metas] == [None, None, True, None]
    assert metas[3]["headers"] == {"h": [None, "1"]}
    assert await fetch(pool, "SELECT id FROM dead_letter") == []


class NoText(str):
    """A header's name as clients write it that do not look at it."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"\xff" + super().encode(encoding, errors)


@pytest.mark.parametrize("compression", [None, "gzip"])
async def test_header_names_that_are_no_text_harm_nothing(
    kafka: Broker, topic: str, tmp_path: Path, pool: Pool, compression: str | None
) -> None:
    await kafka.create_topic(topic)
    codec, now = {None: 0, "gzip": 1}[compression], int(time.time() * 1_000)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, compression_type=compression) as producer:
        batch: Any = producer.create_batch()
        batch._builder = _DefaultRecordBatchBuilderPy(2, codec, 0, -1, -1, 0, 1 << 20)
        for n in range(6):
            headers = [(NoText("h"), b"1"), ("i", None)] if n in (2, 4) else [("h", b"1")]
            assert batch.append(key=b"k", value=b'{"n":%d}' % n, timestamp=now + n, headers=headers)
        await (await producer.send_batch(batch, topic, partition=0))
    async with reading(pool, tmp_path, kafka, topic) as reader:
        await taken(pool, reader, 6)
    rows = await fetch(pool, "SELECT id, attributes, data FROM event ORDER BY id")
    assert [(row["id"], row["data"]) for row in rows] == [
        (f"{topic}/0/{n}", b'{"n":%d}' % n) for n in range(6)
    ]
    metas = [decode_json(row["attributes"])["meta"] for row in rows]
    assert [meta["headers"] for meta in metas] == [
        {"\\xffh": "1", "i": None} if n in (2, 4) else {"h": "1"} for n in range(6)
    ]
    assert [meta["timestamp"] for meta in metas] == [now + n for n in range(6)]


async def test_a_payment_produced_twice_is_two_events_unless_a_business_key_says_otherwise(
    kafka: Broker, topic: str, tmp_path: Path, pool: Pool
) -> None:
    await kafka.create_topic(topic)
    await send(kafka, topic, [b'{"n":1}', b'{"n":1}', b'{"n":2}', None])
    async with reading(pool, tmp_path, kafka, topic) as reader:
        await taken(pool, reader, 4)
    await kafka.create_topic(f"{topic}.keyed")
    await send(kafka, f"{topic}.keyed", [b'{"n":1}', b'{"n":1}', b'{"n":2}', None])
    async with reading(pool, tmp_path / "keyed", kafka, f"{topic}.keyed", "json, id: data.n") as reader:
        await taken(pool, reader, 7)
    rows = await fetch(pool, "SELECT partition, count(*)::int AS n FROM event GROUP BY 1")
    assert {row["partition"]: row["n"] for row in rows} == {f"{topic}/0": 4, f"{topic}.keyed/0": 3}
    (again,) = await fetch(
        pool, "SELECT duplicates::int AS n FROM source_partition WHERE partition = $1", f"{topic}.keyed/0"
    )
    assert again["n"] == 1
