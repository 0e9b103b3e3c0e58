"""The group's offsets where some of its topics are gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError

from connectors.kafka.access import Access
from connectors.kafka.cluster import Cluster
from connectors.kafka.group import GroupOffsets
from tests.kafka.broker import Broker
from tests.kafka.conftest import until


async def test_a_topic_that_is_gone_holds_up_no_other(
    kafka: Broker, topic: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there, gone = (f"{topic}.there", 0), (f"{topic}.gone", 0)
    await kafka.create_topic(there[0])

    async def published(offset: int) -> bool:
        async with kafka.admin() as admin:
            try:
                found = (await admin.list_consumer_group_offsets(topic)).get(TopicPartition(*there))
            except GroupCoordinatorNotAvailableError:  # the first group of this broker
                return False
        return found is not None and found.offset == offset

    access = Access(kafka.bootstrap.split(","), {"security_protocol": "PLAINTEXT"})
    cluster = Cluster("orders", access, None)
    group = GroupOffsets("orders", topic, cluster)
    try:
        group.publish(there, 4)
        await until(lambda: published(4), "the group has no coordinator")
        for offset in (5, 6, 7):
            group.publish(gone, offset)
            group.publish(there, offset)
            async with asyncio.timeout(5):  # less than the pause after a failure
                while not await published(offset):
                    await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            while vars(group)["_waiting"]:  # what is gone is not asked for again and again
                await asyncio.sleep(0.05)
    finally:
        await group.close()
        await cluster.close()
    said = [line for line in capsys.readouterr().out.splitlines() if "not_published" in line]
    assert len(said) == 1, said
    assert gone[0] in said[0]
