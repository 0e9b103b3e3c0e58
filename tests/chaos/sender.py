"""Carries the plans out: truth first, then the file, the request or the line."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random

from tests.chaos import generator, http
from tests.chaos.generator import FilePlan, LinePlan, Load, Step
from tests.chaos.model import RunKey, runs_of
from tests.chaos.shop import Shop
from tests.chaos.sink import Sink
from tests.chaos.topic import Topic
from tests.chaos.truth import Hook, Line, Put, Removed, Stalled, Touched, TruthFile

VISITORS = ("east", "west", "north")
STREAMS = ("files", "hooks", "lines", "orders", "changes", *VISITORS)
SECRET = "the kill run's secret"
QUIET = 2.0
"""The quiet time of the watched folder in `rules/chaos.yaml`, in seconds."""
BURST = 24
"""Groups of lines sent after a hush, `BURST_GAP` seconds apart."""
BURST_GAP = 0.01


class Sender:
    """Sends until told to stop, then finishes what it began. `asked` counts the runs of its own streams."""

    def __init__(
        self, seed: int, load: Load, folder: Path, ports: Sequence[int], sink: Sink, topic: Topic, shop: Shop
    ) -> None:
        self.truth = TruthFile(folder / "truth.jsonl")
        self.answers: defaultdict[str, set[str]] = defaultdict(set)
        self.unanswered: set[str] = set()
        self.asked = 0
        self.landing, self.numbers = folder / "landing", folder / "numbers"
        self._outside = folder / "outside"
        for path in (self.landing, self.numbers, self._outside):
            path.mkdir()
        self._seed, self._load, self._ports, self._sink = seed, load, ports, sink
        self._topic, self._shop = topic, shop
        self._stop = asyncio.Event()
        self._hushed = 0
        self._burst = 0
        self._pauses = {name: Random(f"{seed}:{name}:pauses") for name in STREAMS}
        self._routes = Random(f"{seed}:routes")

    def stop(self) -> None:
        """No new plans; plans begun go on to their next safe end."""
        self._stop.set()

    @contextmanager
    def hush(self) -> Generator[None]:
        """Send no lines meanwhile, and many at once afterwards.

        Two nodes that both believe that they own a partition then see the same lines at the same moment,
        with nothing else to tell one of them that it is wrong.
        """
        self._hushed += 1
        try:
            yield
        finally:
            self._hushed -= 1
            self._burst = BURST

    async def run(self) -> None:
        """All streams; returns when everything begun has been finished."""
        async with asyncio.TaskGroup() as streams:
            streams.create_task(self._files())
            streams.create_task(self._hooks())
            streams.create_task(self._lines())
            streams.create_task(self._topic.run(partial(self._pause, "orders", self._load.orders)))
            streams.create_task(self._shop.run(partial(self._pause, "changes", self._load.changes)))
            for name in VISITORS:
                pause = partial(self._pause, name, self._load.visits, runs=False)
                streams.create_task(self._shop.visit(name, pause))

    @property
    def expected(self) -> int:
        """How many runs what has been sent asks for, as far as the senders were told."""
        return self.asked + self._topic.sent + self._shop.sent

    async def _pause(self, name: str, rate: float, *, runs: bool = True) -> bool:
        """The gap before the next plan of a stream; False when it is time to stop.

        `runs`: its plans ask for runs, so that it waits while too many are open.
        """
        gap = self._pauses[name].expovariate(rate)
        while not self._stop.is_set():
            try:
                await asyncio.wait_for(self._stop.wait(), gap)
            except TimeoutError:
                if not runs or self.expected - len(self._sink.ended) < self._load.backlog:
                    return True
                gap = 0.05
        return False

    # ------------------------------------------------------------------ files

    async def _files(self) -> None:
        async with asyncio.TaskGroup() as lives:
            for plan in generator.files(self._seed):
                if not await self._pause("files", self._load.files):
                    return
                lives.create_task(self._live(plan))

    async def _live(self, plan: FilePlan) -> None:
        """One file's life. A step that would hide the one before waits until that has run."""
        path = self.landing / plan.path
        latest, reached = "", Counter[RunKey]()
        for number, step in enumerate(plan.steps):
            if self._stop.is_set() and number:
                return
            if step.act in ("rename", "slow"):
                latest = hashlib.sha256(step.content).hexdigest()
                self.truth.write(Put(plan.path, latest))
                self.asked += runs_of(self.truth.entries[-1], first=number == 0)
            await self._step(plan.path, path, step)
            if number + 1 < len(plan.steps):
                arrived = ("file-landed", f"{plan.path}@{latest}")
                key = ("file-removed", plan.path) if step.act == "remove" else arrived
                reached[key] += step.act in ("rename", "slow", "remove")
                await self._until(key, reached[key])

    async def _until(self, key: RunKey, runs: int) -> None:
        """Until so many runs are in the sink, or the load has stopped (then no step follows)."""
        waiting = {
            asyncio.ensure_future(self._sink.wait_for(key, runs)),
            asyncio.ensure_future(self._stop.wait()),
        }
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiting:
                waiter.cancel()

    async def _step(self, name: str, path: Path, step: Step) -> None:
        match step.act:
            case "rename" | "same":
                if step.act == "same":
                    self.truth.write(Touched(name))
                self._rename_into_place(path, step.content)
            case "slow":
                await self._write_slowly(name, path, step.content)
            case "touch":
                self.truth.write(Touched(name))
                os.utime(path)
            case "remove":
                self.truth.write(Removed(name))
                self.asked += 1
                path.unlink()

    def _rename_into_place(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(exist_ok=True)
        beside = self._outside / path.name
        beside.write_bytes(content)
        beside.rename(path)

    async def _write_slowly(self, name: str, path: Path, content: bytes) -> None:
        path.parent.mkdir(exist_ok=True)
        piece = max(1, len(content) // 8)
        longest, before = 0.0, time.monotonic()
        with path.open("wb", buffering=0) as file:
            for start in range(0, len(content), piece):
                file.write(content[start : start + piece])
                await asyncio.sleep(0.15)
                longest, before = max(longest, time.monotonic() - before), time.monotonic()
        if longest > QUIET / 2:
            self.truth.write(Stalled(name))

    # ------------------------------------------------------------------ webhooks

    async def _hooks(self) -> None:
        async with asyncio.TaskGroup() as requests:
            for hook in generator.hooks(self._seed):
                if not await self._pause("hooks", self._load.hooks):
                    return
                self.truth.write(hook)
                self.asked += runs_of(hook)
                self.unanswered.add(hook.key)
                for copy in range(hook.copies):
                    port = self._ports[(hook.number + copy) % len(self._ports)]
                    requests.create_task(self._deliver(hook, port))

    async def _deliver(self, hook: Hook, port: int) -> None:
        """Send until the answer is final: 2xx, or 401 for a forged one. A sender does not care which node."""
        body = hook.body.encode()
        signature = hmac.new(SECRET.encode(), body, "sha256").hexdigest()
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": hook.key,
            "X-Signature": "0" * 64 if hook.kind == "forged" else signature,
        }
        final = range(401, 402) if hook.kind == "forged" else range(200, 300)
        wait = 0.1
        while True:
            status, answer = await http.request(port, "POST", "/hooks/hooks", body, headers)
            if status in final:
                break
            await asyncio.sleep(wait * self._routes.uniform(0.5, 1.5))
            wait = min(wait * 1.5, 1.0)
            port = self._routes.choice(self._ports)
        self.unanswered.discard(hook.key)
        if hook.kind != "forged":
            self.answers[hook.key].add(str(json.loads(answer).get("id")))

    # ------------------------------------------------------------------ lines

    async def _lines(self) -> None:
        for plan in generator.lines(self._seed):
            if self._burst:
                self._burst -= 1
                await asyncio.sleep(BURST_GAP)
            elif not await self._pause("lines", self._load.lines):
                return
            while self._hushed and not self._stop.is_set():
                await asyncio.sleep(0.01)
            await self._append(plan)

    async def _append(self, plan: LinePlan) -> None:
        for line in plan.lines:
            self.truth.write(line)
            self.asked += runs_of(line)
        whole = "".join(f"{line.text}\n" for line in plan.lines).encode()
        cut = len(whole) - 5 if plan.torn else len(whole)
        with (self.numbers / _file_name(plan.lines[0])).open("ab", buffering=0) as file:
            file.write(whole[:cut])
            if cut < len(whole):
                await asyncio.sleep(0.1)
                file.write(whole[cut:])


def _file_name(line: Line) -> str:
    return f"{line.partition}.log"
