"""`connector: numbered`: a folder of append-only files of JSON lines, the ordered source of the tests.

Each file `NAME.log` is the partition NAME; the cursor is the number of lines behind it. A line that begins
with `#` is no record. Found through the entry point that every connector uses: put this folder on
PYTHONPATH. It has everything that a source may offer, for the tests of who asks for it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import BinaryIO, ClassVar

from pydantic import BaseModel, ConfigDict

from eventflow.errors import SourceStopped, SourceUnavailable, Undecodable, UsageError
from eventflow.event import JSON, Broken, Event, Record, decode_json
from eventflow.offers import Progress, Resumption
from eventflow.source import Batch, Delivery, Receipt, SourceContext

LONGEST_BATCH = 20
"""Small, so that a run has many batches to be interrupted in."""
POLL_SECONDS = 0.05


class NumberedConfig(BaseModel):
    """`path` is the folder, relative to the rule file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str


class NumberedSource:
    """All files of one folder, line by line."""

    Config: ClassVar[type[BaseModel]] = NumberedConfig
    delivery: ClassVar[Delivery] = Delivery.ordered

    def __init__(self, name: str, config: NumberedConfig, context: SourceContext) -> None:
        self._name = name
        self._folder = Path(context.folder, config.path)

    async def origin(self) -> str:
        return os.path.realpath(self._folder)

    async def partitions(self) -> Sequence[str]:
        try:
            return sorted(path.stem for path in self._folder.iterdir() if path.suffix == ".log")
        except OSError as error:
            raise SourceUnavailable(f"source '{self._name}': {self._folder}: {error.strerror}") from error

    async def batches(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        """Whole lines after line `cursor`; the end of a line that is still being written is waited for."""
        number = int(cursor or 0)
        with self._open(partition) as file:
            for line in range(number):
                if not file.readline().endswith(b"\n"):
                    raise SourceStopped(
                        f"source '{self._name}': {partition} had {number} lines and has {line} now",
                        {"first": line + 1, "last": number},
                    )
            while True:
                lines = _whole_lines(file)
                if lines:
                    records = self._records(partition, number, lines)
                    number += len(lines)
                    yield Batch(records, cursor=number)
                else:
                    await asyncio.sleep(POLL_SECONDS)

    async def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None:
        """Nobody waits for it: the cursor is all there is."""

    async def refused(self, batch: Batch, error: Exception) -> None:
        """As above."""

    async def again(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        """Every line up to the position that is still there."""
        number, end = 0, int(cursor or 0)
        with self._open(partition) as file:
            while lines := _whole_lines(file)[: end - number]:
                records = self._records(partition, number, lines)
                number += len(lines)
                yield Batch(records, cursor=number)

    async def progress(self, partition: str, cursor: JSON) -> Progress:
        """Comments count: they are passed over like records."""
        there = self._count(partition)
        note = "lines are gone" if there < int(cursor or 0) else None
        return Progress(max(0, there - int(cursor or 0)), "lines", note)

    async def resume_at(self, partition: str, cursor: JSON, where: str) -> Resumption:
        """Behind a line: its number, 0 for `earliest`, the last one for `latest`."""
        there, before = self._count(partition), int(cursor or 0)
        known = {"earliest": 0, "latest": there}
        if where not in known and not (where.isdigit() and int(where) <= there):
            raise UsageError(f"source '{self._name}': no position {where!r} in {partition}: 0 to {there}")
        after = known[where] if where in known else int(where)
        return Resumption(after, {"first": min(there, after, before) + 1, "last": max(after, before)})

    async def preparation(self) -> Sequence[str]:
        if self._folder.is_file():
            raise SourceUnavailable(f"source '{self._name}': {self._folder} is a file")
        return [] if self._folder.is_dir() else [f"mkdir -p '{self._folder}'"]

    async def prepare(self) -> Sequence[str]:
        needed = await self.preparation()
        self._folder.mkdir(parents=True, exist_ok=True)
        return needed

    async def examine(self) -> Sequence[str]:
        open_ended = [name for name in await self.partitions() if self._last_byte(name) not in b"\n"]
        return [f"{name} ends within a line, which is not handed over; end it" for name in open_ended]

    def _count(self, partition: str) -> int:
        with self._open(partition) as file:
            return sum(1 for line in file if line.endswith(b"\n"))

    def _last_byte(self, partition: str) -> bytes:
        with self._open(partition) as file:
            return file.read()[-1:]

    def _open(self, partition: str) -> BinaryIO:
        try:
            return (self._folder / f"{partition}.log").open("rb")
        except OSError as error:
            raise SourceUnavailable(f"source '{self._name}': {partition}: {error.strerror}") from error

    def _records(self, partition: str, before: int, lines: Sequence[bytes]) -> list[Record]:
        return [
            self._record(partition, number, line)
            for number, line in enumerate(lines, before + 1)
            if not line.startswith(b"#")
        ]

    def _record(self, partition: str, number: int, line: bytes) -> Record:
        raw = line.removesuffix(b"\n")
        try:
            data = decode_json(raw)
        except Undecodable as error:
            return Broken(self._name, raw, error.reason, {"partition": partition, "line": number})
        return Event(self._name, f"{partition}/{number}", "numbered.record", data, raw, subject=partition)


def _whole_lines(file: BinaryIO) -> list[bytes]:
    lines: list[bytes] = []
    while len(lines) < LONGEST_BATCH:
        start = file.tell()
        line = file.readline()
        if not line.endswith(b"\n"):
            file.seek(start)
            break
        lines.append(line)
    return lines
