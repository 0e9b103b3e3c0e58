"""The contract suite finds what is wrong with a source."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import BaseModel, ConfigDict

from eventflow.errors import Undecodable, UsageError
from eventflow.event import JSON, Broken, Event, Record, decode_json, new_uid
from eventflow.offers import Progress, Resumption
from eventflow.source import Batch, Delivery, Mark, Receipt, Source, SourceContext
from eventflow.testing.reading import Core
from eventflow.testing.source_contract import (
    LedgerSourceContract,
    OrderedSourceContract,
    OwnedSourceContract,
    PushedSourceContract,
    SourceContract,
)


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Log:
    """The system behind the sources: lines, whoever waits for new ones, and what was acknowledged."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.acknowledged: set[str] = set()
        self.grown = asyncio.Condition()

    async def append(self, line: bytes) -> None:
        async with self.grown:
            self.lines.append(line)
            self.grown.notify_all()

    async def longer_than(self, length: int) -> None:
        async with self.grown:
            await self.grown.wait_for(lambda: len(self.lines) > length)


class Flawed:
    """An ordered or a ledger source over the log, right but for its `flaw`."""

    Config: ClassVar[type[BaseModel]] = Config
    delivery: ClassVar[Delivery] = Delivery.ordered

    def __init__(self, log: Log, context: SourceContext, flaw: str) -> None:
        self.log, self.context, self.flaw = log, context, flaw

    async def origin(self) -> str | None:
        return f"{new_uid()}" if self.flaw == "another origin each time" else "log"

    async def partitions(self) -> Sequence[str]:
        return [""]

    async def batches(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        try:
            at = 0 if self.delivery is Delivery.ledger or self.flaw == "forgets the cursor" else cursor or 0
            while True:
                await self.log.longer_than(at)
                numbers = range(at, len(self.log.lines))
                at = len(self.log.lines)
                if self.flaw == "runs backwards":
                    numbers = numbers[::-1]
                if batch := await self.batch(numbers, at):
                    yield batch
        finally:
            if self.flaw == "does not close":
                await asyncio.sleep(60)

    async def batch(self, numbers: Sequence[int], at: int) -> Batch | None:
        lines = [(number, self.log.lines[number]) for number in numbers]
        if self.delivery is Delivery.ledger and self.flaw != "does not ask the ledger":
            known = await self.context.known([line for _, line in lines])
            lines = [(number, line) for number, line in lines if line not in known]
        lines = list({line: (number, line) for number, line in lines}.values())
        records = [self.record(number, line) for number, line in lines]
        if self.flaw == "drops what it cannot decode":
            records = [record for record in records if isinstance(record, Event)]
        if self.flaw == "acknowledges before the commit":
            self.log.acknowledged.update(record.id for record in records if isinstance(record, Event))
        if self.delivery is Delivery.ordered:
            cursor = {"at": at, "of": (1, 2)} if self.flaw == "has a cursor that is no JSON" else at
            return Batch(records, cursor=at + 1 if self.flaw == "skips" else cursor)
        marks = [Mark(line, line, 1, index) for index, (_, line) in enumerate(lines)]
        if self.flaw == "has records without marks":
            marks = marks[1:]
        return Batch(records, marks=marks) if records else None

    def record(self, number: int, line: bytes) -> Record:
        try:
            data = decode_json(line)
        except Undecodable as error:
            raw = b"" if self.flaw == "changes the bytes" else line
            return Broken("log", raw, error.reason, number)
        id_ = f"{new_uid()}" if self.flaw == "makes new ids" else f"{data}"
        return Event("log", id_, "line", data, line)

    async def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None:
        if self.flaw == "trips over a lost mark":
            assert all(receipts)
        self.log.acknowledged.update(record.id for record in batch.records if isinstance(record, Event))

    async def refused(self, batch: Batch, error: Exception) -> None: ...


class FlawedOrdered(Flawed):
    """With what an ordered source may offer; a line that begins with `#` is no record."""

    async def batch(self, numbers: Sequence[int], at: int) -> Batch | None:
        found = await super().batch([n for n in numbers if self.log.lines[n][:1] != b"#"], at)
        stands_still = self.flaw == "stands still over what is no record"
        return None if found is None or (stands_still and not found.records) else found

    async def progress(self, partition: str, cursor: JSON) -> Progress:
        lag = 0 if self.flaw == "never lags" else len(self.log.lines) - (cursor or 0)
        return Progress(lag + 5 * (self.flaw == "lags for ever"), "lines")

    async def resume_at(self, partition: str, cursor: JSON, where: str) -> Resumption:
        if where not in ("earliest", "latest"):
            raise UsageError(where)
        there = len(self.log.lines)
        latest = where == "latest" and self.flaw != "goes on at the beginning"
        return Resumption(there + (self.flaw == "goes on too far") if latest else 0, None)


class FlawedLedger(Flawed):
    delivery: ClassVar[Delivery] = Delivery.ledger


class Contract(OwnedSourceContract):
    deadline_seconds = 0.5
    prompt_seconds = 0.2
    flaw = ""

    def __init__(self) -> None:
        self.log = Log()
        self.core = Core(Path())

    def make(self, context: SourceContext) -> Source:
        kind = FlawedLedger if self.delivery is Delivery.ledger else FlawedOrdered
        return kind(self.log, context, self.flaw)

    async def send(self, key: str) -> None:
        await self.log.append(f'"{key}"'.encode())

    async def send_broken(self) -> bytes | None:
        await self.log.append(b"{")
        return b"{"

    async def acknowledged(self) -> Collection[str] | None:
        return self.log.acknowledged

    def key_of(self, event: Event) -> str:
        return event.data


class Ordered(Contract, OrderedSourceContract):
    async def send_nothing(self) -> bool:
        await self.log.append(b"# nothing")
        return True


class Ledger(Contract, LedgerSourceContract): ...


class PushSource:
    """Answers before the commit, forgets whom it refused, or has no key, as its `flaw` says."""

    Config: ClassVar[type[BaseModel]] = Config
    delivery: ClassVar[Delivery] = Delivery.pushed

    def __init__(self, flaw: str) -> None:
        self.flaw = flaw
        self.waiting: asyncio.Queue[tuple[Event, asyncio.Future[bool]]] = asyncio.Queue()
        self.answers: dict[str, asyncio.Future[bool]] = {}

    async def origin(self) -> str | None:
        return None

    async def partitions(self) -> Sequence[str]:
        return [""]

    async def batches(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        while True:
            event, answer = await self.waiting.get()
            batch = Batch([event])
            self.answers[str(batch.id)] = answer
            yield batch

    async def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None:
        answer = self.answers.pop(str(batch.id))
        if not answer.done():
            answer.set_result(True)

    async def refused(self, batch: Batch, error: Exception) -> None:
        if self.flaw != "forgets whom it refused":
            self.answers.pop(str(batch.id)).set_result(False)

    async def push(self, key: str) -> bool:
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        dedupe = None if self.flaw == "has no key" else key.encode()
        self.waiting.put_nowait((Event("push", f"{new_uid()}", "push", key, b'"x"', dedupe=dedupe), answer))
        if self.flaw == "answers before the commit":
            answer.set_result(True)
        return await answer


class Pushed(PushedSourceContract):
    deadline_seconds = 0.5
    prompt_seconds = 0.2
    flaw = ""

    def __init__(self) -> None:
        self.core = Core(Path())

    def make(self, context: SourceContext) -> Source:
        return PushSource(self.flaw)

    async def push(self, source: Source, key: str) -> bool:
        assert isinstance(source, PushSource)
        return await source.push(key)

    async def push_broken(self, source: Source) -> bytes | None:
        return None

    def key_of(self, event: Event) -> str:
        return event.data


FLAWS: Sequence[tuple[type[SourceContract], str, str]] = [
    (Ordered, "forgets the cursor", "test_a_restart_goes_on_after_the_last_commit_in_order"),
    (Ordered, "skips", "test_a_restart_goes_on_after_the_last_commit_in_order"),
    (Ordered, "runs backwards", "test_a_restart_goes_on_after_the_last_commit_in_order"),
    (Ordered, "has a cursor that is no JSON", "test_cursors_survive_json"),
    (Ordered, "makes new ids", "test_what_was_not_committed_comes_again"),
    (Ordered, "makes new ids", "test_an_old_cursor_gives_the_same_records_again"),
    (Ordered, "acknowledges before the commit", "test_nothing_is_acknowledged_before_the_commit"),
    (Ordered, "drops what it cannot decode", "test_what_cannot_be_decoded_is_kept_whole"),
    (Ordered, "changes the bytes", "test_what_cannot_be_decoded_is_kept_whole"),
    (Ordered, "does not close", "test_closes_promptly_while_it_waits"),
    (Ordered, "another origin each time", "test_says_how_it_delivers_and_what_stands_behind_it"),
    (Ordered, "stands still over what is no record", "test_what_is_no_record_moves_the_position_alone"),
    (Ordered, "lags for ever", "test_lag_is_gone_once_all_is_taken"),
    (Ordered, "never lags", "test_lag_is_gone_once_all_is_taken"),
    (Ordered, "goes on at the beginning", "test_a_person_lets_it_go_on_elsewhere"),
    (Ordered, "goes on too far", "test_a_person_lets_it_go_on_elsewhere"),
    (Ledger, "does not ask the ledger", "test_a_restart_neither_loses_nor_repeats"),
    (Ledger, "does not ask the ledger", "test_an_item_that_is_repeated_is_not_handed_over_again"),
    (Ledger, "has records without marks", "test_hands_over_what_is_there_and_what_comes"),
    (Ledger, "trips over a lost mark", "test_a_mark_that_lost_is_left_to_the_node_that_won"),
    (Pushed, "answers before the commit", "test_answers_only_after_the_commit"),
    (Pushed, "forgets whom it refused", "test_tells_the_sender_when_it_did_not_commit"),
    (Pushed, "has no key", "test_a_repeat_shares_its_key_with_the_first"),
]


@pytest.mark.parametrize(("kind", "flaw", "test"), FLAWS)
async def test_finds_a_source_that(kind: type[SourceContract], flaw: str, test: str) -> None:
    contract = kind()
    await getattr(contract, test)()
    contract = type("Wrong", (kind,), {"flaw": flaw})()
    with pytest.raises((AssertionError, TimeoutError)):
        await getattr(contract, test)()
