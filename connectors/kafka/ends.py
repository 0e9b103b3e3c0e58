"""Where logs end, asked for all partitions together, and what that says of a position."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from connectors.kafka.cluster import LATEST, At, Cluster
from connectors.kafka.protocol import READ_COMMITTED, READ_UNCOMMITTED
from eventflow.offers import Progress

FRESH_SECONDS: Final = 2.0
FORGET_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class End:
    """`log` is the offset after the last record, `stable` after the last that no open transaction holds."""

    log: int
    stable: int


class Ends:
    """The ends of the partitions that somebody asks for, each answer good for a moment."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._asked: dict[At, float] = {}
        self._found: dict[At, End] = {}
        self._refused: dict[At, str] = {}
        self._at = -FRESH_SECONDS
        self._asking = asyncio.Lock()
        self._held: dict[At, tuple[int, datetime]] = {}

    async def progress(self, cluster: Cluster, at: At, offset: int) -> Progress:
        """How far `offset` is behind the end. Raises `SourceUnavailable`."""
        end = await self._end(cluster, at)
        if end is None:
            return Progress(None, "records", self._refused.get(at, "no broker leads it just now"))
        return Progress(max(0, end.log - offset), "records", self._note(at, offset, end))

    async def _end(self, cluster: Cluster, at: At) -> End | None:
        async with self._asking:
            now = time.monotonic()
            self._asked[at] = now
            if at not in self._found or now - self._at > FRESH_SECONDS:
                self._asked = {one: when for one, when in self._asked.items() if now - when < FORGET_SECONDS}
                await cluster.layout(now - FRESH_SECONDS)
                wanted = dict.fromkeys(self._asked, LATEST)
                log, self._refused = await cluster.answers(READ_UNCOMMITTED, wanted)
                stable, _ = await cluster.answers(READ_COMMITTED, wanted)  # the later, so never seen behind
                self._found = {one: End(log[one], stable[one]) for one in log.keys() & stable.keys()}
                self._at = time.monotonic()
            return self._found.get(at)

    def _note(self, at: At, offset: int, end: End) -> str | None:
        if end.stable >= end.log or offset < end.stable:
            self._held.pop(at, None)
            return None
        held = self._held.get(at)
        if held is None or held[0] != end.stable:  # another transaction, or the first look
            held = self._held[at] = (end.stable, self._now())
        since = held[1].strftime("%Y-%m-%d %H:%M:%SZ")
        return f"an open transaction holds back {end.log - end.stable} records since {since} or before"
