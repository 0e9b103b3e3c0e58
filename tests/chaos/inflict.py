"""Carries the faults out: waits for each one's moment, strikes, and heals it again."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager, nullcontext
from random import Random
from typing import Any, Final, LiteralString

from tests.chaos.faults import LASTING, SPARED, Fault, Kind, Moment
from tests.chaos.link import Trap
from tests.chaos.observe import Database
from tests.chaos.processes import Node, Postgres, kill
from tests.chaos.seen import Hold
from tests.chaos.sender import Sender
from tests.chaos.topic import Topic

PATIENCE: Final = 1.5
"""Seconds that a fault waits for its moment; then it strikes whatever goes on."""
PATIENCE_OF_SIEGES: Final = 8.0
"""Seconds that a siege waits for both nodes to be at work."""
HUSH_LINGERS: Final = (0.0, 0.06)
"""Seconds from the end of a siege to the end of its hush."""

Apply = Callable[[], Awaitable[tuple[int, str]]]
"""Applies the rules as a new revision: exit code and output of the command."""


class Inflictor:
    """The faults of one run. `inflicted` are those that struck, `holds` says who could not be reached when.

    `wrong` collects what a node did that it must not do by itself.
    """

    def __init__(
        self,
        seed: int,
        nodes: list[Node],
        postgres: Postgres,
        database: Database,
        sender: Sender,
        topic: Topic,
        apply: Apply,
    ) -> None:
        self.inflicted: list[Fault] = []
        self.holds: list[Hold] = []
        self.wrong: list[str] = []
        self._nodes, self._postgres, self._database = nodes, postgres, database
        self._sender, self._topic, self._apply = sender, topic, apply
        self._broker_lock = asyncio.Lock()
        self._random = Random(f"{seed}:victims")
        self._postgres_lock = asyncio.Lock()
        self._siege = asyncio.Lock()

    async def run(self, plan: Iterable[Fault], seconds: float) -> float:
        """All faults, each healed beside the next ones; the monotonic time at which the last was healed."""
        start = time.monotonic()
        async with asyncio.TaskGroup() as healing:
            for fault in plan:
                await asyncio.sleep(max(0.0, start + fault.at - time.monotonic()))
                healing.create_task(self._strike(fault))
            await asyncio.sleep(max(0.0, start + seconds - time.monotonic()))
        return time.monotonic()

    def restart_fallen(self) -> None:
        """A node must outlive whatever happens to Postgres and to the other node, once it has been ready."""
        for node in self._nodes:
            if not node.alive and not node.in_hand:
                if node.ready_since:
                    self.wrong.append(f"node {node.number} ended by itself with {node.exit_code}")
                node.start()

    def _victim(self, fault: Fault) -> Node | None:
        """The fault's node if it is at work, else the other: hitting a process that starts proves little."""
        at_work = [node for node in self._nodes if node.at_work]
        if fault.kind in LASTING and len(at_work) < len(self._nodes):
            return None
        if fault.kind in SPARED and self._siege.locked():
            return None
        for node in at_work:
            if node.number == fault.node:
                return node
        return at_work[0] if at_work else None

    async def _find(self, fault: Fault) -> Node | None:
        """A siege waits until the other node can take over."""
        deadline = time.monotonic() + PATIENCE_OF_SIEGES
        while (node := self._victim(fault)) is None and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        return node

    async def _strike(self, fault: Fault) -> None:
        if fault.kind in LASTING:
            async with self._siege:
                node = await self._find(fault)
                with self._sender.hush() if fault.hush else nullcontext():
                    await self._strike_at(fault, node)
                    await asyncio.sleep(self._random.uniform(*HUSH_LINGERS))
        else:
            await self._strike_at(fault, self._victim(fault))

    async def _strike_at(self, fault: Fault, node: Node | None) -> None:
        if node is None:
            return
        trap = None if fault.moment is Moment.now else node.link.arm(fault.moment, fault.skip)
        try:
            if trap is not None:
                await self._sprung(trap)
            if node.at_work:
                await self._act(fault, node, trap)
        finally:
            if trap is not None:
                node.link.disarm(trap)

    async def _sprung(self, trap: Trap) -> None:
        try:
            await asyncio.wait_for(trap.sprung.wait(), PATIENCE)
        except TimeoutError:
            return

    async def _act(self, fault: Fault, node: Node, trap: Trap | None) -> None:
        self.inflicted.append(fault)
        match fault.kind:
            case Kind.kill_serve:
                await self._kill_serve(fault, node, trap)
            case Kind.kill_task:
                if processes := node.task_processes():
                    kill(self._random.choice(processes))
            case Kind.kill_postgres | Kind.lose_postgres:
                await self._kill_postgres(fault, trap)
            case Kind.kill_broker:
                async with self._broker_lock:
                    self._topic.kill()
                    await asyncio.sleep(fault.seconds)
                    await self._topic.start_again()
            case Kind.stop_serve:
                await self._stop_serve(fault, node, trap)
            case Kind.end_serve:
                await self._end_serve(node)
            case Kind.stall_link:
                await self._stall([node], fault, trap)
            case Kind.stall_both:
                await self._stall(self._nodes, fault, trap)
            case Kind.cut:
                if trap is None or not trap.sprung.is_set():
                    node.link.cut()
                _let_go(trap, deliver=False)
            case Kind.end_backends:
                await self._database.ask(self._end_backends)
            case Kind.apply:
                await self._apply_again()

    async def _kill_serve(self, fault: Fault, node: Node, trap: Trap | None) -> None:
        with node.taken():
            self.holds.append(Hold(node.pid, time.time(), math.inf))
            node.kill()
            _let_go(trap, deliver=False)
            await asyncio.sleep(fault.seconds)
            node.start()

    async def _stop_serve(self, fault: Fault, node: Node, trap: Trap | None) -> None:
        with node.taken(), self._hold(node.pid):
            node.stop()
            if fault.moment.of_answer:
                _let_go(trap, deliver=True)  # it arrives while nobody listens
            await asyncio.sleep(fault.seconds)
            node.go_on()

    async def _end_serve(self, node: Node) -> None:
        with node.taken(), self._hold(node.pid):
            began = time.time()
            code = await node.drain(20)
            if code != 0 and not self._postgres_was_away(began):
                self.wrong.append(f"node {node.number} exited with {code} after SIGTERM")
            node.start()

    async def _apply_again(self) -> None:
        began = time.time()
        code, output = await self._apply()
        if code != 0 and not self._postgres_was_away(began):
            self.wrong.append(f"eventflow apply exited with {code}: {output[-300:]}")

    def _postgres_was_away(self, since: float) -> bool:
        return self._postgres_lock.locked() or any(h.process == 0 and h.ended >= since for h in self.holds)

    async def _stall(self, nodes: list[Node], fault: Fault, trap: Trap | None) -> None:
        for node in nodes:
            node.link.stall()
        began = time.time()
        _let_go(trap, deliver=True)  # it waits in the link with everything else
        await asyncio.sleep(fault.seconds)
        for node in nodes:
            node.link.flow()
            self.holds.append(Hold(node.pid, began, time.time()))

    async def _kill_postgres(self, fault: Fault, trap: Trap | None) -> None:
        async with self._postgres_lock:
            with self._hold(0):
                self._postgres.kill()
                _let_go(trap, deliver=False)
                await asyncio.sleep(fault.seconds)
                self._postgres.start()
                await self._postgres.ready()

    @contextmanager
    def _hold(self, process: int) -> Generator[None]:
        began = time.time()
        try:
            yield
        finally:
            self.holds.append(Hold(process, began, time.time()))

    async def _end_backends(self, session: Any) -> None:
        pids = [row["pid"] for row in await session.fetch(BACKENDS)]
        await session.execute(END_BACKENDS, [pid for pid in pids if self._random.random() < 0.5])


BACKENDS: Final[LiteralString] = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'eventflow %'"
END_BACKENDS: Final[LiteralString] = (
    "SELECT count(pg_terminate_backend(pid)) FROM unnest($1::int[]) AS t(pid)"
)


def _let_go(trap: Trap | None, *, deliver: bool) -> None:
    if trap is not None:
        trap.let_go(deliver=deliver)
