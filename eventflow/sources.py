"""Which node reads which source partition, and the tasks that do.

Every owned partition is one lease row; a node claims free ones up to its share, and any that nobody has
taken for a whole lease. A node that cannot open its source says so and lets go, so that another may try.
A failure of one partition is met with patience for that one, a source that cannot be opened for all of it.
What senders push has no owner: every node serves it, unless a person has paused it.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final, Protocol, cast
from uuid import UUID

import structlog

from eventflow.errors import OwnershipLost, SourceError, SourceStopped, SourceUnavailable
from eventflow.event import JSON
from eventflow.ingest import Ingest
from eventflow.reading import LONGEST_BACKOFF_SECONDS, LOOK_SECONDS, Reading
from eventflow.rulefile.ruleset import SourceSpec
from eventflow.source import RoutedSource
from eventflow.store import health, nodes, ownership
from eventflow.store.failures import is_disconnect
from eventflow.store.ownership import Claim, Holding, Wanted
from eventflow.store.pool import Pool
from eventflow.store.signals import Signal, Signals

log = structlog.get_logger()

TRIED_SECONDS: Final = 0.5
"""The pause before what senders push is served again, and how long that must last to be called running."""
PROMPT_SECONDS: Final = 0.5
"""How long a round of claims waits for those who are being asked; the slower ones are claimed later."""


class Mounts(Protocol):
    """Where sources that serve HTTP are mounted, by name."""

    def mount(self, name: str, source: RoutedSource) -> None: ...
    def unmount(self, name: str) -> None: ...


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
        wanted: health.Wanted = lambda _type: False,
    ) -> None:
        self._tasks = tasks
        self._pool = pool
        self._node = node
        self._lease = lease
        self._ingest = ingest
        self._signals = signals
        self._mounts = mounts
        self._wanted = wanted
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
            await self._look_around()
            holdings = await self._holdings()
            await self._take_back_reports(holdings)
            await self._serve_pushed(holdings)
            await self._claim_share(holdings)

    @property
    def readings(self) -> Mapping[str, Reading]:
        """The sources of this process by name."""
        return self._readings

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

    async def _serve_pushed(self, holdings: Mapping[tuple[str, str], Holding]) -> None:
        """Start what is new, and what ended by a cancellation inside the connector: no handler sees that."""
        for name, reading in self._readings.items():
            if reading.owned:
                continue
            row, task = holdings.get((name, "")), reading.tasks.get("")
            if row is not None and row.state == "paused":
                if task is not None and not task.done():
                    log.info("source_paused", source=name)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
            elif task is None or task.done():
                reading.tasks[""] = self._tasks.create_task(self._serve(reading))
            elif reading.serves and row is not None and row.state == "waiting":
                await self._say(name, "running", None)  # it is another node that cannot

    async def _stop(self, reading: Reading) -> None:
        if callable(reading.source):
            self._mounts.unmount(reading.spec.name)
        tasks = [*reading.tasks.values(), *([reading.look] if reading.look else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ------------------------------------------------------------------ who reads what

    async def _look_around(self) -> None:
        """Ask the sources whose time it is, all at once; the answers of slow ones count in later rounds."""
        readings = [reading for reading in self._readings.values() if reading.owned]
        started = [reading.begin_to_look(self._look(reading)) for reading in readings if reading.due()]
        if started:
            _, late = await asyncio.wait(started, timeout=PROMPT_SECONDS)
            for look in late:  # the round after its answer need not wait for its time
                look.add_done_callback(lambda _: self._signals.event(Signal.ruleset).set())
        for reading in readings:
            reading.end_look()

    async def _holdings(self) -> Mapping[tuple[str, str], Holding]:
        """Who holds what. Who else is alive is asked as well: shares follow the nodes, not our heartbeat."""
        async with self._pool.acquire() as conn:
            self._signals.peers, now = await nodes.peers(conn, self._node)
            self._signals.clock.set(now)
            rows = await ownership.holdings(conn, list(self._readings))
        return {(row.source, row.partition): row for row in rows}

    async def _claim_share(self, holdings: Mapping[tuple[str, str], Holding]) -> None:
        readings = [reading for reading in self._readings.values() if reading.owned]
        for reading in readings:
            reading.tasks = {p: task for p, task in reading.tasks.items() if not task.done()}
        if self._signals.peers > self._peers:
            await self._make_room(readings)
        self._peers = self._signals.peers
        free = [one for reading in readings for one in await self._free(reading, holdings)]
        await self._take(readings, free)

    async def _look(self, reading: Reading) -> None:
        """Ask the source what stands behind it; say so where it cannot be opened. Harms no other source."""
        try:
            await reading.ask()
        except SourceError as error:
            await self._report(reading, str(error))
        except TimeoutError:
            await self._report(reading, f"no answer within {LOOK_SECONDS:g} s")
        except Exception as error:
            log.exception("source_failed", source=reading.spec.name)
            await self._report(reading, f"{type(error).__name__}: {error}")

    async def _make_room(self, readings: Sequence[Reading]) -> None:
        """A node has joined: let go of what is above the new share."""
        mine = [(reading, partition) for reading in readings for partition in reading.tasks]
        too_many = mine[self._share(readings) :]
        tasks = [reading.tasks.pop(partition) for reading, partition in too_many]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for reading, partition in too_many:
            reading.free_since[partition] = time.monotonic()

    def _share(self, readings: Sequence[Reading]) -> int:
        total = sum(len(reading.partitions) for reading in readings)
        return math.ceil(total / (self._signals.peers + 1))

    async def _free(
        self, reading: Reading, holdings: Mapping[tuple[str, str], Holding]
    ) -> Sequence[tuple[Reading, str]]:
        """The partitions of the source that this node might claim; lets go of what it lost or cannot read."""
        free: list[tuple[Reading, str]] = []
        for partition in reading.partitions:
            row = holdings.get((reading.spec.name, partition))
            if row and row.leased and row.well and row.owner != self._node:
                reading.forgive(partition)
            if partition in reading.tasks:
                if row and row.owner != self._node:
                    # This process was stopped past its lease, or a person has paused the source: no batch
                    # of it can commit any more.
                    reading.tasks[partition].cancel()
            elif not reading.ready(partition):
                if row and row.owner == self._node:
                    # Its release did not reach Postgres, and the heartbeat would keep it for ever.
                    await self._let_go(reading, partition)
            elif row and (row.state in ("paused", "stopped") or (row.leased and row.owner != self._node)):
                reading.free_since.pop(partition, None)
            else:
                reading.free_since.setdefault(partition, time.monotonic())
                free.append((reading, partition))
        return free

    async def _take(self, readings: Sequence[Reading], free: Sequence[tuple[Reading, str]]) -> None:
        """Claim up to this node's share, and beyond it what nobody has taken for a whole lease."""
        # In an order of its own: nodes that start together would all reach for the same ones first.
        free = random.sample(free, len(free))
        share = self._share(readings)
        patient = time.monotonic() - self._lease.total_seconds()
        left_over = [one for one in free if one[0].free_since[one[1]] < patient]
        await self._claim(left_over)
        free = [one for one in free if one not in left_over]
        while free and (room := share - sum(len(reading.tasks) for reading in readings)) > 0:
            await self._claim(free[:room])
            free = free[room:]

    async def _claim(self, free: Sequence[tuple[Reading, str]]) -> None:
        if not free:
            return
        wanted = [Wanted(reading.spec.name, partition, reading.origin) for reading, partition in free]
        async with self._pool.acquire() as conn:
            claims, foreign = await ownership.claim_all(conn, wanted, self._node, self._lease)
            for claim, error in foreign:
                log.error("source_stopped", source=claim.source, partition=claim.partition, reason=str(error))
                await ownership.release(conn, claim, "stopped", str(error))
        for claim, _ in foreign:
            self._readings[claim.source].failed_in(claim.partition)
        for claim in claims:
            reading = self._readings[claim.source]
            reading.free_since.pop(claim.partition, None)
            reading.tasks[claim.partition] = self._tasks.create_task(self._read(reading, claim))
            log.info("partition_claimed", source=claim.source, partition=claim.partition, epoch=claim.epoch)

    async def _let_go(self, reading: Reading, partition: str) -> None:
        async with self._pool.acquire() as conn:
            await ownership.let_go(conn, reading.spec.name, partition, self._node)

    async def _report(self, reading: Reading, message: str) -> None:
        reading.failed()
        log.warning("source_waiting", source=reading.spec.name, reason=message)
        async with self._pool.acquire() as conn:
            await ownership.report_unopened(conn, reading.spec.name, message)
        reading.reported = message

    async def _take_back_reports(self, holdings: Mapping[tuple[str, str], Holding]) -> None:
        """Of sources that can be opened: what they said while they could not, whichever process said it."""
        for name, reading in self._readings.items():
            if not (reading.owned and reading.opens):
                continue
            row = holdings.get((name, ""))
            if row is not None and row.report and "" not in reading.partitions:
                async with self._pool.acquire() as conn:
                    if await health.take_back_report(conn, name, self._wanted):
                        self._signals.send(Signal.outbox)
            if reading.reported is not None:
                async with self._pool.acquire() as conn:
                    await ownership.take_back_of_gone(conn, name, reading.partitions, reading.reported)
                reading.reported = None

    # ------------------------------------------------------------------ the tasks

    async def _read(self, reading: Reading, claim: Claim) -> None:
        """Read one owned partition until it ends one way or another; then let go of it."""
        state, message, missing = "waiting", None, None
        bound = log.bind(source=claim.source, partition=claim.partition)
        try:
            await self._ingest.run_partition(reading.source, claim)
        except OwnershipLost as error:
            bound.warning("partition_lost", reason=str(error))
        except SourceStopped as error:
            state, message, missing = "stopped", str(error), error.missing
            bound.error("source_stopped", reason=message)
        except SourceUnavailable as error:
            message = str(error)
            reading.failed_in(claim.partition)
            bound.warning("source_unavailable", reason=message)
        except Exception as error:
            reading.failed_in(claim.partition)
            if is_disconnect(error):  # while it asked what is known; batches mend that by themselves
                bound.warning("connection_lost", error=repr(error))
            else:
                message = f"{type(error).__name__}: {error}"
                bound.exception("source_failed")
        finally:
            await asyncio.shield(self._release(claim, state, message, missing))

    async def _release(self, claim: Claim, state: str, message: str | None, missing: JSON) -> None:
        try:
            async with self._pool.acquire(timeout=5) as conn:
                await ownership.release(conn, claim, state, message, missing)
        except Exception as error:
            # The lease runs out by itself; another node then takes over.
            log.warning("release_failed", source=claim.source, partition=claim.partition, error=repr(error))

    async def _serve(self, reading: Reading) -> None:
        """Commit what senders push, for as long as the source is configured; say why where that fails."""
        name, reason, said = reading.spec.name, None, 0.0
        while True:
            serving = asyncio.create_task(self._ingest.run_pushed(name, reading.source))
            try:
                if reason is not None:
                    await asyncio.wait({serving}, timeout=TRIED_SECONDS)
                if not serving.done():
                    await self._say(name, "running", None)
                    reading.serves, reason = True, None
                await serving
            except Exception as error:
                reading.serves = False
                message = str(error) if isinstance(error, SourceError) else repr(error)
                if message != reason:
                    log.warning("source_failed", source=name, reason=message)
                # Now and then again: the node that could serve it, and said so, may be gone.
                if message != reason or time.monotonic() - said > LONGEST_BACKOFF_SECONDS:
                    reason, said = message, time.monotonic()
                    await self._say_if_possible(name, message)
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
            await asyncio.sleep(TRIED_SECONDS)

    async def _say(self, name: str, state: str, message: str | None) -> None:
        async with self._pool.acquire() as conn:
            await ownership.report(conn, name, "", state, message)

    async def _say_if_possible(self, name: str, message: str) -> None:
        """What failed may be Postgres itself."""
        try:
            await self._say(name, "waiting", message)
        except Exception as error:
            if not is_disconnect(error):
                raise
