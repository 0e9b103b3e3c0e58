"""A million records, nodes that come and go, brokers that die: `python -m tests.kafka.million --seed 1`.

Three brokers, twelve partitions, transactions of which some are aborted; three nodes. Every two leases a node
is killed, stopped past its lease, sent away or joined by another, or a broker is killed and started again. At
the end each committed record is one event, in order per partition, and `audit` balances against the end
offsets. Exits 1 where not.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from eventflow.store.pool import Pool, connect
from eventflow.testing.postgres import DatabaseServer
from tests.acceptance.serving import Place, Served
from tests.kafka.broker import Cluster
from tests.kafka.test_exactness import EACH, PARTITIONS, RULES, Truth, check, produce, taken

LEASE_SECONDS = 3
TOPIC = "orders"


class Nodes:
    """`eventflow serve` processes on one database."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._running: list[tuple[Served, AbstractAsyncContextManager[Served]]] = []
        self._waking: set[asyncio.Task[None]] = set()

    @property
    def number(self) -> int:
        return len(self._running)

    async def join(self) -> None:
        path = None if self._running else "rules"
        serving = self._place.serve(path=path, settings={"EVENTFLOW_LEASE": f"{LEASE_SECONDS}s"})
        self._running.append((await serving.__aenter__(), serving))

    async def leave(self, number: int, *, killed: bool) -> None:
        served, serving = self._running.pop(number)
        if killed:
            await served.kill()
        else:
            await served.stop()
        await serving.__aexit__(None, None, None)

    def sleep(self, number: int) -> None:
        """Stopped until after its lease."""
        served, _ = self._running[number]
        served.signal(signal.SIGSTOP)

        async def wake() -> None:
            await asyncio.sleep(LEASE_SECONDS * 1.7)
            if served.child.returncode is None:
                served.signal(signal.SIGCONT)

        self._waking.add(asyncio.ensure_future(wake()))

    async def end(self) -> None:
        await asyncio.gather(*self._waking)
        while self._running:
            await self.leave(0, killed=False)


async def faults(choose: random.Random, nodes: Nodes, kafka: Cluster, say: Callable[[str], None]) -> None:
    """One every two leases, for ever; every fourth hits a broker."""
    number = 0
    while True:
        await asyncio.sleep(2 * LEASE_SECONDS)
        number += 1
        if number % 4 == 0:
            broker = choose.randint(1, 3)
            say(f"broker {broker} is killed")
            kafka.kill(broker)
            await asyncio.sleep(choose.uniform(0.5, 4))
            await kafka.restart(broker)
            say(f"broker {broker} is back")
            continue
        fault = choose.choice(["kill", "sleep", "leave", "join"])
        say(f"{fault} ({nodes.number} nodes)")
        victim = choose.randrange(nodes.number)
        if fault == "sleep":
            nodes.sleep(victim)
        elif fault == "join" and nodes.number < 4:
            await nodes.join()
        else:
            await nodes.leave(victim, killed=fault == "kill")
        while nodes.number < 2 or (nodes.number < 3 and choose.random() < 0.5):
            await nodes.join()


async def run(folder: Path, seed: int, records: int, seconds: float) -> None:
    """Raises where a record is missing, double or out of order."""
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {what}", flush=True)

    choose = random.Random(seed)
    async with Cluster(folder / "kafka", brokers=3) as kafka, DatabaseServer(folder / "postgres") as server:
        await kafka.create_topic(TOPIC, partitions=PARTITIONS)
        async with server.database() as url, await connect(url) as pool:
            place = Place(folder / "place", url, RULES.format(bootstrap=kafka.bootstrap, topic=TOPIC))
            nodes = Nodes(place)
            for _ in range(3):
                await nodes.join()
            say("three nodes serve")
            trouble = asyncio.ensure_future(faults(choose, nodes, kafka, say))
            try:
                transactions = int(records / EACH / 0.9)
                truth = await asyncio.to_thread(produce, kafka, TOPIC, 0, transactions, seed, 0.1)
                say(f"{_count(truth)} records are committed in {transactions} transactions")
                await _all_taken(pool, _count(truth), trouble, began + seconds)
                say("all are taken in")
            finally:
                trouble.cancel()
                await asyncio.gather(trouble, return_exceptions=True)
            for broker in (1, 2, 3):
                await kafka.ready(broker)
            await check(pool, place, TOPIC, truth)
            say("each is one event, in order; audit --deep balances")
            await nodes.end()


async def _all_taken(pool: Pool, count: int, trouble: asyncio.Future[None], deadline: float) -> None:
    while (now := await taken(pool)) < count:
        if trouble.done():
            trouble.result()
        assert time.monotonic() < deadline, f"{now} of {count} records were taken in"
        await asyncio.sleep(0.5)


def _count(truth: Truth) -> int:
    return sum(map(len, truth.values()))


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.kafka.million", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=900, help="give up after that long")
    parser.add_argument(
        "--keep", action="store_true", help="leave logs and data there, also where all is well"
    )
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="eventflow-million-"))
    try:
        asyncio.run(run(folder, asked.seed, asked.records, asked.seconds))
    except AssertionError as error:
        print(f"NOT EXACT: {error}\nlogs and data: {folder}", file=sys.stderr)
        return 1
    if not asked.keep:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
