"""`eventflow serve` on a real broker: dead letters into one topic, news of runs into another."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from eventflow.mirror import AT_ONCE
from eventflow.store.pool import Pool
from tests.acceptance.serving import Place, until
from tests.kafka.broker import Broker
from tests.kafka.conftest import send
from tests.kafka.test_publish import records

RULES = """
sources:
  payments:
    connector: kafka
    bootstrap: ${{secret.TEST_KAFKA}}
    topics: [{topic}]
    initial: earliest
    dead_letter_topic: {topic}.dead
workflows:
  book:
    params: {{n: int}}
    tasks:
      refuse: {{shell: ["sh", "-c", "test ${{params.n}} -lt 1000"]}}
      tell:
        kafka:
          bootstrap: ${{secret.TEST_KAFKA}}
          topic: {topic}.booked
          key: "payment-${{params.n}}"
          value: {{n: "${{params.n}}", run: "${{run.id}}"}}
        after: refuse
rules:
  paid:
    from: payments
    match: {{type: kafka.record, data.n: {{gte: 0}}}}
    run: book
    with: {{n: "${{event.data.n}}"}}
"""


async def rows(pool: Pool) -> dict[str, Any]:
    """Dead letters by id, as Postgres has them."""
    async with pool.acquire() as conn:
        found = await conn.fetch("SELECT id, stage, raw, rule, mirrored, state FROM dead_letter")
    return {str(row["id"]): row for row in found}


async def prepared(kafka: Broker, topic: str, database: str, folder: Path) -> tuple[Place, dict[str, str]]:
    for name in (topic, f"{topic}.dead", f"{topic}.booked"):
        await kafka.create_topic(name)
    settings = {"TEST_KAFKA": kafka.bootstrap, "EVENTFLOW_LEASE": "3s"}
    return Place(folder / "place", database, RULES.format(topic=topic)), settings


async def test_payments_are_booked_once_and_what_fails_is_in_the_topic_and_in_postgres(
    kafka: Broker, topic: str, database: str, pool: Pool, tmp_path: Path
) -> None:
    place, settings = await prepared(kafka, topic, database, tmp_path)
    await send(
        kafka, topic, [b'{"n": 1}', b"\xff no JSON", b'{"n": 2}', b'{"n": 1000}', None], key=b"k\xc3\xbc"
    )
    async with place.serve(settings=settings):

        async def mirrored() -> bool:
            letters = await rows(pool)
            return len(letters) == 2 and all(row["mirrored"] for row in letters.values())

        async def booked() -> bool:
            return (await kafka.end_offsets(f"{topic}.booked"))[0] == 2

        await until(mirrored)
        await until(booked)
    letters = await rows(pool)
    dead = {dict(one.headers)["eventflow-id"].decode(): one for one in await records(kafka, f"{topic}.dead")}
    assert dead.keys() == letters.keys()
    for name, row in letters.items():
        headers = dict(dead[name].headers)
        assert row["state"] == "open"
        assert dead[name].value == row["raw"]
        assert dead[name].key == b"k\xc3\xbc"
        assert headers["eventflow-stage"].decode() == row["stage"]
        assert headers["eventflow-source"] == b"payments"
    stages = {row["stage"]: (dead[name].value, dict(dead[name].headers)) for name, row in letters.items()}
    assert stages["decode"][0] == b"\xff no JSON"
    assert stages["run"][0] == b'{"n": 1000}'
    assert b'"offset":1' in stages["decode"][1]["eventflow-position"]
    assert b'"offset":3' in stages["run"][1]["eventflow-position"]
    assert stages["run"][1]["eventflow-rule"] == b"paid"
    told = await records(kafka, f"{topic}.booked")
    assert {one.key for one in told} == {b"payment-1", b"payment-2"}
    assert not [line for line in place.folder.glob("*.log") if kafka.bootstrap in line.read_text()]


async def test_no_letter_is_missing_from_the_topic_after_kill_9(
    kafka: Broker, topic: str, database: str, pool: Pool, tmp_path: Path
) -> None:
    place, settings = await prepared(kafka, topic, database, tmp_path)
    killed = 0
    for lot in range(3):
        await send(kafka, topic, [b"broken %d %d" % (lot, number) for number in range(400)])
        async with place.serve(settings=settings) as served:

            async def some_are_copied(more_than: int = killed) -> bool:
                return (await kafka.end_offsets(f"{topic}.dead"))[0] > more_than

            await until(some_are_copied)
            await served.kill()
        killed = (await kafka.end_offsets(f"{topic}.dead"))[0]

    async def all_are_copied() -> bool:
        letters = await rows(pool)
        return len(letters) == 1200 and all(row["mirrored"] for row in letters.values())

    async with place.serve(settings=settings):
        await until(all_are_copied)
    copies = Counter(
        dict(one.headers)["eventflow-id"].decode() for one in await records(kafka, f"{topic}.dead")
    )
    assert copies.keys() == (await rows(pool)).keys()
    assert copies.total() <= 1200 + 3 * AT_ONCE  # the lot that was in hand is repeated, and no more


async def test_copies_that_the_topic_refuses_are_left_out_and_those_around_them_written(
    kafka: Broker, topic: str, database: str, pool: Pool, tmp_path: Path
) -> None:
    """Of a lot whose large ones leave holes in the producer's sequence, which real brokers notice."""
    place, settings = await prepared(kafka, topic, database, tmp_path)
    await kafka.delete_topic(f"{topic}.dead")
    await kafka.create_topic(f"{topic}.dead", settings={"max.message.bytes": "2000"})
    values = [b"broken %d %s" % (number, b"x" * 3000 * (number % 7 == 3)) for number in range(30)]
    await send(kafka, topic, [*values])
    async with place.serve(settings=settings) as served:

        async def noted() -> bool:
            letters = await rows(pool)
            return len(letters) == 30 and all(row["mirrored"] for row in letters.values())

        await until(noted)
        log = served.log.read_text()
    assert log.count("letter_not_mirrored") == 4
    copies = await records(kafka, f"{topic}.dead")
    assert sorted(one.value or b"" for one in copies) == sorted(
        value for value in values if len(value) < 2000
    )
