"""Copies of dead letters: which are made, what a failure in the middle leaves, and whom it harms."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from connectors.kafka import KafkaSource
from connectors.kafka.config import KafkaConfig
from connectors.kafka.publish import NotPublished, Publisher
from eventflow import mirror
from eventflow.errors import SourceUnavailable
from eventflow.event import encode_json, new_uid
from eventflow.mirror import Mirror, mirror_some
from eventflow.offers import DeadLetter
from eventflow.store import dead_letters
from eventflow.store.pool import Pool
from eventflow.testing.reading import Core
from tests.kafka_mock import MockCluster

DEADLINE = 20.0
START = datetime(2026, 1, 1, tzinfo=UTC)

INSERT = """
INSERT INTO dead_letter (id, stage, reason, source, position, rule, raw, attributes, created, state)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""


async def bury(pool: Pool, raw: bytes = b"{", source: str = "payments", number: int = 0, **more: Any) -> UUID:
    letter_id = new_uid()
    given: dict[str, Any] = {"stage": "decode", "reason": "no JSON", "position": None, "rule": None, **more}
    position = None if given["position"] is None else encode_json(given["position"])
    attributes = encode_json({"meta": given["meta"]}) if "meta" in given else None
    async with pool.acquire() as conn:
        await conn.execute(
            INSERT, letter_id, given["stage"], given["reason"], source, position, given["rule"], raw,
            attributes, START + timedelta(seconds=number), given.get("state", "open"),
        )  # fmt: skip
    return letter_id


async def unmirrored(pool: Pool) -> set[UUID]:
    async with pool.acquire() as conn:
        return {row["id"] for row in await conn.fetch("SELECT id FROM dead_letter WHERE mirrored IS NULL")}


class Other:
    """A source that mirrors into a list."""

    mirrors = True

    def __init__(self) -> None:
        self.written: list[DeadLetter] = []
        self.asked = 0
        self.refuses: Mapping[UUID, str] = {}
        self.fails: Callable[[], BaseException | None] = lambda: None

    async def mirror(self, letters: Sequence[DeadLetter]) -> Mapping[UUID, str]:
        self.asked += 1
        self.written += letters
        if (error := self.fails()) is not None:
            raise error
        return self.refuses

    @property
    def ids(self) -> list[UUID]:
        return [letter.id for letter in self.written]


@asynccontextmanager
async def mirroring(pool: Pool, **sources: Any) -> AsyncIterator[None]:
    """The service's step, over these sources."""
    readings = {name: SimpleNamespace(source=source) for name, source in sources.items()}
    running = asyncio.create_task(Mirror(pool, cast("Any", readings)).run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not holds():
            await asyncio.sleep(0.01)


async def test_every_letter_of_the_source_is_mirrored_once_in_order_whatever_its_stage_and_state(
    pool: Pool,
) -> None:
    stages = {"decode": "open", "match": "open", "start": "replayed", "task": "discarded", "run": "open"}
    mine = [
        await bury(pool, number=number, stage=stage, state=state)
        for number, (stage, state) in enumerate(stages.items())
    ]
    other = await bury(pool, source="other")
    source = Other()
    assert await mirror_some(pool, "payments", source) == 5
    assert await mirror_some(pool, "payments", source) == 0
    assert source.ids == mine
    assert await unmirrored(pool) == {other}


async def test_a_failure_leaves_the_whole_lot_for_the_next_try(pool: Pool) -> None:
    mine = [await bury(pool, number=number) for number in range(3)]
    source = Other()
    source.fails = lambda: SourceUnavailable("away")
    with pytest.raises(SourceUnavailable):
        await mirror_some(pool, "payments", source)
    assert await unmirrored(pool) == set(mine)
    source.fails = lambda: None
    assert await mirror_some(pool, "payments", source) == 3
    assert source.ids == mine * 2


async def test_one_that_does_not_answer_is_given_up_in_time_and_its_letters_are_free_again(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "MIRROR_SECONDS", 0.05)
    letter = await bury(pool)

    class Silent(Other):
        async def mirror(self, letters: Sequence[DeadLetter]) -> Mapping[UUID, str]:
            await asyncio.sleep(1000)
            return {}

    with pytest.raises(SourceUnavailable, match=r"were not copied within 0.05 s"):
        await mirror_some(pool, "payments", Silent())
    async with pool.acquire() as conn:
        await dead_letters.discard(conn, [letter])
    assert await unmirrored(pool) == {letter}


async def test_what_the_other_side_never_takes_does_not_hold_up_the_others(pool: Pool) -> None:
    mine = [await bury(pool, number=number) for number in range(3)]
    source = Other()
    source.refuses = {mine[1]: "too large"}
    assert await mirror_some(pool, "payments", source) == 3
    assert await unmirrored(pool) == set()


async def test_while_letters_are_copied_others_pass_them_over_and_a_person_does_not_wait(pool: Pool) -> None:
    letter, second = await bury(pool), Other()
    idle = cast("Any", pool).get_idle_size()

    class First(Other):
        async def mirror(self, letters: Sequence[DeadLetter]) -> Mapping[UUID, str]:
            assert await mirror_some(pool, "payments", second) == 0
            assert cast("Any", pool).get_idle_size() == idle, "no connection waits for the other side"
            async with asyncio.timeout(DEADLINE), pool.acquire() as conn:
                await dead_letters.discard(conn, [letter])
            return await super().mirror(letters)

    first = First()
    assert await mirror_some(pool, "payments", first) == 1
    assert (first.ids, second.ids) == ([letter], [])
    assert await unmirrored(pool) == set()


async def test_letters_of_a_node_that_died_are_copied_by_another_once_its_time_is_up(pool: Pool) -> None:
    letter, other = await bury(pool), Other()
    async with pool.acquire() as conn:
        assert len(await dead_letters.to_mirror(conn, "payments", 10, mirror.IN_HAND)) == 1
        assert await mirror_some(pool, "payments", other) == 0
        await conn.execute("UPDATE dead_letter SET mirroring = now() - '1 ms'::interval")
    assert await mirror_some(pool, "payments", other) == 1
    assert other.ids == [letter]


async def test_a_source_that_cannot_write_is_asked_less_and_less_and_others_go_on(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "POLL_SECONDS", 0.01)
    away, well, silent = Other(), Other(), Other()
    away.fails = lambda: SourceUnavailable("away")
    silent.mirrors = False
    for name in ("away", "silent"):
        await bury(pool, source=name)
    async with mirroring(pool, away=away, well=well, silent=silent):
        for number in range(20):
            last = await bury(pool, source="well", number=number)
            await until(lambda: last in well.ids)  # noqa: B023
        assert away.asked <= 2
        assert silent.asked == 0
        away.fails = lambda: None
        await until(lambda: away.asked >= 2)
    assert len(well.written) == 20


# ---------------------------------------------------------------------- Kafka


@pytest.fixture(scope="module")
def cluster() -> Iterator[MockCluster]:
    with MockCluster(partitions=1) as made:
        yield made


def payments(cluster: MockCluster, folder: Path, topic: str | None, **words: Any) -> KafkaSource:
    config = KafkaConfig.model_validate({
        "bootstrap": cluster.bootstrap, "topics": ["payments.v1"], "initial": "earliest",
        "dead_letter_topic": topic, **words,
    })  # fmt: skip
    return KafkaSource("payments", config, Core(folder).context())


async def copies(cluster: MockCluster, topic: str) -> list[ConsumerRecord[bytes, bytes]]:
    """All records of the topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=cluster.bootstrap)
    await consumer.start()
    found: list[ConsumerRecord[bytes, bytes]] = []
    try:
        for partition in range(cluster.topic(topic)):
            at = TopicPartition(topic, partition)
            consumer.assign([at])
            consumer.seek(at, 0)
            end = (await consumer.end_offsets([at]))[at]
            async with asyncio.timeout(DEADLINE):
                while await consumer.position(at) < end:
                    found.append(await consumer.getone())
    finally:
        await consumer.stop()
    return sorted(found, key=lambda one: one.headers[0])


async def test_the_copy_is_the_record_as_it_arrived_and_says_what_became_of_it(
    pool: Pool, cluster: MockCluster, tmp_path: Path
) -> None:
    where = {"topic": "payments.v1", "partition": 3, "offset": 17}
    binary = bytes(range(256))
    broken = await bury(
        pool, binary, position=where, reason="kein JSON: ü", meta={**where, "key": {"base64": "AP8="}}
    )
    event = await bury(
        pool, b'{"n":1}', number=1, stage="run", rule="pay", meta={**where, "key": "k", "headers": {}}
    )
    gone = await bury(pool, b"", number=2, stage="match", meta={**where, "key": "k", "tombstone": True})
    keyless = await bury(pool, b"", number=3, meta={**where, "key": None, "tombstone": True})
    source = payments(cluster, tmp_path, "payments.dead")
    cluster.topic("payments.dead")
    assert await mirror_some(pool, "payments", source) == 4

    found = {one.headers[0][1].decode(): one for one in await copies(cluster, "payments.dead")}
    assert found.keys() == {str(one) for one in (broken, event, gone, keyless)}
    one = found[str(broken)]
    assert (one.key, one.value) == (b"\x00\xff", binary)
    assert dict(one.headers) == {
        "eventflow-id": str(broken).encode(), "eventflow-stage": b"decode",
        "eventflow-reason": "kein JSON: ü".encode(),
        "eventflow-source": b"payments", "eventflow-position": encode_json(where),
    }  # fmt: skip
    one = found[str(event)]
    assert (one.key, one.value) == (b"k", b'{"n":1}')
    assert dict(one.headers)["eventflow-rule"] == b"pay"
    assert dict(one.headers)["eventflow-position"] == encode_json(where)
    assert (found[str(gone)].key, found[str(gone)].value) == (b"k", None)
    assert (found[str(keyless)].key, found[str(keyless)].value) == (None, b"")


async def test_a_copy_that_the_broker_refuses_is_left_out_and_the_rest_is_written(
    pool: Pool, cluster: MockCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.topic("refused.dead")
    for number in range(6):
        await bury(pool, b"large" if number == 2 else b"small", number=number)
    sent, tripped = Publisher.send, list[Publisher]()

    async def send(self: Publisher, record: Any) -> Any:
        """As a real broker: what is too large leaves a hole in the producer's sequence."""
        if record.value == b"large":
            tripped.append(self)
            self.broken = True
            raise NotPublished("too large", refused=True)
        if self in tripped:
            raise NotPublished("out of order")
        return await sent(self, record)

    monkeypatch.setattr(Publisher, "send", send)
    assert await mirror_some(pool, "payments", payments(cluster, tmp_path, "refused.dead")) == 6
    assert [one.value for one in await copies(cluster, "refused.dead")] == [b"small"] * 5
    assert await unmirrored(pool) == set()


async def test_a_cluster_that_is_away_leaves_the_letters_unmirrored(
    pool: Pool, cluster: MockCluster, tmp_path: Path
) -> None:
    letter = await bury(pool)
    source = payments(cluster, tmp_path, "payments.dead", bootstrap="127.0.0.1:1")
    with pytest.raises(SourceUnavailable, match=r"source 'payments': dead_letter_topic: no broker answers"):
        await mirror_some(pool, "payments", source)
    assert await unmirrored(pool) == {letter}


def test_a_source_without_the_word_does_not_mirror(cluster: MockCluster, tmp_path: Path) -> None:
    assert not payments(cluster, tmp_path, None).mirrors
    assert payments(cluster, tmp_path, "payments.dead").mirrors
