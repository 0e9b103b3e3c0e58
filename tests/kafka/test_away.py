"""A broker that is away: said, waited for without effort, caught up with; other sources do not notice."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from eventflow.store.pool import Pool
from tests.acceptance.serving import Place, Served, fetch, until
from tests.kafka.broker import Cluster
from tests.kafka.conftest import numbered, send

RULES = """
sources:
  landing: {{connector: file, path: ../landing, initial: process}}
  orders: {{connector: kafka, bootstrap: "{bootstrap}", topics: [orders], initial: earliest}}
rules:
  seen: {{from: [landing, orders], emit: seen}}
"""


async def count(pool: Pool, source: str) -> int:
    (row,) = await fetch(pool, "SELECT count(*) AS n FROM event WHERE source = $1", source)
    return row["n"]


async def listed(place: Place, source: str) -> list[dict[str, Any]]:
    code, out, err = await place.command("sources", "--json")
    assert code == 0, err
    return [row for row in json.loads(out) if row["source"] == source]


def cpu_seconds(served: Served) -> float:
    """Of the process, from its start on."""
    fields = Path(f"/proc/{served.child.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_a_broker_that_is_away_is_waited_for(tmp_path: Path, database: str, pool: Pool) -> None:
    async def orders_taken(number: int) -> None:
        async def enough() -> bool:
            return await count(pool, "orders") >= number

        await until(enough, 60, f"{number} records")

    async def waiting() -> bool:
        return any("Connect" in (row["message"] or "") for row in await listed(place, "orders"))

    async def file_taken() -> bool:
        return await count(pool, "landing") == 1

    async with Cluster(tmp_path / "kafka") as kafka:
        await kafka.create_topic("orders", partitions=3)
        await send(kafka, "orders", numbered(0, 9))
        place = Place(tmp_path / "place", database, RULES.format(bootstrap=kafka.bootstrap))
        async with place.serve(settings={"EVENTFLOW_LEASE": "3s"}) as served:
            await orders_taken(10)
            kafka.kill()
            await until(waiting, 30, "the broker is not said to be away")
            used, started = cpu_seconds(served), time.monotonic()
            place.drop("one.txt", b"while the broker is away")
            await until(file_taken, 10, "the file")
            await asyncio.sleep(max(0.0, 5 - (time.monotonic() - started)))
            share = (cpu_seconds(served) - used) / (time.monotonic() - started)
            assert share < 0.1, f"{share:.0%} of a core while there is nothing to do"
            await kafka.restart()
            await send(kafka, "orders", numbered(10, 19))
            await orders_taken(20)
        rows = await fetch(pool, "SELECT id FROM event WHERE source = 'orders'")
        assert len({row["id"] for row in rows}) == len(rows) == 20
        lines = [line for line in served.log.read_text().splitlines() if "away" in line or "Connect" in line]
        assert len(lines) < 60, "a flood of log lines"
        assert not [line for line in lines if "Traceback" in line]
