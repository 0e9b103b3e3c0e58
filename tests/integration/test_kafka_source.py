"""The Kafka source over the wire, without Java: librdkafka's mock cluster, and brokers that are none."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiokafka.protocol.fetch import FetchRequest_v11
from confluent_kafka import Producer

from connectors.kafka import KafkaSource, partition, patience
from connectors.kafka.config import KafkaConfig
from connectors.kafka.protocol import Fetch, Fetched
from eventflow.errors import SourceUnavailable
from eventflow.event import Broken, Event
from eventflow.testing.reading import Core, Reading
from tests.kafka_mock import MockCluster


@pytest.fixture
def mock() -> Iterator[MockCluster]:
    with MockCluster() as cluster:
        cluster.topic("orders")
        yield cluster


def source(tmp_path: Path, bootstrap: str | list[str], core: Core | None = None, **words: Any) -> KafkaSource:
    given = {"bootstrap": bootstrap, "topics": ["orders"], "initial": "earliest", **words}
    return KafkaSource("orders", KafkaConfig.model_validate(given), (core or Core(tmp_path)).context())


def nobody() -> str:
    """An address that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@asynccontextmanager
async def listening(answer: bytes | None) -> AsyncGenerator[tuple[str, list[float]]]:
    """Something that is no broker: says `answer` and hangs up, or nothing (None). When it was called."""
    called: list[float] = []
    over = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.append(time.monotonic())
        if answer is None:
            await over.wait()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}", called
    finally:
        over.set()
        server.close()
        await server.wait_closed()


async def test_a_broker_that_is_away_is_named_with_the_reason(tmp_path: Path) -> None:
    address = nobody()
    orders = source(tmp_path, address)
    for ask in (orders.origin, orders.partitions, lambda: anext(orders.batches("orders/0", None))):
        with pytest.raises(SourceUnavailable, match=f"source 'orders': broker {address}: .*[Cc]onnect"):
            await ask()


async def test_one_address_of_several_is_enough(tmp_path: Path, mock: MockCluster) -> None:
    found = await source(tmp_path, [nobody(), f"{nobody()},{mock.bootstrap}"]).partitions()
    assert found == ["orders/0", "orders/1", "orders/2", "orders/3"]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 64])
async def test_what_is_no_broker_is_unavailable_and_not_an_error_of_ours(
    tmp_path: Path, answer: bytes
) -> None:
    async with listening(answer) as (address, _):
        with pytest.raises(SourceUnavailable, match=f"broker {address}: "):
            await source(tmp_path, address).origin()


async def test_closes_promptly_while_a_broker_says_nothing(tmp_path: Path) -> None:
    async with listening(None) as (address, called):
        batches = source(tmp_path, address).batches("orders/0", {"offset": 0})
        waiting = asyncio.ensure_future(anext(batches))
        while not called:
            await asyncio.sleep(0.01)
        started = time.monotonic()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await batches.aclose()
        assert time.monotonic() - started < 1


async def test_trouble_that_goes_on_is_met_with_ever_longer_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """No busy loop, and an end: then the partition is let go."""
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 1.5)
    waiting, tries, started = patience.Patience(), 0, time.monotonic()
    with suppress(patience.Passing):
        while tries < 100:
            await waiting.wait(patience.Passing("no broker leads it"))
            tries += 1
    assert 4 <= tries <= 12
    assert 1.5 <= time.monotonic() - started < 4


async def test_waiting_where_nothing_comes_costs_next_to_nothing(tmp_path: Path, mock: MockCluster) -> None:
    core = Core(tmp_path)
    mock.send("orders", b'{"n":1}', partition=0)
    async with Reading(source(tmp_path, mock.bootstrap, core), core) as records:
        await records.take(1)
        await asyncio.sleep(0.2)
        used = time.process_time()
        await asyncio.sleep(2)
        assert time.process_time() - used < 0.1, "more than 5 % of a core"


async def test_a_partition_that_is_slow_to_commit_holds_up_no_other(
    tmp_path: Path, mock: MockCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "WAIT_MS", 100)  # the mock does not end a wait when a record comes
    orders = source(tmp_path, mock.bootstrap)
    slow, quick = orders.batches("orders/0", {"offset": 0}), orders.batches("orders/1", {"offset": 0})
    mock.send("orders", b'{"n":0}', partition=0)
    await anext(slow)  # and it is not asked again
    started = time.monotonic()
    for number in range(20):
        mock.send("orders", json.dumps({"n": number}).encode(), partition=1)
        batch = await anext(quick)
        assert [record.data["n"] for record in batch.records if isinstance(record, Event)] == [number]
        await orders.committed(batch, [])
    assert time.monotonic() - started < 3
    await slow.aclose()
    await quick.aclose()


async def test_no_batch_is_larger_than_a_transaction_should_be(
    tmp_path: Path, mock: MockCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By number of records, and by their size."""
    monkeypatch.setattr(partition, "BATCH_RECORDS", 10)
    monkeypatch.setattr(partition, "BATCH_BYTES", 500)
    small = [json.dumps({"n": number}).encode() for number in range(25)]
    large = [json.dumps({"n": number, "x": "x" * 300}).encode() for number in range(25, 30)]
    mock.send_all("orders", small + large, partition=0)
    batches = source(tmp_path, mock.bootstrap).batches("orders/0", {"offset": 0})
    found: list[int] = []
    while len(found) < 30:
        batch = await anext(batches)
        found += [record.data["n"] for record in batch.records if isinstance(record, Event)]
        assert len(batch.records) <= 10
        assert sum(len(record.raw) for record in batch.records[:-1]) < 500, "without the last it was enough"
        assert batch.cursor["offset"] == len(found)
    await batches.aclose()
    assert found == list(range(30))


@pytest.mark.parametrize("kept", [1 << 20, 100], ids=["its bytes are kept", "its bytes are too many"])
async def test_a_batch_that_unpacks_to_too_much_is_a_dead_letter_and_the_rest_counts(
    tmp_path: Path, mock: MockCluster, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(partition, "KEPT_BYTES", kept)
    core = Core(tmp_path)
    producer = Producer({"bootstrap.servers": mock.bootstrap, "compression.type": "zstd", "log_level": 0})
    for value in (b'{"n":0}', json.dumps({"n": 1, "x": "x" * 900_000}).encode(), b'{"n":2}'):
        producer.produce("orders", value, partition=0)
        assert producer.flush(10) == 0
    async with Reading(source(tmp_path, mock.bootstrap, core, limit="512KiB"), core) as records:
        first, broken, last = await records.take(3)
    assert isinstance(first, Event)
    assert isinstance(last, Event)
    assert (first.data, last.data) == ({"n": 0}, {"n": 2})
    assert isinstance(broken, Broken)
    assert broken.position == {"topic": "orders", "partition": 0, "offset": 1, "to": 1}
    assert "the batch of the offsets 1 to 1 unpacks to more than `limit` allows (524288 bytes; zstd" in (
        broken.reason
    )
    assert bool(broken.raw) == ("its bytes are too many to be kept" not in broken.reason) == (kept > 100)
    assert len(broken.raw) < 2000, "as it came"
    assert core.cursor("orders/0")["offset"] == 3


async def test_answers_without_records_at_once_are_met_with_growing_pauses(
    tmp_path: Path, mock: MockCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a leader that names a replica to read from, or throttles: no busy loop, and it is said."""
    asked: list[float] = []

    def empty(_: object) -> Fetched:
        asked.append(time.monotonic())
        return Fetched(0)

    monkeypatch.setattr(partition, "fetched", empty)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 1.5)
    mock.send_all("orders", [b'{"n":0}'] * 3, partition=0)
    batches = source(tmp_path, mock.bootstrap).batches("orders/0", {"offset": 1})
    with pytest.raises(SourceUnavailable, match="answers at once, and without records"):
        async with asyncio.timeout(10):
            await anext(batches)
    assert 4 <= len(asked) <= 12


async def test_secrets_are_filled_in_when_they_are_used(
    tmp_path: Path, mock: MockCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = source(tmp_path, "${secret.BROKERS}")
    with pytest.raises(SourceUnavailable, match="secret BROKERS is not set"):
        await orders.origin()
    monkeypatch.setenv("BROKERS", mock.bootstrap)
    assert await orders.origin()


async def test_a_certificate_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match=r"source 'orders': tls: .*No such file"):
        await source(tmp_path, nobody(), tls={"ca": "nowhere.pem"}).origin()


async def test_the_client_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.startswith(("connectors.kafka.", "aiokafka"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "aiokafka", None)
    with pytest.raises(SourceUnavailable, match=r"install eventflow\[kafka\]"):
        await source(tmp_path, nobody()).origin()


async def test_a_named_topic_that_is_not_there_is_said_and_others_are_read(
    tmp_path: Path, mock: MockCluster
) -> None:
    with pytest.raises(SourceUnavailable, match="no such topic, or we may not see it: refunds"):
        await source(tmp_path, mock.bootstrap, topics=["refunds"]).partitions()
    found = await source(tmp_path, mock.bootstrap, topics=["refunds", "orders"]).partitions()
    assert found == ["orders/0", "orders/1", "orders/2", "orders/3"]


async def test_brokers_that_know_no_topic_ids_in_fetches_are_read_by_name(
    tmp_path: Path, mock: MockCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka 2.8 to 3.0."""
    monkeypatch.setattr(Fetch, "_CLASSES", (FetchRequest_v11,))
    core = Core(tmp_path)
    mock.send_all("orders", [b'{"n":%d}' % number for number in range(5)], partition=2)
    async with Reading(source(tmp_path, mock.bootstrap, core), core) as records:
        taken = await records.take(5)
    assert [record.data["n"] for record in taken if isinstance(record, Event)] == list(range(5))


async def test_check_hears_of_missing_topics(tmp_path: Path, mock: MockCluster) -> None:
    assert await source(tmp_path, mock.bootstrap).examine() == []
    (missing,) = await source(tmp_path, mock.bootstrap, topics=["orders", "refunds"]).examine()
    assert missing.startswith("no such topic, or we may not see it: refunds")
