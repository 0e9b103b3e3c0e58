"""Which node reads what: sources that fail, hang or come back harm nobody else."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from eventflow import reading as readings
from eventflow import sources
from eventflow.api.app import App
from eventflow.errors import SourceUnavailable
from eventflow.event import JSON, new_uid
from eventflow.ingest import Ingest
from eventflow.reading import Patience, Reading
from eventflow.revisions import Revisions
from eventflow.rulefile.ruleset import SourceSpec
from eventflow.source import Batch, Delivery, Receipt, SourceContext
from eventflow.sources import Sources
from eventflow.store import nodes, ownership, pauses
from eventflow.store.pool import Pool
from eventflow.store.signals import Signals


class NoWords(BaseModel):
    """No words of its own."""


class Waiting:
    """An ordered source of one partition to which nothing comes."""

    Config: ClassVar[type[BaseModel]] = NoWords
    delivery: Delivery = Delivery.ordered

    def __init__(self, _name: str, _config: Any, _context: SourceContext) -> None:
        self.begun = 0

    async def origin(self) -> str | None:
        return None

    async def partitions(self) -> Sequence[str]:
        return ["0"]

    async def batches(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        self.begun += 1
        await asyncio.Event().wait()
        yield Batch([])

    async def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None: ...

    async def refused(self, batch: Batch, error: Exception) -> None: ...


class Failing(Waiting):
    """Can be opened, not read."""

    async def batches(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        self.begun += 1
        raise ValueError
        yield Batch([])


class Hanging(Waiting):
    """Never says what stands behind it."""

    async def origin(self) -> str | None:
        await asyncio.Event().wait()
        return None


class Wrong(Waiting):
    """Has a bug."""

    async def partitions(self) -> Sequence[str]:
        raise ZeroDivisionError


class Absent(Waiting):
    """Cannot be opened for now."""

    there = False

    async def partitions(self) -> Sequence[str]:
        if not self.there:
            raise SourceUnavailable("no such folder")
        return ["0"]


class Many(Waiting):
    """A hundred partitions."""

    async def partitions(self) -> Sequence[str]:
        self.asked = getattr(self, "asked", 0) + 1
        return [f"{n:02}" for n in range(self.count)]

    count = 100


class Dozen(Many):
    count = 12


class Pushed(Waiting):
    """What senders push to."""

    delivery = Delivery.pushed


class Refusing(Pushed):
    """Cannot be served for now."""

    refusing = True

    async def batches(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        self.begun += 1
        if self.refusing:
            raise SourceUnavailable("secret K is not set")
        await asyncio.Event().wait()
        yield Batch([])


class GivingUp(Waiting):
    """A pushed source with something inside that was cancelled."""

    delivery = Delivery.pushed

    async def batches(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        self.begun += 1
        if self.begun == 1:
            raise asyncio.CancelledError
        await asyncio.Event().wait()
        yield Batch([])


def spec(name: str, factory: Any) -> SourceSpec:
    return SourceSpec(name, name, factory, factory.delivery, NoWords(), Path("/"), "r.yaml", 1)


class Clock:
    """Time as the module under test sees it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (sources, readings):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(random, "uniform", lambda _low, _high: 1.0)
    return clock


@pytest.fixture
def reading_of(pool: Pool, tmp_path: Path) -> Callable[..., Any]:
    @asynccontextmanager
    async def of(*specs: SourceSpec) -> AsyncIterator[tuple[Sources, dict[str, SourceSpec]]]:
        lease, node = timedelta(seconds=30), new_uid()
        async with pool.acquire() as conn:
            await nodes.beat(conn, node, "test", lease)
        signals = Signals(str(node))
        ingest = Ingest(pool, lease, Revisions(pool, {}, tmp_path), signals)
        async with asyncio.TaskGroup() as tasks:
            made = Sources(pool, node, lease, ingest, signals, App(), tasks)
            yield made, {one.name: one for one in specs}
            await made.stop()
        async with pool.acquire() as conn:
            await nodes.leave(conn, node)

    return of


async def rows(pool: Pool) -> dict[tuple[str, str], Any]:
    async with pool.acquire() as conn:
        return {(r["source"], r["partition"]): r for r in await conn.fetch("SELECT * FROM source_partition")}


@pytest.mark.parametrize("bad", [Hanging, Wrong])
async def test_a_source_that_hangs_or_has_a_bug_holds_up_no_other(
    bad: type[Waiting], reading_of: Any, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings, "LOOK_SECONDS", 0.1)
    async with reading_of(spec("bad", bad), spec("good", Waiting)) as (made, specs):
        async with asyncio.timeout(10):
            await made.reconcile(specs)
        found = await rows(pool)
    assert found["good", "0"]["owner"] is not None
    assert found["bad", ""]["state"] == "waiting"
    assert found["bad", ""]["message"]


async def test_a_source_that_fails_while_it_is_read_backs_off(reading_of: Any, clock: Clock) -> None:
    async with reading_of(spec("bad", Failing)) as (made, specs):
        for _ in range(60):
            await made.reconcile(specs)
            reading: Reading = made._readings["bad"]
            await asyncio.gather(*reading.tasks.values())
            clock.now += 1
        assert 5 <= reading.source.begun <= 7  # type: ignore[attr-defined]


def test_backing_off_never_ends_and_begins_anew_after_it_went_well(clock: Clock) -> None:
    patience = Patience()
    for _ in range(5_000):
        patience.failed()
        clock.now += 30
        assert patience.over()
    clock.now += 31
    patience.failed()
    clock.now += 1
    assert patience.over()


async def test_the_reason_why_it_cannot_be_opened_goes_when_it_can(
    reading_of: Any, pool: Pool, clock: Clock
) -> None:
    async with reading_of(spec("late", Absent)) as (made, specs):
        await made.reconcile(specs)
        assert (await rows(pool))["late", ""]["message"] == "no such folder"
        made._readings["late"].source.there = True
        clock.now += 1
        await made.reconcile(specs)
        assert list(await rows(pool)) == [("late", "0")]


async def test_a_report_of_a_process_that_is_gone_is_taken_back(reading_of: Any, pool: Pool) -> None:
    async with pool.acquire() as conn:
        await ownership.report_unopened(conn, "late", "broker away")
        await conn.execute("UPDATE source_partition SET trouble = 'stalled', troubled = now()")
        await pauses.pause(conn, "late")
        await pauses.resume(conn, "late")
    async with reading_of(spec("late", Waiting)) as (made, specs):
        await made.reconcile(specs)
        await made.reconcile(specs)
        assert list(await rows(pool)) == [("late", "0")]


async def test_a_source_that_is_paused_while_it_is_away_is_not_read_when_it_comes_back(
    reading_of: Any, pool: Pool, clock: Clock
) -> None:
    async with reading_of(spec("late", Absent)) as (made, specs):
        await made.reconcile(specs)
        async with pool.acquire() as conn:
            await pauses.pause(conn, "late")
        made._readings["late"].source.there = True
        for _ in range(3):
            clock.now += 1
            await made.reconcile(specs)
        found = await rows(pool)
        assert {name: row["state"] for name, row in found.items()} == {("late", "0"): "paused"}
        assert made._readings["late"].source.begun == 0
        async with pool.acquire() as conn:
            assert await pauses.held(conn, "late")
            await pauses.resume(conn, "late")
        await made.reconcile(specs)
        assert (await rows(pool))["late", "0"]["state"] == "running"


async def test_what_was_only_reported_cannot_go_on_elsewhere(pool: Pool) -> None:
    async with pool.acquire() as conn:
        await ownership.report_unopened(conn, "late", "broker away")
        await pauses.pause(conn, "late")
        assert await pauses.held(conn, "late") == []


async def test_partitions_wait_while_their_system_is_away_and_say_why(
    reading_of: Any, pool: Pool, clock: Clock
) -> None:
    async with pool.acquire() as conn:
        for partition in ("0", "gone"):
            claim = await ownership.claim(conn, "late", partition, new_uid(), timedelta(seconds=30), None)
            assert claim is not None
            await ownership.release(conn, claim)
    async with reading_of(spec("late", Absent)) as (made, specs):
        await made.reconcile(specs)
        found = await rows(pool)
        assert {row["message"] for row in found.values()} == {"no such folder"}
        assert all(row["unread"] for row in found.values())
        made._readings["late"].source.there = True
        clock.now += 1
        await made.reconcile(specs)
        found = await rows(pool)
        assert (found["late", "0"]["state"], found["late", "0"]["message"]) == ("running", None)
        assert (found["late", "gone"]["message"], found["late", "gone"]["unread"]) == (None, None)


class OneFails(Dozen):
    """Partition 00 cannot be read."""

    async def batches(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        if partition == "00":
            raise SourceUnavailable("leader away")
        await asyncio.Event().wait()
        yield Batch([])


async def test_a_partition_that_cannot_be_read_does_not_keep_this_node_from_others(
    reading_of: Any, pool: Pool, clock: Clock
) -> None:
    """Another node dies while one partition is backed off here: the rest is taken over all the same."""
    other, lease = new_uid(), timedelta(seconds=30)
    async with pool.acquire() as conn:
        await ownership.claim(conn, "many", "07", other, lease, None)
    async with reading_of(spec("many", OneFails)) as (made, specs):
        await made.reconcile(specs)
        reading: Reading = made._readings["many"]
        assert len(reading.tasks) == 11
        await asyncio.wait({reading.tasks["00"]})
        async with pool.acquire() as conn:
            await nodes.leave(conn, other)
        await made.reconcile(specs)
        found = await rows(pool)
        assert found["many", "07"]["owner"] is not None
        assert found["many", "00"]["owner"] is None


async def test_what_another_node_reads_well_is_not_backed_off_any_more(
    reading_of: Any, pool: Pool, clock: Clock
) -> None:
    other, lease = new_uid(), timedelta(seconds=30)
    async with reading_of(spec("bad", Failing)) as (made, specs):
        await made.reconcile(specs)
        reading: Reading = made._readings["bad"]
        await asyncio.gather(*reading.tasks.values())
        async with pool.acquire() as conn:
            await ownership.claim(conn, "bad", "0", other, lease, None)
        await made.reconcile(specs)
        assert not reading.ready("0"), "it is tried there, no more"
        async with pool.acquire() as conn:
            await conn.execute("UPDATE source_partition SET unread = NULL")
        await made.reconcile(specs)
        assert reading.ready("0")


async def test_what_could_not_be_released_is_let_go(
    reading_of: Any, pool: Pool, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_args: Any) -> None:
        raise ConnectionRefusedError

    async with reading_of(spec("bad", Failing)) as (made, specs):
        with monkeypatch.context() as away:
            away.setattr(sources.ownership, "release", lost)
            await made.reconcile(specs)
            await asyncio.gather(*made._readings["bad"].tasks.values())
        assert (await rows(pool))["bad", "0"]["owner"] is not None
        await made.reconcile(specs)
        assert (await rows(pool))["bad", "0"]["owner"] is None


async def test_a_pushed_source_that_gave_up_is_served_again(reading_of: Any) -> None:
    async with reading_of(spec("hook", GivingUp)) as (made, specs):
        await made.reconcile(specs)
        reading: Reading = made._readings["hook"]
        await asyncio.gather(*reading.tasks.values(), return_exceptions=True)
        await made.reconcile(specs)
        await until(lambda: reading.source.begun == 2)  # type: ignore[attr-defined]


async def test_a_source_that_hangs_does_not_hold_up_later_claims(reading_of: Any, pool: Pool) -> None:
    """With all the time that a source has to answer: rounds go on beside it."""
    async with reading_of(spec("bad", Hanging), spec("good", Waiting)) as (made, specs):
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(3):
            await made.reconcile(specs)
        assert loop.time() - began < readings.LOOK_SECONDS / 2
        assert (await rows(pool))["good", "0"]["owner"] is not None


async def test_a_source_that_is_well_is_asked_now_and_then(reading_of: Any, clock: Clock) -> None:
    async with reading_of(spec("many", Dozen)) as (made, specs):
        for _ in range(20):
            await made.reconcile(specs)
            clock.now += 1
        assert made._readings["many"].source.asked == 4
        made._readings["many"].failed()
        clock.now += 1
        await made.reconcile(specs)
        assert made._readings["many"].source.asked == 5


async def test_a_hundred_partitions_are_claimed_in_one_round(reading_of: Any, pool: Pool) -> None:
    async with reading_of(spec("many", Many)) as (made, specs):
        async with asyncio.timeout(2):
            await made.reconcile(specs)
        assert len({row["owner"] for row in (await rows(pool)).values()}) == 1
        assert len(made._readings["many"].tasks) == 100


async def test_three_nodes_share_twelve_partitions_evenly(reading_of: Any, pool: Pool) -> None:
    async with reading_of(spec("many", Dozen)) as (first, specs):
        await first.reconcile(specs)
        async with reading_of(spec("many", Dozen)) as (second, _):
            for made in (first, second):
                await made.reconcile(specs)
            assert await shares(pool) == [6, 6]
            async with reading_of(spec("many", Dozen)) as (third, _):
                for made in (first, second, third):
                    await made.reconcile(specs)
                assert await shares(pool) == [4, 4, 4]
            for made in (first, second):
                await made.reconcile(specs)
            assert await shares(pool) == [6, 6]


async def test_nodes_that_start_together_share_evenly(reading_of: Any, pool: Pool) -> None:
    one, two, three = (reading_of(spec("many", Dozen)) for _ in range(3))
    async with one as (first, specs), two as (second, _), three as (third, _):
        await asyncio.gather(*(made.reconcile(specs) for made in (first, second, third)))
        await asyncio.gather(*(made.reconcile(specs) for made in (first, second, third)))
        assert await shares(pool) == [4, 4, 4]


async def shares(pool: Pool) -> list[int]:
    owners = [row["owner"] for row in (await rows(pool)).values()]
    return sorted(owners.count(owner) for owner in {*owners} - {None})


async def test_what_is_pushed_is_not_served_while_it_is_paused(reading_of: Any, pool: Pool) -> None:
    async with reading_of(spec("hook", Pushed)) as (made, specs):
        await made.reconcile(specs)
        reading: Reading = made._readings["hook"]
        await until(lambda: reading.source.begun == 1)  # type: ignore[attr-defined]
        async with pool.acquire() as conn:
            assert await pauses.pause(conn, "hook") == 1
        await made.reconcile(specs)
        assert reading.tasks[""].done()
        async with pool.acquire() as conn:
            await ownership.report(conn, "hook", "", "running", None)
        await made.reconcile(specs)
        assert (await rows(pool))["hook", ""]["state"] == "paused"
        assert reading.source.begun == 1  # type: ignore[attr-defined]
        async with pool.acquire() as conn:
            assert await pauses.resume(conn, "hook") == 1
        await made.reconcile(specs)
        await until(lambda: reading.source.begun == 2)  # type: ignore[attr-defined]
        assert (await rows(pool))["hook", ""]["state"] == "running"


async def test_a_source_that_starts_paused_is_not_served(reading_of: Any, pool: Pool) -> None:
    async with pool.acquire() as conn:
        await ownership.report(conn, "hook", "", "running", None)
        await pauses.pause(conn, "hook")
    async with reading_of(spec("hook", Pushed)) as (made, specs):
        await made.reconcile(specs)
        assert made._readings["hook"].tasks == {}


async def test_what_is_pushed_says_why_it_cannot_be_served(
    reading_of: Any, pool: Pool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sources, "TRIED_SECONDS", 0.02)

    async def state() -> tuple[str, str | None]:
        row = (await rows(pool)).get(("hook", ""))
        return ("", None) if row is None else (row["state"], row["message"])

    async with reading_of(spec("hook", Refusing)) as (made, specs):
        await made.reconcile(specs)
        source: Any = made._readings["hook"].source
        await until(lambda: source.begun > 5)
        assert await state() == ("waiting", "secret K is not set")
        source.refusing = False
        async with asyncio.timeout(10):
            while await state() != ("running", None):
                await asyncio.sleep(0.01)
    assert capsys.readouterr().out.count("source_failed") == 1


async def test_a_node_that_serves_what_is_pushed_says_so_over_one_that_cannot(
    reading_of: Any, pool: Pool
) -> None:
    async with reading_of(spec("hook", Pushed)) as (made, specs):
        await made.reconcile(specs)
        await until(lambda: made._readings["hook"].serves)
        async with pool.acquire() as conn:
            await ownership.report(conn, "hook", "", "waiting", "secret K is not set")
        await made.reconcile(specs)
        row = (await rows(pool))["hook", ""]
        assert (row["state"], row["message"], row["unread"]) == ("running", None, None)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)
