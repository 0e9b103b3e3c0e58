"""The sink as the driver sees it: lines that tasks wrote outside eventflow's database."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.chaos.model import RunKey
from tests.chaos.seen import SinkLine


class Sink:
    """Follows the sink's file; `seen` holds the (rule, key) of runs of which a task has ended."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self.lines: list[SinkLine] = []
        self.seen: set[RunKey] = set()
        self._file = path.open("rb")
        self._rest = b""
        self._news = asyncio.Event()

    def follow(self) -> None:
        """Read what is new. A line without its end waits for the rest."""
        *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
        for text in whole:
            line = SinkLine(**json.loads(text))
            self.lines.append(line)
            if line.phase == "end":
                self.seen.add((line.rule, line.key))
        if whole:
            self._news.set()
            self._news = asyncio.Event()

    async def wait_for(self, key: RunKey) -> None:
        """Until a task of this run has ended; whoever calls `follow` wakes the waiter."""
        while key not in self.seen:
            await self._news.wait()
