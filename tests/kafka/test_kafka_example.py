"""The example in rules/ as its users run it: `eventflow serve` beside a real broker."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from eventflow.event import decode_json
from eventflow.store.pool import Pool
from tests.acceptance.serving import Place, fetch, run_counts, until
from tests.kafka.broker import Broker
from tests.kafka.conftest import send

EXAMPLE = Path(__file__).parents[2] / "rules"


def payment(number: int, cents: int) -> bytes:
    return json.dumps({"payment": f"p-{number}", "account": "a-7", "cents": cents}).encode()


async def produce(kafka: Broker, topic: str, number: int, value: bytes | None) -> None:
    await send(kafka, topic, [value], key=b"p-%d" % number, partition=number % 3)


async def read_all(kafka: Broker, topic: str) -> list[tuple[bytes | None, Any]]:
    """Key and JSON of every record of partition 0."""
    ends = await kafka.end_offsets(topic)
    async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, enable_auto_commit=False) as consumer:
        at = TopicPartition(topic, 0)
        consumer.assign([at])
        consumer.seek(at, 0)
        found = [await consumer.getone() for _ in range(ends[0])]
    return [(record.key, json.loads(record.value or b"null")) for record in found]


def ended(pool: Pool, number: int) -> Callable[[], Coroutine[Any, Any, bool]]:
    async def look() -> bool:
        counts = await run_counts(pool)
        return sum(counts.values()) >= number and not counts.get("running")

    return look


async def mend(place: Place, pool: Pool, value: bytes) -> None:
    """Give the only dead letter these bytes and send it in again, as a person does."""
    (letter,) = await fetch(pool, "SELECT id, stage, raw FROM dead_letter")
    assert (letter["stage"], letter["raw"]) == ("decode", b'{"payment": "p-51", "cents": 1')
    mended = place.folder / "mended.json"
    mended.write_bytes(value)
    for words in (("edit", "--set-file", str(mended)), ("replay",)):
        code, out, err = await place.command("dlq", words[0], str(letter["id"]), *words[1:])
        assert code == 0, out + err


async def test_payments_are_booked_reviewed_and_taken_back_each_once(
    kafka: Broker, topic: str, tmp_path: Path, database: str, pool: Pool
) -> None:
    payments, bookings = topic, f"{topic}.bookings"
    await kafka.create_topic(payments, 3)
    await kafka.create_topic(bookings)
    text = (EXAMPLE / "kafka.yaml").read_text().replace("payments.v1", payments)
    place = Place(tmp_path / "place", database, text.replace("bookings.v1", bookings))
    shutil.copy(EXAMPLE / "kafka_tasks.py", place.folder / "rules")
    shutil.copy(EXAMPLE / "kafka.test.yaml", place.folder / "rules" / "rules.test.yaml")
    code, out, err = await place.command("test", "rules")
    assert code == 0, out + err
    settings = {"KAFKA": kafka.bootstrap, "EVENTFLOW_LEASE": "2s"}
    for number in range(20):
        await produce(kafka, payments, number, payment(number, 1250))
    async with place.serve(settings=settings) as served:
        await until(ended(pool, 20), what="twenty bookings")
        await served.kill()
    await produce(kafka, payments, 3, payment(3, 1250))  # written twice: the same payment
    await produce(kafka, payments, 50, payment(50, 2_000_000))
    await produce(kafka, payments, 3, None)
    await produce(kafka, payments, 51, b'{"payment": "p-51", "cents": 1')
    async with place.serve(settings=settings) as served:
        await until(ended(pool, 22), what="one review and one reversal")

        async def all_taken() -> bool:
            (row,) = await fetch(
                pool, "SELECT sum(taken)::int AS n FROM source_partition WHERE source = 'payments'"
            )
            return row["n"] == 23

        await until(all_taken)
        await mend(place, pool, payment(51, 1250))
        await until(ended(pool, 23), what="the booking of the mended record")
        assert await served.stop() == 0
    assert await run_counts(pool) == {"succeeded": 23}
    rows = await fetch(pool, "SELECT workflow, params FROM run WHERE workflow <> 'book-payment' ORDER BY 1")
    assert [(row["workflow"], decode_json(row["params"])) for row in rows] == [
        ("review-payment", {"payment": "p-50", "cents": 2_000_000}),
        ("take-back", {"payment": "p-3"}),
    ]
    booked = await read_all(kafka, bookings)
    assert sorted({key for key, _ in booked if key}) == sorted(
        b"p-%d" % number for number in (*range(20), 51)
    )
    assert all(
        value == {"booking": f"b-{value['payment']}", "payment": value["payment"], "account": "a-7",
                  "euros": "12.50"}
        for _, value in booked
    )  # fmt: skip
