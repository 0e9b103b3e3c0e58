"""What must never be jumped over: retention, topics that are made again, logs that are cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eventflow.errors import SourceStopped, SourceUnavailable, UsageError
from eventflow.event import Event
from eventflow.source import Batch
from eventflow.store.pool import Pool
from eventflow.testing.reading import Core
from tests.acceptance.serving import Place, fetch, until
from tests.kafka.broker import Broker, Cluster
from tests.kafka.conftest import described, numbered, reading, send, source


async def taken(core: Core, broker: Broker, topic: str, count: int) -> None:
    """Take in `count` records, and stop reading."""
    async with reading(core, broker, topic) as records:
        await records.take(count)


async def stopped(core: Core, broker: Broker, topic: str) -> SourceStopped:
    """How reading partition 0 on ends."""
    batches = source(core, broker, topic).batches(f"{topic}/0", core.cursor(f"{topic}/0"))
    with pytest.raises(SourceStopped) as stop:
        await anext(batches)
    await batches.aclose()
    return stop.value


async def resumed(core: Core, broker: Broker, topic: str, where: str) -> object:
    """`sources resume --from`: what is written down as missing."""
    partition = f"{topic}/0"
    found = await source(core, broker, topic).resume_at(partition, core.cursor(partition), where)
    core.commit(partition, Batch([], found.cursor))
    return found.missing


def numbers(core: Core) -> list[int]:
    return [record.data["n"] for record in core.taken if isinstance(record, Event)]


async def test_records_that_retention_took_stop_the_source_with_their_range(
    kafka: Broker, topic: str, tmp_path: Path
) -> None:
    core = Core(tmp_path)
    await kafka.create_topic(topic)
    await send(kafka, topic, numbered(0, 9))
    await taken(core, kafka, topic, 10)
    await send(kafka, topic, numbered(10, 29))
    await kafka.delete_records(topic, {0: 20})

    for _ in range(2):  # and after a restart the same
        stop = await stopped(core, kafka, topic)
        missing = {"topic": topic, "partition": 0, "reason": "retention", "from": 10, "to": 19}
        assert stop.missing == missing
        assert "records 10 to 19 are gone" in str(stop)
        assert "eventflow sources resume orders --from earliest|latest|OFFSET" in str(stop)
    assert numbers(core) == list(range(10))

    for nonsense in ("19", "31", "-1", "first", ""):
        with pytest.raises(UsageError, match="earliest \\(20\\), latest \\(30\\) or an offset from 20 to 30"):
            await resumed(core, kafka, topic, nonsense)
    assert await resumed(core, kafka, topic, "25") == {"topic": topic, "partition": 0, "from": 10, "to": 24}
    await taken(core, kafka, topic, 5)
    assert numbers(core) == [*range(10), *range(25, 30)]


async def test_retention_ends_a_reading_that_is_under_way(kafka: Broker, topic: str, tmp_path: Path) -> None:
    """The position falls out of the log between two answers."""
    core = Core(tmp_path)
    await kafka.create_topic(topic)
    await send(kafka, topic, numbered(0, 9))
    async with reading(core, kafka, topic) as records:
        partition, batch = await records.next()
        await send(kafka, topic, numbered(10, 19))
        await kafka.delete_records(topic, {0: 15})
        await records.commit(partition, batch)
        with pytest.raises(SourceStopped, match="records 10 to 14 are gone"):
            await records.next()


@pytest.mark.parametrize("grown", [5, 50], ids=["shorter", "grown past the position"])
async def test_another_topic_of_the_same_name_stops_the_source(
    kafka: Broker, topic: str, tmp_path: Path, grown: int
) -> None:
    core = Core(tmp_path)
    await kafka.create_topic(topic)
    await send(kafka, topic, numbered(0, 9))
    await taken(core, kafka, topic, 10)
    await kafka.delete_topic(topic)
    await kafka.create_topic(topic)
    await send(kafka, topic, numbered(100, 100 + grown - 1))

    stop = await stopped(core, kafka, topic)
    assert stop.missing == {"topic": topic, "partition": 0, "reason": "recreated", "from": 10, "to": None}
    assert "deleted and created again" in str(stop)

    missing = await resumed(core, kafka, topic, "earliest")
    assert isinstance(missing, dict)
    assert (missing["from"], missing["to"]) == (10, None)
    await taken(core, kafka, topic, grown)
    assert numbers(core) == [*range(10), *range(100, 100 + grown)]


async def test_a_topic_made_again_under_a_running_reading_is_noticed(
    kafka: Broker, topic: str, tmp_path: Path
) -> None:
    """It has grown past the position by the time of the next fetch: only its id tells."""
    core = Core(tmp_path)
    await kafka.create_topic(topic)
    await send(kafka, topic, numbered(0, 9))
    async with reading(core, kafka, topic) as records:
        partition, batch = await records.next()
        await kafka.delete_topic(topic)
        await kafka.create_topic(topic)
        await send(kafka, topic, numbered(100, 149))
        await records.commit(partition, batch)
        with pytest.raises(SourceStopped, match="deleted and created again"):
            await records.next()
    assert numbers(core) == list(range(10))


async def test_a_deleted_topic_is_waited_for(kafka: Broker, topic: str, tmp_path: Path) -> None:
    core = Core(tmp_path)
    await kafka.create_topic(topic)
    await send(kafka, topic, numbered(0, 9))
    await taken(core, kafka, topic, 10)
    await kafka.delete_topic(topic)
    orders = source(core, kafka, topic)
    batches = orders.batches(f"{topic}/0", core.cursor(f"{topic}/0"))
    with pytest.raises(SourceUnavailable, match="it is not there: deleted, or not created yet"):
        await anext(batches)
    with pytest.raises(SourceUnavailable, match=f"no such topic, or we may not see it: {topic}"):
        await orders.partitions()


@pytest.mark.parametrize("grown", [0, 30], ids=["shorter", "grown past the position"])
async def test_a_log_cut_by_an_unclean_election_stops_the_source(
    three: Cluster, topic: str, tmp_path: Path, grown: int
) -> None:
    """Its only up-to-date copy dies; the copy that was behind becomes the log, and may grow again."""
    core = Core(tmp_path)
    settings = {"unclean.leader.election.enable": "true", "min.insync.replicas": "1"}
    await three.create_topic(topic, replication=2, settings=settings)
    await send(three, topic, numbered(0, 9))
    found = await described(three, topic)
    leader, (follower,) = found.leader, set(found.replicas) - {found.leader}
    three.kill(follower)
    await send(three, topic, numbered(10, 19), acks=1)
    await taken(core, three, topic, 20)
    three.kill(leader)
    await three.restart(follower)
    try:
        if grown:
            await send(three, topic, numbered(100, 100 + grown - 1))
        stop = await stopped(core, three, topic)
    finally:
        await three.restart(leader)
    assert stop.missing == {"topic": topic, "partition": 0, "reason": "truncated", "from": 10, "to": 19}
    assert "the log was cut at 10, before the position 20" in str(stop)
    assert await resumed(core, three, topic, "10") is None, "it goes back: nothing is passed over"
    await taken(core, three, topic, grown)
    assert numbers(core) == [*range(20), *range(100, 100 + grown)]


RULES = """
sources:
  orders: {{connector: kafka, bootstrap: "{bootstrap}", topics: [{topic}], initial: earliest}}
rules:
  each: {{from: orders, emit: seen}}
"""


async def test_a_stopped_source_stays_stopped_until_a_person_lets_it_go_on(
    kafka: Broker, topic: str, tmp_path: Path, database: str, pool: Pool
) -> None:
    """Through `eventflow serve` and its commands, as it is used."""

    async def taken_in(number: int) -> None:
        async def enough() -> bool:
            rows = await fetch(pool, "SELECT count(*) AS n FROM event WHERE source = 'orders'")
            return rows[0]["n"] >= number

        await until(enough, 30, f"{number} records")

    async def listed() -> list[dict[str, Any]]:
        code, out, err = await place.command("sources", "--json")
        assert code == 0, err
        return [row for row in json.loads(out) if row["partition"] in (f"{topic}/0", f"{topic}/1")]

    async def stops() -> bool:
        return [row["state"] for row in await listed()] == ["stopped"] * 2

    await kafka.create_topic(topic, partitions=2)
    for number in (0, 1):
        await send(kafka, topic, numbered(0, 9), partition=number)
    place = Place(tmp_path / "place", database, RULES.format(bootstrap=kafka.bootstrap, topic=topic))
    async with place.serve(settings={"EVENTFLOW_LEASE": "3s"}):
        await taken_in(20)
    for number in (0, 1):
        await send(kafka, topic, numbered(10, 29), partition=number)
    await kafka.delete_records(topic, {0: 20, 1: 20})
    async with place.serve(settings={"EVENTFLOW_LEASE": "3s"}):
        await until(stops, 30, "it does not stop")
    async with place.serve(settings={"EVENTFLOW_LEASE": "3s"}):
        for row in await listed():
            assert row["state"] == "stopped", "a restart decides nothing"
            number = int(row["partition"][-1])
            assert row["missing"] == {
                "topic": topic, "partition": number, "reason": "retention", "from": 10, "to": 19,
            }  # fmt: skip
        code, _, err = await place.command("sources", "resume", "orders", "--from", "22")
        assert code == 0, err
        await taken_in(36)
    code, out, err = await place.command("sources", "gaps", "--json")
    assert code == 0, err
    gaps = sorted((gap["missing"] for gap in json.loads(out)), key=lambda missing: missing["partition"])
    assert gaps == [{"topic": topic, "partition": number, "from": 10, "to": 21} for number in (0, 1)]
    rows = await fetch(pool, "SELECT id FROM event WHERE source = 'orders'")
    assert {row["id"] for row in rows} == {
        f"{topic}/{number}/{offset}" for number in (0, 1) for offset in [*range(10), *range(22, 30)]
    }
