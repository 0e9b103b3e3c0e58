"""The contract of `eventflow/source.py` as a test suite, for every connector: ours and everybody else's.

Subclass the contract of your source's delivery in a test file and say how to make the source and how to
send; pytest (with pytest-asyncio) collects the tests that come with it. Neither Postgres nor a rule file
is needed. This is the only module of eventflow that wants pytest.

    class TestMySource(OrderedSourceContract):
        def make(self, context): return MySource("mine", MySource.Config(...), context)
        async def send(self, key): ...           # one record, which `key_of` will recognise
        def key_of(self, event): return event.data["key"]
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from eventflow.errors import UsageError
from eventflow.event import Broken, Event, Record, decode_json, encode_json
from eventflow.source import Delivery, Source, SourceContext
from eventflow.testing.reading import Core, Reading


class SourceContract:
    """What every source promises. Subclass one of the three below, not this."""

    delivery: ClassVar[Delivery]
    deadline_seconds: ClassVar[float] = 10
    """How long a record may take from being sent to being in a batch."""
    prompt_seconds: ClassVar[float] = 2
    """How long closing may take."""
    core: Core

    # ------------------------------------------------------------------ what a subclass says

    def make(self, context: SourceContext) -> Source:
        """A new instance, always on the same system: as after a restart."""
        raise NotImplementedError

    def key_of(self, event: Event) -> str:
        """The key that was sent."""
        raise NotImplementedError

    def keys_of(self, event: Event) -> Sequence[str]:
        """The keys that the event stands for: several, of a source that only says how much has come."""
        return [self.key_of(event)]

    # ------------------------------------------------------------------ what the tests share

    @pytest.fixture(autouse=True)
    def _core(self, tmp_path: Path) -> None:
        self.core = Core(tmp_path)

    def reading(self) -> Reading:
        """A new instance, to be read from where the last one stood."""
        source = self.make(self.core.context())
        return Reading(source, self.core, self.deadline_seconds, self.prompt_seconds, self._sent)

    def keys(self, records: Sequence[Record]) -> list[str]:
        """The keys of events, in their order; a broken record fails the test with its reason."""
        keys: list[str] = []
        for record in records:
            assert isinstance(record, Event), f"undecodable: {record.reason}"
            keys += self.keys_of(record)
        return keys

    def _sent(self, records: Sequence[Record]) -> int:
        """How many things that were sent the records stand for."""
        return sum(len(self.keys_of(record)) if isinstance(record, Event) else 1 for record in records)

    # ------------------------------------------------------------------ the tests

    def test_words_of_the_rule_file_are_checked(self) -> None:
        config = type(self.make(self.core.context())).Config
        assert config.model_config.get("extra") == "forbid", "a misspelt word must be an error"

    async def test_says_how_it_delivers_and_what_stands_behind_it(self) -> None:
        first, second = self.make(self.core.context()), self.make(self.core.context())
        assert first.delivery is self.delivery
        assert await first.origin() == await second.origin()
        partitions = await first.partitions()
        assert len(set(partitions)) == len(partitions)

    async def test_closes_promptly_while_it_waits(self) -> None:
        before = asyncio.all_tasks()
        async with self.reading():
            for _ in range(3):
                await asyncio.sleep(0)
        left = asyncio.all_tasks() - before
        assert not left, f"tasks outlive the source: {left}"


class OwnedSourceContract(SourceContract):
    """What the contracts of ordered and ledger sources share."""

    async def send(self, key: str) -> None:
        """Put one record into the system; keys are short and differ. Returns once it is there for good."""
        raise NotImplementedError

    async def send_broken(self) -> bytes | None:
        """Put one record there that cannot be decoded: its bytes; None where the system cannot hold one."""
        raise NotImplementedError

    async def acknowledged(self) -> Collection[str] | None:
        """The keys that the system takes for acknowledged; None where it keeps no such thing."""
        return None

    own_lag: ClassVar[int] = 0
    """How much lag the system may show where all was taken in, by what it writes itself."""

    async def send_all(self, keys: Sequence[str]) -> None:
        """One after the other."""
        for key in keys:
            await self.send(key)

    async def test_hands_over_what_is_there_and_what_comes(self) -> None:
        await self.send_all(["a1", "a2", "a3"])
        async with self.reading() as reading:
            records = await reading.take(3)
            await self.send_all(["a4", "a5"])
            records += await reading.take(2)
        assert sorted(self.keys(records)) == ["a1", "a2", "a3", "a4", "a5"]
        assert len({record.id for record in records if isinstance(record, Event)}) == len(records)
        assert all(record.source == _only_source(records) and record.raw for record in records)

    async def test_a_restart_neither_loses_nor_repeats(self) -> None:
        """With an instance for every single batch."""
        await self.send_all(["a1", "a2", "a3"])
        sent, taken = 3, 0
        while taken < sent:
            async with self.reading() as reading:
                partition, batch = await reading.next()
                await reading.commit(partition, batch)
                taken += self._sent(batch.records)
            if sent < 6:
                sent += 1
                await self.send(f"b{sent}")
        assert sorted(self.keys(self.core.taken)) == ["a1", "a2", "a3", "b4", "b5", "b6"]

    async def test_what_was_not_committed_comes_again(self) -> None:
        await self.send_all(["a1", "a2", "a3"])
        async with self.reading() as reading:
            _, lost = await reading.next()
        async with self.reading() as reading:
            again = await reading.take(3)
        assert sorted(self.keys(again)) == ["a1", "a2", "a3"]
        first = {record.id for record in lost.records if isinstance(record, Event)}
        assert first <= {record.id for record in again if isinstance(record, Event)}, "another id: a double"

    async def test_nothing_is_acknowledged_before_the_commit(self) -> None:
        await self.send_all(["a1", "a2"])
        async with self.reading() as reading:
            partition, batch = await reading.next()
            assert not await self.acknowledged()
            await reading.commit(partition, batch)
            acknowledged = await self.acknowledged()
        assert acknowledged is None or set(acknowledged) >= set(self.keys(batch.records))

    async def test_what_cannot_be_decoded_is_kept_whole(self) -> None:
        await self.send("a1")
        raw = await self.send_broken()
        if raw is None:
            pytest.skip("this system cannot hold an undecodable record")
        await self.send("a2")
        async with self.reading() as reading:
            records = await reading.take(3)
        broken = [record for record in records if isinstance(record, Broken)]
        assert [record.raw for record in broken] == [raw]
        assert broken[0].reason
        assert broken[0].position is not None, "where it stood"
        events = [record for record in records if isinstance(record, Event)]
        assert sorted(self.keys(events)) == ["a1", "a2"], "a bad record harms only itself"

    async def test_lag_is_gone_once_all_is_taken(self) -> None:
        """Only of a source that is `Measured`."""
        if not hasattr(self.make(self.core.context()), "progress"):
            return
        await self.send_all(["a1", "a2", "a3"])
        async with self.reading() as reading:
            await reading.take(3)
            async with asyncio.timeout(self.deadline_seconds):
                while (lag := await self._lag(reading)) is not None and lag > self.own_lag:  # noqa: ASYNC110 - no system tells
                    await asyncio.sleep(0.05)
            await self.send("a4")
            async with asyncio.timeout(self.deadline_seconds):
                while lag is not None and (await self._lag(reading) or 0) <= 0:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.05)
            assert self.keys(await reading.take(1)) == ["a4"]

    async def _lag(self, reading: Reading) -> int | None:
        source: Any = reading.source
        told = [await source.progress(p, self.core.cursor(p)) for p in await source.partitions()]
        assert all(one.unit for one in told)
        return None if any(one.lag is None for one in told) else sum(one.lag for one in told)


class OrderedSourceContract(OwnedSourceContract):
    """A source with a cursor."""

    delivery = Delivery.ordered

    async def send_nothing(self) -> bool:
        """Put there what is no record but moves the position; False where the system has no such thing."""
        return False

    async def test_cursors_survive_json(self) -> None:
        await self.send_all(["a1", "a2", "a3"])
        async with self.reading() as reading:
            _, batch = await reading.next()
        assert decode_json(encode_json(batch.cursor)) == batch.cursor

    async def test_a_restart_goes_on_after_the_last_commit_in_order(self) -> None:
        before, after = [f"a{n}" for n in range(6)], [f"b{n}" for n in range(6)]
        committed: defaultdict[str, list[str]] = defaultdict(list)
        for keys in (before, after):
            await self.send_all(keys)
            async with self.reading() as reading:
                while sum(map(len, committed.values())) < (6 if keys is before else 12):
                    partition, batch = await reading.next()
                    committed[partition] += self.keys(batch.records)
                    await reading.commit(partition, batch)
        for partition, keys in committed.items():
            assert keys == [key for key in before + after if key in keys], f"order of {partition!r}"
        assert sorted(key for keys in committed.values() for key in keys) == sorted(before + after)

    async def test_an_old_cursor_gives_the_same_records_again(self) -> None:
        """A cursor is a position and nothing else: no state of the instance belongs to it."""
        await self.send_all(["a1", "a2", "a3"])
        async with self.reading() as reading:
            first = await reading.take(3)
        self.core = Core(Path())
        async with self.reading() as reading:
            again = await reading.take(3)
        assert {_identity(record) for record in first} == {_identity(record) for record in again}

    async def test_what_is_no_record_moves_the_position_alone(self) -> None:
        """Else it would be read again after every restart, or take the lag for records."""
        await self.send("a1")
        async with self.reading() as reading:
            await reading.take(1)
            if not await self.send_nothing():
                return
            partition, batch = await reading.next_of_any_kind()
            assert not batch.records
            assert batch.cursor != self.core.cursor(partition)
            await reading.commit(partition, batch)
            await self.send("a2")
            assert self.keys(await reading.take(1)) == ["a2"]

    async def test_a_person_lets_it_go_on_elsewhere(self) -> None:
        """Only of a source that is `Resumable`: what comes after the new position is not lost."""
        if not hasattr(self.make(self.core.context()), "resume_at"):
            return
        await self.send_all(["a1", "a2", "a3"])
        async with self.reading() as reading:
            await reading.take(3)
        await self.send("passed")
        await self._resume_at("latest")
        await self.send("a4")
        async with self.reading() as reading:
            assert self.keys(await reading.take(1)) == ["a4"]
        await self._resume_at("earliest")
        await self.send("a5")
        again: list[str] = []
        async with self.reading() as reading:
            while "a5" not in again:
                again += self.keys(await reading.take(1))
        with pytest.raises(UsageError):
            await self._resume_at("no such position")

    async def _resume_at(self, where: str) -> None:
        source: Any = self.make(self.core.context())
        for partition in await source.partitions():
            found = await source.resume_at(partition, self.core.cursor(partition), where)
            assert decode_json(encode_json(found.missing)) == found.missing
            self.core.move(partition, found.cursor)


class LedgerSourceContract(OwnedSourceContract):
    """A source without order, whose items the ledger remembers."""

    delivery = Delivery.ledger

    async def send_again(self, key: str) -> None:
        """The system repeats itself: the same item with nothing new about it. By default `send`."""
        await self.send(key)

    async def test_an_item_that_is_repeated_is_not_handed_over_again(self) -> None:
        await self.send("a1")
        async with self.reading() as reading:
            await reading.take(1)
            await self.send_again("a1")
            await self.send("a2")
            records = await reading.take(1)
        await self.send_again("a1")
        await self.send("a3")
        async with self.reading() as reading:
            records += await reading.take(1)
        assert self.keys(records) == ["a2", "a3"]

    async def test_a_mark_that_lost_is_left_to_the_node_that_won(self) -> None:
        await self.send("a1")
        async with self.reading() as reading:
            partition, batch = await reading.next()
            for mark in batch.marks:  # the other node was faster
                assert self.core.write(mark)
            await reading.commit(partition, batch)
            await self.send("a2")
            records = await reading.take(1)
        assert self.keys(records) == ["a2"]
        assert self.keys(self.core.taken) == ["a2"]


class PushedSourceContract(SourceContract):
    """A source whose senders wait for an answer."""

    delivery = Delivery.pushed

    async def push(self, source: Source, key: str) -> bool:
        """Send to this very instance, with an id made from `key`; whether the answer was that it is safe."""
        raise NotImplementedError

    async def push_broken(self, source: Source) -> bytes | None:
        """Send what cannot be decoded and wait for the answer: its bytes; None where that is turned away."""
        raise NotImplementedError

    async def test_answers_only_after_the_commit(self) -> None:
        async with self.reading() as reading:
            sender = asyncio.ensure_future(self.push(reading.source, "a1"))
            partition, batch = await reading.next()
            for _ in range(10):
                await asyncio.sleep(0)
            assert not sender.done(), "answered before the commit"
            await reading.commit(partition, batch)
            async with asyncio.timeout(self.prompt_seconds):
                assert await sender
        assert self.keys(batch.records) == ["a1"]

    async def test_tells_the_sender_when_it_did_not_commit(self) -> None:
        async with self.reading() as reading:
            sender = asyncio.ensure_future(self.push(reading.source, "a1"))
            partition, batch = await reading.next()
            await reading.refuse(partition, batch)
            async with asyncio.timeout(self.prompt_seconds):
                assert not await sender
            sender = asyncio.ensure_future(self.push(reading.source, "a1"))
            assert self.keys(await reading.take(1)) == ["a1"]
            assert await sender

    async def test_concurrent_senders_are_each_answered(self) -> None:
        keys = [f"a{n}" for n in range(50)]
        async with self.reading() as reading:
            senders = [asyncio.ensure_future(self.push(reading.source, key)) for key in keys]
            records = await reading.take(len(keys))
            assert all(await asyncio.gather(*senders))
        assert sorted(self.keys(records)) == sorted(keys)

    async def test_a_repeat_shares_its_key_with_the_first(self) -> None:
        async with self.reading() as reading:
            senders = [asyncio.ensure_future(self.push(reading.source, key)) for key in ("a1", "a1", "a2")]
            records = await reading.take(3)
            await asyncio.gather(*senders)
        dedupe = {key: record.dedupe for key, record in zip(self.keys(records), records, strict=True)}
        assert all(dedupe.values()), "without a key a sender's retry is a second event"
        assert len({record.dedupe for record in records}) == 2

    async def test_what_cannot_be_decoded_is_kept_whole(self) -> None:
        async with self.reading() as reading:
            sender = asyncio.ensure_future(self.push_broken(reading.source))
            waiting = asyncio.ensure_future(reading.take(1))
            await asyncio.wait({sender, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if sender.done() and sender.result() is None:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                pytest.skip("this source turns undecodable requests away")
            records = await waiting
            raw = await sender
        assert [type(record) for record in records] == [Broken]
        assert records[0].raw == raw


def _only_source(records: Sequence[Record]) -> str:
    names = {record.source for record in records}
    assert len(names) == 1, f"records of several sources: {names}"
    return names.pop()


def _identity(record: Record) -> tuple[str, bytes]:
    return (record.id if isinstance(record, Event) else "", record.raw)
