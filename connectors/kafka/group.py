"""The group's offsets, for lag tools alone: they follow what is committed in Postgres, and nobody reads them.

Its failures harm nothing, so they are said once and tried again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import structlog
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest

from connectors.kafka.cluster import At, Cluster, error_name
from eventflow.errors import SourceUnavailable

PAUSE_SECONDS: Final = 0.5
"""What is committed meanwhile goes in one request."""
AFTER_FAILURE_SECONDS: Final = 10.0
SOON: Final = frozenset({14, 15, 16})
"""The coordinator is loading, being chosen or has moved: it is asked again soon, and nothing is said."""
GONE: Final = frozenset({3, 29})
"""No such topic, or not ours to read: its offsets are given up, until there is a newer one."""
LAYOUT_SECONDS: Final = 30.0
LAST_SECONDS: Final = 0.5
"""What the last offsets may take when nothing is read any more."""

log = structlog.get_logger()


class GroupOffsets:
    """Publishes positions under one group name, in the background of one session."""

    def __init__(self, source: str, group: str, cluster: Cluster) -> None:
        self._log = log.bind(source=source, group=group)
        self._group = group
        self._cluster = cluster
        self._waiting: dict[At, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._failed = False
        self._gone: dict[At, int] = {}

    def publish(self, at: At, offset: int) -> None:
        """The next offset to read of this partition; returns at once."""
        self._waiting[at] = offset
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Publish what is left, if that is quick."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._waiting and not self._failed:
            try:
                async with asyncio.timeout(LAST_SECONDS):
                    await self._send()
            except TimeoutError:
                self._say("no answer")

    async def _follow(self) -> None:
        while self._waiting:
            await asyncio.sleep(AFTER_FAILURE_SECONDS if self._failed else PAUSE_SECONDS)
            await self._send()

    async def _send(self) -> None:
        waiting = dict(self._waiting)
        try:
            codes = await self._commit(waiting)
        except SourceUnavailable as away:
            return self._say(str(away))
        for at, offset in waiting.items():
            code = codes.get(at, 0)
            self._say_gone(at, code)
            if (not code or code in GONE) and self._waiting.get(at) == offset:
                del self._waiting[at]
        refused = next((code for code in codes.values() if code and code not in SOON | GONE), 0)
        if refused:
            self._say(error_name(refused))
        elif not SOON.intersection(codes.values()):
            self._failed = False
        return None

    def _say(self, error: str) -> None:
        if not self._failed:
            self._log.warning("group_offsets_not_published", reason=error)
        self._failed = True

    def _say_gone(self, at: At, code: int) -> None:
        if code in GONE and self._gone.get(at) != code:
            self._log.warning(
                "group_offsets_not_published", topic=at[0], partition=at[1], reason=error_name(code)
            )
            self._gone[at] = code
        elif not code:
            self._gone.pop(at, None)

    async def _commit(self, offsets: Mapping[At, int]) -> Mapping[At, int]:
        """The coordinator's code of each, 0: done. As a consumer with assigned partitions: no generation."""
        layout = await self._cluster.layout(time.monotonic() - LAYOUT_SECONDS)
        anyone = random.choice(list(layout.brokers))  # noqa: S311 - one of them may be away
        found = await self._cluster.ask(anyone, FindCoordinatorRequest(self._group, 0))
        if found.error_code:
            return {at: found.error_code for at in offsets}
        topics: defaultdict[str, list[tuple[int, int, str]]] = defaultdict(list)
        for (topic, number), offset in offsets.items():
            topics[topic].append((number, offset, ""))
        answer = await self._cluster.ask(
            found.coordinator_id, OffsetCommitRequest(self._group, -1, "", -1, list(topics.items()))
        )
        return {(topic, number): code for topic, partitions in answer.topics for number, code in partitions}
