"""Which node reads which source partition, and the tasks that do.

Every owned partition is one lease row; a node claims free ones up to its share, and any that nobody has
taken for a whole lease. A node that cannot open its source says so and lets go, so that another may try.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, cast
from uuid import UUID

import structlog

from eventflow.errors import OwnershipLost, SourceStopped, SourceUnavailable, Undecodable
from eventflow.event import JSON
from eventflow.expression import EvaluationError, Expression, VarType, activate
from eventflow.ingest import Ingest
from eventflow.rulefile.ruleset import SourceSpec
from eventflow.secret import secret
from eventflow.source import Delivery, Known, Predicate, RoutedSource, Source, SourceContext
from eventflow.store import intake, ownership
from eventflow.store.failures import is_disconnect
from eventflow.store.ownership import Claim
from eventflow.store.pool import Pool
from eventflow.store.signals import Signals

log = structlog.get_logger()

LONGEST_BACKOFF_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 10.0
"""How long a source may take to say what stands behind it: the others are claimed after that."""


class Mounts(Protocol):
    """Where sources that serve HTTP are mounted, by name."""

    def mount(self, name: str, source: RoutedSource) -> None: ...
    def unmount(self, name: str) -> None: ...


def predicate(text: str, variables: Sequence[str]) -> Predicate:
    """Compile a connector's expression; evaluated, it raises `Undecodable` where it ends in an error."""
    compiled = Expression.compile(text, dict.fromkeys(variables, VarType.any))

    def evaluate(values: Mapping[str, JSON]) -> JSON:
        try:
            return compiled.evaluate(activate(values))
        except EvaluationError as error:
            raise Undecodable(f"{text}: {error}") from error

    return evaluate


def machine_time() -> datetime:
    """For commands, which decide nothing by it."""
    return datetime.now(UTC)


def context_of(spec: SourceSpec, pool: Pool, now: Callable[[], datetime] = machine_time) -> SourceContext:
    """What the core hands to the source that `spec` configures."""

    async def known(items: Sequence[bytes]) -> Mapping[bytes, Known]:
        async with pool.acquire() as conn:
            return await intake.known(conn, spec.name, items)

    async def known_all() -> AsyncIterator[tuple[bytes, Known]]:
        after: bytes | None = b""
        while after is not None:
            async with pool.acquire() as conn:
                page, after = await intake.known_page(conn, spec.name, after)
            for entry in page:
                yield entry

    return SourceContext(spec.folder, known, known_all, secret, predicate, now)


class Reading:
    """One configured source in this process: its instance, its running partitions, its patience."""

    def __init__(self, spec: SourceSpec, pool: Pool, now: Callable[[], datetime] = machine_time) -> None:
        self.spec = spec
        self.source: Source = spec.factory(spec.name, spec.config, context_of(spec, pool, now))
        self.origin: str | None = None
        self.partitions: Sequence[str] = ()
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.free_since: dict[str, float] = {}
        self.reported = False
        self._pause = 0.0
        self._not_before = 0.0

    @property
    def owned(self) -> bool:
        return self.source.delivery is not Delivery.pushed

    def ready(self) -> bool:
        """False while backing off after a failure."""
        return time.monotonic() >= self._not_before

    def failed(self) -> None:
        """Back off: 1 s, doubling to 30 s, with jitter; anew after 30 s in which nothing failed."""
        now = time.monotonic()
        well = now - self._not_before > LONGEST_BACKOFF_SECONDS
        self._pause = 1.0 if well else min(LONGEST_BACKOFF_SECONDS, 2 * self._pause)
        self._not_before = now + self._pause * random.uniform(0.75, 1.25)  # noqa: S311 - jitter


class Sources:
    """All sources of the current rule set. `reconcile` is called now and then, and at every new rule set."""

    def __init__(
        self,
        pool: Pool,
        node: UUID,
        lease: timedelta,
        ingest: Ingest,
        signals: Signals,
        mounts: Mounts,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._tasks = tasks
        self._pool = pool
        self._node = node
        self._lease = lease
        self._ingest = ingest
        self._signals = signals
        self._mounts = mounts
        self._readings: dict[str, Reading] = {}
        self._peers = 0
        self._lock = asyncio.Lock()
        self._stopped = False

    async def reconcile(self, specs: Mapping[str, SourceSpec]) -> None:
        """Stop what is gone or changed, start what is new, claim what is free up to this node's share."""
        async with self._lock:
            if self._stopped:
                return
            for name, reading in list(self._readings.items()):
                if specs.get(name) != reading.spec:
                    await self._stop(self._readings.pop(name))
            for name, spec in specs.items():
                if name not in self._readings:
                    self._readings[name] = self._start(spec)
            self._serve_pushed()
            await self._claim_share()

    async def stop(self) -> None:
        """End every partition task, for good; their claims are released."""
        async with self._lock:
            self._stopped = True
            for reading in self._readings.values():
                await self._stop(reading)
            self._readings.clear()

    def _start(self, spec: SourceSpec) -> Reading:
        reading = Reading(spec, self._pool, self._signals.clock.now)
        if callable(reading.source):
            self._mounts.mount(spec.name, cast("RoutedSource", reading.source))
        return reading

    def _serve_pushed(self) -> None:
        """Start what is new, and what ended by a cancellation inside the connector: no handler sees that."""
        for reading in self._readings.values():
            if not reading.owned and ("" not in reading.tasks or reading.tasks[""].done()):
                reading.tasks[""] = self._tasks.create_task(self._serve(reading))

    async def _stop(self, reading: Reading) -> None:
        if callable(reading.source):
            self._mounts.unmount(reading.spec.name)
        for task in reading.tasks.values():
            task.cancel()
        await asyncio.gather(*reading.tasks.values(), return_exceptions=True)

    # ------------------------------------------------------------------ who reads what

    async def _claim_share(self) -> None:
        readings = [reading for reading in self._readings.values() if reading.owned]
        for reading in readings:
            reading.tasks = {p: task for p, task in reading.tasks.items() if not task.done()}
        await asyncio.gather(*(self._look(reading) for reading in readings if reading.ready()))
        if self._signals.peers > self._peers:
            await self._make_room(readings)
        self._peers = self._signals.peers
        await self._take(readings)

    async def _look(self, reading: Reading) -> None:
        """Ask the source what stands behind it; say so where it cannot be opened. Harms no other source."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                reading.origin = await reading.source.origin()
                reading.partitions = await reading.source.partitions()
        except SourceUnavailable as error:
            await self._report(reading, str(error))
        except TimeoutError:
            await self._report(reading, f"no answer within {LOOK_SECONDS:g} s")
        except Exception as error:
            log.exception("source_failed", source=reading.spec.name)
            await self._report(reading, f"{type(error).__name__}: {error}")
        else:
            await self._take_back_report(reading)

    async def _make_room(self, readings: Sequence[Reading]) -> None:
        """A node has joined: let go of what is above the new share."""
        mine = [(reading, partition) for reading in readings for partition in reading.tasks]
        for reading, partition in mine[self._share(readings) :]:
            task = reading.tasks.pop(partition)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            reading.free_since[partition] = time.monotonic()

    def _share(self, readings: Sequence[Reading]) -> int:
        total = sum(len(reading.partitions) for reading in readings)
        return math.ceil(total / (self._signals.peers + 1))

    async def _take(self, readings: Sequence[Reading]) -> None:
        async with self._pool.acquire() as conn:
            rows = await ownership.holdings(conn, [reading.spec.name for reading in readings])
        held = {(row.source, row.partition): row for row in rows}
        share = self._share(readings)
        mine = sum(len(reading.tasks) for reading in readings)
        for reading in readings:
            for partition in reading.partitions:
                row = held.get((reading.spec.name, partition))
                if partition in reading.tasks:
                    if row and row.owner != self._node:
                        # This process was stopped past its lease: no batch of it can commit any more.
                        reading.tasks[partition].cancel()
                    continue
                if not reading.ready():
                    if row and row.owner == self._node:
                        # Its release did not reach Postgres, and the heartbeat would keep it for ever.
                        await self._let_go(reading, partition)
                    continue
                if row and (row.state in ("paused", "stopped") or (row.leased and row.owner != self._node)):
                    reading.free_since.pop(partition, None)
                    continue
                since = reading.free_since.setdefault(partition, time.monotonic())
                if mine < share or time.monotonic() - since > self._lease.total_seconds():
                    mine += await self._claim(reading, partition)

    async def _claim(self, reading: Reading, partition: str) -> int:
        name = reading.spec.name
        try:
            async with self._pool.acquire() as conn:
                claim = await ownership.claim(conn, name, partition, self._node, self._lease, reading.origin)
        except SourceStopped as error:
            log.error("source_stopped", source=name, partition=partition, reason=str(error))
            reading.failed()
            async with self._pool.acquire() as conn:
                await ownership.stop(conn, name, partition, self._node, str(error))
            return 0
        if claim is None:
            return 0
        reading.free_since.pop(partition, None)
        reading.tasks[partition] = self._tasks.create_task(self._read(reading, claim))
        log.info("partition_claimed", source=name, partition=partition, epoch=claim.epoch)
        return 1

    async def _let_go(self, reading: Reading, partition: str) -> None:
        async with self._pool.acquire() as conn:
            await ownership.let_go(conn, reading.spec.name, partition, self._node)

    async def _report(self, reading: Reading, message: str) -> None:
        reading.failed()
        log.warning("source_waiting", source=reading.spec.name, reason=message)
        async with self._pool.acquire() as conn:
            await ownership.report(conn, reading.spec.name, "", "waiting", message)
        reading.reported = True

    async def _take_back_report(self, reading: Reading) -> None:
        if reading.reported:
            async with self._pool.acquire() as conn:
                await ownership.take_back_report(conn, reading.spec.name)
            reading.reported = False

    # ------------------------------------------------------------------ the tasks

    async def _read(self, reading: Reading, claim: Claim) -> None:
        """Read one owned partition until it ends one way or another; then let go of it."""
        state, message = "waiting", None
        bound = log.bind(source=claim.source, partition=claim.partition)
        try:
            await self._ingest.run_partition(reading.source, claim)
        except OwnershipLost as error:
            bound.warning("partition_lost", reason=str(error))
        except SourceStopped as error:
            state, message = "stopped", str(error)
            bound.error("source_stopped", reason=message)
        except SourceUnavailable as error:
            message = str(error)
            reading.failed()
            bound.warning("source_unavailable", reason=message)
        except Exception as error:
            reading.failed()
            if is_disconnect(error):  # while it asked what is known; batches mend that by themselves
                bound.warning("connection_lost", error=repr(error))
            else:
                message = f"{type(error).__name__}: {error}"
                bound.exception("source_failed")
        finally:
            await asyncio.shield(self._release(claim, state, message))

    async def _release(self, claim: Claim, state: str, message: str | None) -> None:
        try:
            async with self._pool.acquire(timeout=5) as conn:
                await ownership.release(conn, claim, state, message)
        except Exception as error:
            # The lease runs out by itself; another node then takes over.
            log.warning("release_failed", source=claim.source, partition=claim.partition, error=repr(error))

    async def _serve(self, reading: Reading) -> None:
        """Commit what senders push, for as long as the source is configured."""
        name = reading.spec.name
        while True:
            try:
                async with self._pool.acquire() as conn:
                    await ownership.report(conn, name, "", "running", None)
                await self._ingest.run_pushed(name, reading.source)
            except Exception as error:
                log.warning("source_failed", source=name, error=repr(error))
                await asyncio.sleep(0.2)
