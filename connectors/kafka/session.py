"""What everything a source does at one time shares with each other: one cluster, one group's offsets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from connectors.kafka.access import access
from connectors.kafka.cluster import Cluster
from connectors.kafka.config import KafkaConfig
from connectors.kafka.ends import Ends
from connectors.kafka.group import GroupOffsets
from eventflow.holes import fill
from eventflow.source import SourceContext


@dataclass(frozen=True, slots=True)
class Session:
    """Open while somebody uses it."""

    cluster: Cluster
    group: GroupOffsets
    ends: Ends


class Sessions:
    """One session at most: opened by the first who wants it, secrets as they are then; closed by the last.

    So a source that nobody reads keeps no connection and no task.
    """

    def __init__(self, name: str, config: KafkaConfig, context: SourceContext) -> None:
        self._name = name
        self._config = config
        self._context = context
        self._opening = asyncio.Lock()
        self._session: Session | None = None
        self._users = 0

    @property
    def current(self) -> Session | None:
        """The one that is open."""
        return self._session

    @asynccontextmanager
    async def use(self) -> AsyncGenerator[Session]:
        """The session, for as long as the block lasts. Raises `SourceUnavailable`."""
        async with self._opening:
            session = self._session
            if session is None:
                session = self._session = await self._open()
            self._users += 1
        try:
            yield session
        finally:
            self._users -= 1
            if not self._users:
                self._session = None
                await session.group.close()
                await session.cluster.close()

    async def _open(self) -> Session:
        config, secret = self._config, self._context.secret
        reached = await asyncio.to_thread(access, self._name, config, self._context.folder, secret)
        topics = None if config.topics is None else [fill(topic, secret) for topic in config.topics]
        cluster = Cluster(self._name, reached, topics)
        group = config.group or f"eventflow-{self._name}"
        return Session(
            cluster, GroupOffsets(self._name, fill(group, secret), cluster), Ends(self._context.now)
        )
