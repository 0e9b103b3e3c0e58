"""The kill run: start everything, send and kill for a while, let it come to rest, judge."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos import observe, truth
from tests.chaos.faults import Fault, faults
from tests.chaos.generator import Load
from tests.chaos.inflict import Inflictor
from tests.chaos.link import Link
from tests.chaos.model import Expected, expect
from tests.chaos.mutants import REPOSITORY, plant
from tests.chaos.observe import Database, Watch
from tests.chaos.oracle import Violation, given_up, judge
from tests.chaos.processes import CannotRun, Node, Postgres, command_line, eventflow, kill
from tests.chaos.seen import Observed
from tests.chaos.sender import SECRET, Sender
from tests.chaos.shop import Shop
from tests.chaos.sink import Sink
from tests.chaos.topic import Topic

LEASE: Final = 3.0
"""Seconds; EVENTFLOW_LEASE of both nodes."""
DEADLINE: Final = 60.0
"""Seconds from the last fault to the end of the last run."""
REST: Final = LEASE + 2.0
"""Seconds during which nothing may change after the last run has ended: late doubles show here."""


@dataclass(slots=True)
class Verdict:
    """How a run ended. `recovery` is in seconds from the last fault, None where the time was up."""

    violations: list[Violation]
    inflicted: list[Fault]
    expected: Expected
    seen: Observed
    recovery: float | None
    sent: int


class KillRun:
    """One run in one work folder. `mutant` names a planted bug."""

    def __init__(self, seed: int, seconds: float, mutant: str | None, folder: Path) -> None:
        self._seed, self._seconds, self._folder = seed, seconds, folder
        self._postgres = Postgres(folder)
        self._database = Database(self._postgres.url)
        self._topic = Topic(seed, folder)
        self._shop = Shop(seed, self._postgres.url)
        self._environment = self._settings(mutant)
        self._sink = Sink(folder / "sink.jsonl")
        ports = _free_ports(2)
        self._sender = Sender(seed, Load(), folder, ports, self._sink, self._topic, self._shop)
        self._links = [Link(self._postgres.socket) for _ in ports]
        self._nodes = [
            Node(number, port, folder, self._environment, link)
            for number, (port, link) in enumerate(zip(ports, self._links, strict=True))
        ]
        self._inflictor = Inflictor(
            seed, self._nodes, self._postgres, self._database, self._sender, self._topic, self._apply
        )
        self._watch = Watch()
        self._visits = 0

    def _settings(self, mutant: str | None) -> Mapping[str, str]:
        code = [str(plant(mutant, self._folder))] if mutant else []
        path = [*code, str(REPOSITORY / "tests" / "contract" / "numbered")]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EVENTFLOW_")}
        return {
            **inherited,
            "PYTHONPATH": os.pathsep.join(path),
            "EVENTFLOW_DATABASE_URL": self._postgres.url,
            "EVENTFLOW_DATA": str(self._folder / "data"),
            "EVENTFLOW_LEASE": f"{LEASE:.0f}s",
            "EVENTFLOW_GRACE": "10s",
            "CHAOS_SINK": str(self._folder / "sink.jsonl"),
            "CHAOS_SECRET": SECRET,
            "CHAOS_KAFKA": self._topic.bootstrap,
            "CHAOS_SHOP": self._shop.url,
        }

    async def run(self) -> Verdict:
        """The whole of it; whatever happens, no process is left."""
        try:
            await self._start()
            async with asyncio.TaskGroup() as group:
                looking = [group.create_task(loop()) for loop in (self._follow, self._look, self._progress)]
                sending = group.create_task(self._sender.run())
                plan = faults(self._seed, self._seconds, LEASE)
                last = await self._inflictor.run(plan, self._seconds)
                self._sender.stop()
                await asyncio.wait([sending], timeout=max(1.0, last + DEADLINE - time.monotonic()))
                sending.cancel()
                await self._read_back()
                recovery = await self._come_to_rest(last)
                for task in looking:
                    task.cancel()
            return await self._judge(recovery)
        finally:
            await self._clean_up()

    async def _start(self) -> None:
        shutil.copytree(Path(__file__).parent / "rules", self._folder / "rules")
        self._postgres.create()
        self._postgres.start()
        await self._postgres.ready()
        await asyncio.gather(self._shop.create(), self._topic.start())
        await _must(self._environment, "db", "migrate")
        await _must(self._environment, "apply", str(self._folder / "rules"))
        await _must(self._environment, "sources", "setup", "rows", "--run")
        for node in self._nodes:
            await node.link.start()
            node.start()
        deadline = time.monotonic() + 60
        while not all(node.ready_since for node in self._nodes):
            if time.monotonic() > deadline or not all(node.alive for node in self._nodes):
                raise CannotRun(f"eventflow serve does not get ready; see {self._folder}/node-*.log")
            await asyncio.sleep(0.1)
            await asyncio.gather(*(node.look() for node in self._nodes))

    async def _apply(self) -> tuple[int, str]:
        """Apply the same rules as a new revision."""
        with (self._folder / "rules" / "chaos.yaml").open("a") as file:
            file.write("# applied once more\n")
        return await eventflow(self._environment, "apply", str(self._folder / "rules"))

    # ------------------------------------------------------------------ loops beside the load

    async def _follow(self) -> None:
        while True:
            self._sink.follow()
            await asyncio.sleep(0.1)

    async def _look(self) -> None:
        """Who is ready, who died by himself, what went back."""
        while True:
            await asyncio.gather(*(node.look() for node in self._nodes))
            self._inflictor.restart_fallen()
            await self._database.ask(self._watch.look)
            await asyncio.sleep(0.3)

    async def _progress(self) -> None:
        start = time.monotonic()
        while True:
            await asyncio.sleep(5)
            work = await self._database.ask(observe.open_work)
            runs = f"{work[1]} runs ended, {work[0]} open" if work else "Postgres is away"
            print(
                f"{time.monotonic() - start:5.0f}s  {len(self._sender.truth.entries)} sent, {runs}, "
                f"{len(self._inflictor.inflicted)} faults",
                flush=True,
            )

    # ------------------------------------------------------------------ afterwards

    async def _read_back(self) -> None:
        """What the systems with a truth of their own hold, now that nobody sends."""
        for entry in (*await self._topic.read(), *await self._shop.history()):
            self._sender.truth.write(entry)
        self._visits = await self._shop.visits()

    async def _come_to_rest(self, last: float) -> float | None:
        """Until everything expected has ended and stays so; the seconds it took, None where it did not."""
        expected = expect(self._sender.truth.entries)
        while time.monotonic() < last + DEADLINE:
            work = await self._database.ask(observe.open_work)
            if work and work[0] == 0 and work[2] == 0 and await self._complete(expected):
                recovery = time.monotonic() - last
                await asyncio.sleep(REST)
                return recovery
            await asyncio.sleep(0.25)
        return None

    async def _complete(self, expected: Expected) -> bool:
        seen = Observed(visits=self._visits)
        await self._database.ask(lambda session: observe.read_database(session, seen, expected))
        return observe.complete(expected, seen)

    async def _judge(self, recovery: float | None) -> Verdict:
        history = list(truth.read(self._folder / "truth.jsonl"))
        seen = await observe.everything(
            self._database, self._environment, self._sender, self._sink, expect(history)
        )
        seen.watched = [*self._watch.violations, *self._inflictor.wrong]
        seen.holds = self._inflictor.holds
        seen.visits = self._visits
        expected = expect(history, given_up(seen))
        found = judge(expected, seen)
        found += await self._drain()
        if recovery is None and not found:
            found.append(Violation(f"not at rest {DEADLINE:.0f} s after the last fault", ["see node-*.log"]))
        return Verdict(found, self._inflictor.inflicted, expected, seen, recovery, len(history))

    async def _drain(self) -> list[Violation]:
        """SIGTERM to both nodes: exit code 0 within the grace period, and no process left behind."""
        codes = await asyncio.gather(*(node.drain(20) for node in self._nodes))
        wrong = [f"node {n} exited with {code}" for n, code in enumerate(codes) if code != 0]
        deadline = time.monotonic() + 10
        while (left := self._left_over()) and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
        orphans = [f"{pid} {command}" for pid, command in left.items()]
        found = [
            Violation("SIGTERM does not end a node with 0", wrong),
            Violation("processes that outlived their node", orphans),
        ]
        return [violation for violation in found if violation.keys]

    def _left_over(self) -> dict[int, str]:
        """Living processes with this run's environment: tasks whose node is gone."""
        mark = f"CHAOS_SINK={self._folder}/".encode()
        found: dict[int, str] = {}
        for process in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                if int(process.name) != os.getpid() and mark in (process / "environ").read_bytes():
                    found[int(process.name)] = command_line(int(process.name))
        return found

    async def _clean_up(self) -> None:
        await self._database.close()
        for node in self._nodes:
            node.go_on()
            node.kill_all()
            await node.link.close()
        for pid in self._left_over():
            kill(pid)
        await self._topic.stop()
        self._postgres.stop()


async def _must(environment: Mapping[str, str], *arguments: str) -> None:
    code, output = await eventflow(environment, *arguments)
    if code != 0:
        raise CannotRun(f"eventflow {' '.join(arguments)} exited with {code}:\n{output}")


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now. Two sockets at a time, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def work_folder(seed: int, mutant: str | None) -> Path:
    """A new folder that every user may enter (Postgres may run as another one)."""
    folder = Path(tempfile.mkdtemp(prefix=f"eventflow-kill-{Path(mutant or 'run').stem}-{seed}-"))
    folder.chmod(0o755)
    return folder


def summary(verdict: Verdict) -> str:
    """The figures of a run: faults by kind, events, runs, lost, doubled, recovery."""
    kinds = Counter(str(fault.kind) for fault in verdict.inflicted)
    faults_by_kind = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    events = ", ".join(f"{count} {source}" for source, count in sorted(verdict.expected.taken.items()))
    letters = sum(verdict.seen.letters.values())
    runs = Counter((run.rule, run.key) for run in verdict.seen.runs)
    wanted = verdict.expected.runs
    lost = sum(max(0, count - runs[key]) for key, count in wanted.items())
    doubled = sum(max(0, count - max(1, wanted[key])) for key, count in runs.items())
    rescued = sum(1 for task in verdict.seen.tasks if task.crashes)
    recovery = "not recovered" if verdict.recovery is None else f"recovered in {verdict.recovery:.1f} s"
    return "\n".join([
        f"faults    {kinds.total()}: {faults_by_kind}",
        f"sent      {verdict.sent} steps; events: {events}",
        f"counted   {verdict.seen.counted} of {verdict.seen.visits} rows, {len(verdict.seen.ticks)} ticks",
        f"runs      {runs.total()}, {rescued} tasks rescued, {letters} dead letters",
        f"result    {lost} lost, {doubled} doubled, {recovery}",
    ])  # fmt: skip
