"""`connector: numbered`: a folder of append-only files of JSON lines, the ordered source of the tests.

Each file `NAME.log` is the partition NAME; the cursor is the number of lines behind it. Found through
the entry point that every connector uses: put this folder on PYTHONPATH.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import BinaryIO, ClassVar

from pydantic import BaseModel, ConfigDict

from eventflow.errors import SourceStopped, SourceUnavailable, Undecodable
from eventflow.event import JSON, Broken, Event, Record, decode_json
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
                        f"source '{self._name}': {partition} had {number} lines and has {line} now"
                    )
            while True:
                lines = _whole_lines(file)
                if lines:
                    records = [self._record(partition, number + n, line) for n, line in enumerate(lines, 1)]
                    number += len(lines)
                    yield Batch(records, cursor=number)
                else:
                    await asyncio.sleep(POLL_SECONDS)

    async def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None:
        """Nobody waits for it: the cursor is all there is."""

    async def refused(self, batch: Batch, error: Exception) -> None:
        """As above."""

    def _open(self, partition: str) -> BinaryIO:
        try:
            return (self._folder / f"{partition}.log").open("rb")
        except OSError as error:
            raise SourceUnavailable(f"source '{self._name}': {partition}: {error.strerror}") from error

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
