"""A broker that dies or hangs under a reading: another leads, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from eventflow.event import Event
from eventflow.testing.reading import Core, Reading
from tests.kafka.broker import Cluster
from tests.kafka.conftest import described, numbered, send, source


@pytest.mark.parametrize("hangs", [False, True], ids=["killed", "stopped"])
async def test_a_leader_that_goes_is_followed_within_one_reading(
    three: Cluster, topic: str, tmp_path: Path, hangs: bool
) -> None:
    """Neither the generator ends nor does the position move over anything."""
    core = Core(tmp_path)
    await three.create_topic(topic)
    await send(three, topic, numbered(0, 99))
    async with Reading(source(core, three, topic), core, deadline=40) as records:
        await records.take(100)
        leader = (await described(three, topic)).leader
        if hangs:
            three.freeze(leader)
        else:
            three.kill(leader)
        try:
            sending = asyncio.ensure_future(send(three, topic, numbered(100, 199)))
            await records.take(100)
            await sending
        finally:
            if hangs:
                three.thaw(leader)
            else:
                await three.restart(leader)
        await send(three, topic, numbered(200, 249))
        await records.take(50)
    assert [record.data["n"] for record in core.taken if isinstance(record, Event)] == list(range(250))
