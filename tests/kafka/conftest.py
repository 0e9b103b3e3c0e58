"""Real brokers for the tests of this folder. Where there is no Java they fail: here nothing is skipped."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, Final

import pytest
import pytest_asyncio
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient

from connectors.kafka import KafkaSource
from connectors.kafka.config import KafkaConfig
from eventflow.testing.reading import Core, Reading
from tests.kafka.broker import Broker, Cluster

_NUMBERS: Final = itertools.count(1)
QUICK: Final = {
    "log.retention.check.interval.ms": "300",
    "log.initial.task.delay.ms": "300",
    "log.cleaner.backoff.ms": "200",
    "log.segment.delete.delay.ms": "100",
}
"""A broker that tidies up within seconds."""


def _fail_where_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Also for what is expected to fail: `wasxfail`, and "skipped" where it did."""
    if report.skipped or hasattr(report, "wasxfail"):
        reason = getattr(report, "wasxfail", "") or report.longrepr
        report.outcome, report.longrepr = "failed", f"skipped or expected to fail: {reason}"
        vars(report).pop("wasxfail", None)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test of this folder that is skipped has failed."""
    report = yield
    _fail_where_skipped(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """So has a whole file."""
    report = yield
    _fail_where_skipped(report)
    return report


@pytest_asyncio.fixture(scope="session")
async def kafka(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Broker]:
    """One broker for everything that harms none; `EVENTFLOW_TEST_KAFKA` names another one."""
    if bootstrap := os.environ.get("EVENTFLOW_TEST_KAFKA"):
        yield Broker(bootstrap)
        return
    async with Cluster(tmp_path_factory.mktemp("kafka"), settings=QUICK) as cluster:
        yield cluster


@pytest_asyncio.fixture(scope="session")
async def three(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Cluster]:
    """Three brokers, to be killed and started again; a test leaves all of them running."""
    async with Cluster(tmp_path_factory.mktemp("three"), brokers=3) as cluster:
        yield cluster


@pytest.fixture
def topic() -> str:
    """A name that no other test uses."""
    return f"test.{os.getpid()}.{next(_NUMBERS)}"


def source(core: Core, broker: Broker, topic: str | None, **words: Any) -> KafkaSource:
    """A source `orders` as after a restart; all it remembers is in `core`."""
    named = {} if topic is None else {"topics": [topic]}
    config = KafkaConfig.model_validate({
        "bootstrap": broker.bootstrap, "initial": "earliest", **named, **words,
    })  # fmt: skip
    return KafkaSource("orders", config, core.context())


def reading(core: Core, broker: Broker, topic: str | None, **words: Any) -> Reading:
    """The source, read as eventflow reads it."""
    return Reading(source(core, broker, topic, **words), core, deadline=20)


async def send(broker: Broker, topic: str, values: list[bytes | None], **options: Any) -> None:
    """Produce to partition 0, unless `options` say otherwise; returns once all are there.

    With librdkafka, which is not what the source reads with and goes on through dead brokers.
    """

    def produce() -> None:
        refused: list[object] = []
        producer = Producer({
            "bootstrap.servers": broker.bootstrap, "linger.ms": 0, "log_level": 0,
            "acks": options.pop("acks", "all"), "message.max.bytes": 20_000_000,
        })  # fmt: skip

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                refused.append(error)

        for value in values:
            where: dict[str, Any] = {"partition": 0, **options}
            producer.produce(topic, value, on_delivery=delivered, **where)
            producer.poll(0)
        assert producer.flush(30) == 0, "records were not delivered"
        assert not refused, refused

    await asyncio.to_thread(produce)


async def described(broker: Broker, topic: str) -> Any:
    """Partition 0: its `leader`, `replicas` and `isrs`."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    found = await asyncio.to_thread(admin.list_topics, topic, 10)
    return found.topics[topic].partitions[0]


def numbered(first: int, last: int) -> list[bytes | None]:
    """`{"n": first}` to `{"n": last}`."""
    return [b'{"n":%d}' % number for number in range(first, last + 1)]


async def until(holds: Callable[[], Awaitable[bool]], otherwise: str, seconds: float = 20) -> None:
    """Ask again and again, for at most that long."""
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline, f"{otherwise} after {seconds:g} s"
        await asyncio.sleep(0.05)
