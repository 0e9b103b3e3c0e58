"""A folder where files land, read by the file source; the ledger is the contract suite's core."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from connectors.file import FileSource
from connectors.file.config import FileConfig
from eventflow.event import Event, Record
from eventflow.testing.reading import Core, Reading


class Landing:
    """A watched folder, one beside it on the same file system, and a ledger that outlives the sources."""

    def __init__(self, folder: Path) -> None:
        self.root, self.aside = folder / "landing", folder / "aside"
        self.root.mkdir()
        self.aside.mkdir()
        self.core = Core(folder)
        self._files = 0

    def source(self, **words: Any) -> FileSource:
        given = {"path": "landing", "initial": "process", "settle": {"quiet": "100ms"}, **words}
        return FileSource("files", FileConfig.model_validate(given), self.core.context())

    def read(self, **words: Any) -> Reading:
        return Reading(self.source(**words), self.core, deadline=20)

    def put(self, path: str, content: bytes = b"x") -> Path:
        """Rename a file into place."""
        self._files += 1
        beside, there = self.aside / f"{self._files}", self.root / path
        beside.write_bytes(content)
        there.parent.mkdir(parents=True, exist_ok=True)
        return beside.rename(there)

    async def until_watched(self, reading: Reading) -> None:
        """Files renamed into place one after the other, until the first is noticed by its rename."""
        noticed = asyncio.create_task(reading.take(1))
        while not noticed.done():
            self.put(f"probe-{self._files}")
            await asyncio.wait({noticed}, timeout=0.1)
        await noticed

    async def next(self, reading: Reading) -> list[str]:
        """What the next record says: type, path, generation; a last file proves that nothing else came."""
        records = await reading.take(1)
        return [*map(said, records), *await self.rest(reading)]

    async def rest(self, reading: Reading) -> list[str]:
        """Everything that comes before a file which is put there now."""
        last = f"last-{self._files}"
        self.put(last)
        records, came = list[Record](), list[str]()
        while not came or not any(last in each for each in came[-len(records) :]):
            records = await reading.take(1)
            came += map(said, records)
        return [each for each in came if "last-" not in each and "probe-" not in each]


def said(record: Record) -> str:
    return f"{record.type} {record.id}" if isinstance(record, Event) else f"broken {record.reason}"


def burst(landing: Landing, count: int) -> subprocess.Popen[bytes]:
    """Another process that renames `count` files into place as fast as it can, after a line on its stdin."""
    code = """
import os, sys
aside, root, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.stdin.readline()
for number in range(count):
    with open(f"{aside}/{number}", "wb") as file:
        file.write(b"%d" % number)
    os.rename(f"{aside}/{number}", f"{root}/{number}")
"""
    arguments = [str(landing.aside), str(landing.root), str(count)]
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE)


def until_no_thread_is_left() -> None:
    """A source that was closed leaves no thread behind."""
    deadline = time.monotonic() + 5
    while left := [t for t in threading.enumerate() if t.name.startswith("eventflow-")]:
        assert time.monotonic() < deadline, left
        left[0].join(0.1)
