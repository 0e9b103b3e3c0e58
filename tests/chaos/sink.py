"""The sink as the driver sees it: lines that tasks wrote outside eventflow's database."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.chaos.model import RunKey
from tests.chaos.seen import SinkLine


class Sink:
    """Follows the sink's file; `seen` holds, by (rule, key), the runs of which a task has ended,
    `ended` all of them."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self.lines: list[SinkLine] = []
        self.seen: defaultdict[RunKey, set[str]] = defaultdict(set)
        self.ended: set[str] = set()
        self._file = path.open("rb")
        self._rest = b""
        self._news = asyncio.Event()

    def follow(self) -> None:
        """Read what is new. A line without its end waits for the rest."""
        *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
        for text in whole:
            fields: dict[str, Any] = json.loads(text)
            fields["at"] = float(fields["at"] or 0)
            line = SinkLine(**fields)
            self.lines.append(line)
            if line.phase == "end":
                self.seen[line.rule, line.key].add(line.run)
                self.ended.add(line.run)
        if whole:
            self._news.set()
            self._news = asyncio.Event()

    async def wait_for(self, key: RunKey, runs: int) -> None:
        """Until a task of so many of these runs has ended; whoever calls `follow` wakes the waiter."""
        while len(self.seen[key]) < runs:
            await self._news.wait()
