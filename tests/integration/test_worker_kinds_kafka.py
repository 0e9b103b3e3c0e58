"""The `kafka` kind of task on librdkafka's mock cluster: what is written, and which producers are kept."""

from __future__ import annotations

import asyncio
import base64
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import ConsumerRecord

from connectors.kafka import publish
from connectors.kafka import task as kafka_task
from connectors.kafka.task import KafkaTask, PublishConfig
from eventflow.errors import TaskError
from eventflow.expression import Template
from eventflow.task import Context, Kind
from eventflow.workflow.definition import OfKind, Task
from tests.integration.conftest import VARIABLES, task
from tests.kafka_mock import MockCluster

if TYPE_CHECKING:
    from tests.integration.conftest import Stage


@pytest.fixture(scope="module")
def cluster() -> Iterator[MockCluster]:
    with MockCluster() as made:
        yield made


@pytest_asyncio.fixture
async def kind() -> AsyncIterator[KafkaTask]:
    """Made as a loop of a worker makes it, and closed."""
    made = KafkaTask()
    yield made
    await made.close()


def context(attempt: int = 1) -> Context:
    return Context("run-1", "flow", "announce", attempt, {}, None, logging.getLogger("test"))


def config(cluster: MockCluster, **words: Any) -> PublishConfig:
    return PublishConfig.model_validate({"bootstrap": cluster.bootstrap, "value": None, "key": "k", **words})


async def record(cluster: MockCluster, result: Any) -> ConsumerRecord:
    """What stands where the result says."""
    consumer = AIOKafkaConsumer(bootstrap_servers=cluster.bootstrap)
    await consumer.start()
    try:
        at = TopicPartition(result["topic"], result["partition"])
        consumer.assign([at])
        consumer.seek(at, result["offset"])
        async with asyncio.timeout(10):
            return await consumer.getone()
    finally:
        await consumer.stop()


async def test_a_workflow_publishes_what_its_tasks_found(stage: Stage, cluster: MockCluster) -> None:
    cluster.topic("found.v1")
    stage.code("async def profile(): return {'rows': 3, 'names': ['a', 'b']}")
    words = {
        "bootstrap": cluster.bootstrap,
        "topic": "found.v1",
        "key": "${params.day}",
        "partition": 2,
        "value": {"day": "${params.day}", "profile": "${tasks.profile.result}"},
        "headers": {"rows": "${tasks.profile.result.rows}"},
    }
    compiled = {name: Template.compile(value, VARIABLES) for name, value in words.items()}
    stage.workflow(
        task("profile", "jobs:profile"),
        Task("tell", OfKind("kafka", cast("type[Kind]", KafkaTask)), compiled, ("profile",)),
        params={"day": "date"},
    )
    async with stage.worker():
        run = await stage.start(params={"day": "2026-01-31"})
        result = await stage.result(run, "tell")
    assert (result["topic"], result["partition"]) == ("found.v1", 2)
    written = await record(cluster, result)
    assert written.key == b"2026-01-31"
    assert written.value == b'{"day":"2026-01-31","profile":{"rows":3,"names":["a","b"]}}'
    assert written.headers == (("rows", b"3"), ("eventflow-idempotency-key", f"{run}:tell".encode()))
    assert result.keys() == {"topic", "partition", "offset", "timestamp"}


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        ({"value": "text", "format": "text"}, b"k", b"text"),
        (
            {"value": base64.b64encode(bytes(range(256))).decode(), "format": "bytes", "key": None},
            None,
            bytes(range(256)),
        ),
        ({"value": None}, b"k", None),
        ({"value": [1, None], "key": 17}, b"17", b"[1,null]"),
    ],
)
async def test_formats_keys_and_tombstones(
    cluster: MockCluster, kind: KafkaTask, words: dict[str, Any], key: bytes | None, value: bytes | None
) -> None:
    cluster.topic("formats.v1")
    written = await record(cluster, await kind.run(config(cluster, topic="formats.v1", **words), context()))
    assert (written.key, written.value) == (key, value)


async def test_one_producer_serves_a_cluster_and_is_replaced_once_it_is_broken(
    cluster: MockCluster, kind: KafkaTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.topic("reuse.v1")
    opened: list[publish.Publisher] = []
    whole = publish.Publisher.open

    async def counted(access: Any) -> publish.Publisher:
        opened.append(await whole(access))
        return opened[-1]

    monkeypatch.setattr(publish.Publisher, "open", counted)
    words = config(cluster, topic="reuse.v1", value=1)
    async with asyncio.TaskGroup() as group:
        for _ in range(30):
            group.create_task(kind.run(words, context()))
    assert len(opened) == 1
    opened[0].broken = True
    await kind.run(words, context())
    await kind.run(words, context())
    assert len(opened) == 2


async def test_idle_producers_of_many_clusters_are_closed(
    cluster: MockCluster, kind: KafkaTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.topic("many.v1")
    monkeypatch.setattr(kafka_task, "MOST_KEPT", 2)
    for number in range(5):
        words = config(cluster, topic="many.v1", value=1, bootstrap=[cluster.bootstrap] * (number + 1))
        await kind.run(words, context())
    assert len(kind._kept) == 2


async def test_no_broker_is_a_failure_of_the_task_and_no_log_names_an_address(
    kind: KafkaTask, caplog: pytest.LogCaptureFixture
) -> None:
    words = PublishConfig.model_validate({"bootstrap": "127.0.0.1:1", "topic": "t", "value": 1})
    with pytest.raises(TaskError, match=r"^kafka: no broker answers$"):
        await kind.run(words, context())
    assert "127.0.0.1" not in caplog.text
    # What somebody else's client says is heard as before.
    with pytest.raises(KafkaConnectionError):
        await AIOKafkaClient(bootstrap_servers="127.0.0.1:1").bootstrap()
    assert "127.0.0.1" in caplog.text


async def test_a_partition_that_is_not_there_is_named(cluster: MockCluster, kind: KafkaTask) -> None:
    cluster.topic("four.v1")
    with pytest.raises(TaskError, match=r"topic 'four.v1' has 4 partitions, and none is 9"):
        await kind.run(config(cluster, topic="four.v1", value=1, partition=9), context())


async def test_the_library_that_is_missing_is_named_with_its_extra(
    cluster: MockCluster, kind: KafkaTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "connectors.kafka.publish", None)
    with pytest.raises(TaskError, match=r"install eventflow\[kafka\]"):
        await kind.run(config(cluster, topic="t", value=1), context())
