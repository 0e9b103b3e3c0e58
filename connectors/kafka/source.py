"""The Kafka source: what eventflow calls. Read this first, then the parts in the order of a record's path.

    session.py, access.py  one session with the brokers while anybody needs it; how they are reached
    cluster.py, lane.py    who leads what; connections (listing.py: the answer of a large cluster)
    partition.py           a partition from a position on, up to a gap
    committed.py           which records of an answer count
    record.py              a record as an event (formats.py, cloudevents.py, debezium.py)
    group.py, ends.py      what lag tools see, and what `sources` shows
    dead_letters.py        copies of dead letters, where a topic is named for them

`config.py` are the words of the rule file, `position.py` is the cursor and the gaps, `protocol.py` requests
that aiokafka has no words for. Only `session.py`, `publish.py` and what they use import aiokafka.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, ClassVar, Final
from uuid import UUID

import structlog
from pydantic import BaseModel

from connectors.kafka.config import KafkaConfig
from connectors.kafka.record import RecordMaker, sends
from eventflow.errors import SourceUnavailable
from eventflow.event import JSON, Record
from eventflow.glob import compile_glob
from eventflow.offers import DeadLetter, Progress, Resumption, Sends
from eventflow.source import Batch, Delivery, Receipt, SourceContext

if TYPE_CHECKING:
    from connectors.kafka.cluster import Layout
    from connectors.kafka.session import Session, Sessions

LISTING_SECONDS: Final = 5.0
"""How old an answer about the cluster's topics may be."""
UNKNOWN_TOPIC: Final = 3

log = structlog.get_logger()


class KafkaSource:
    """Topics of one Kafka cluster, by name or by a glob over names.

    Unit of order and of parallelism: the topic's partition. One node at a time reads it, in offset order,
    without consumer groups; different partitions are read side by side.

    Guarantee: every committed record is handed over at least once until its batch commits, and counts once:
    the position in Postgres moves with the batch. Records of aborted transactions and of transactions that
    are still open are never handed over. A position that the log no longer has (retention, truncation,
    another topic of the name) stops the partition with the range; it never jumps.

    `initial: latest` is for what was there when the source was first opened, by any node: it begins at the
    end that it has when it is first read. What came later, while a node ran or while none did, is read from
    its beginning; so is what we could not see at first, and what changed words add.
    """

    Config: ClassVar[type[BaseModel]] = KafkaConfig
    delivery: ClassVar[Delivery] = Delivery.ordered

    def __init__(self, name: str, config: KafkaConfig, context: SourceContext) -> None:
        self._name = name
        self._config = config
        self._context = context
        self._glob = None if config.pattern is None else compile_glob(config.pattern)
        self._maker = RecordMaker(name, config, context.expression)
        self._sessions_made: Sessions | None = None
        self._listed: Layout | None = None
        self._began_with: Collection[str] | None = None
        self._missing: frozenset[str] = frozenset()
        self._handed_over: dict[UUID, tuple[str, int]] = {}

    @classmethod
    def sends(cls, config: KafkaConfig) -> Sends:
        """What its records may be."""
        return sends(config)

    async def origin(self) -> str:
        """The cluster's id."""
        return (await self._layout()).cluster_id

    async def partitions(self) -> Sequence[str]:
        """`topic/number` of every partition there is. Topics that come later are found within seconds."""
        layout = await self._layout()
        listed = [
            f"{name}/{number}"
            for name, topic in sorted(layout.topics.items())
            if not topic.error and not topic.internal and (self._glob is None or self._glob.match(name))
            for number in sorted(topic.partitions)
        ]
        missing = frozenset(name for name, topic in layout.topics.items() if topic.error)
        unclear = any(topic.error not in (0, UNKNOWN_TOPIC) for topic in layout.topics.values())
        if self._began_with is None and (listed or not unclear):
            self._began_with = await self._context.began_with(listed)
        if self._glob is None:
            if missing and not listed:
                raise SourceUnavailable(f"source '{self._name}': {_absent(missing)}")
            if missing - self._missing:
                log.warning("topics_missing", source=self._name, topics=sorted(missing))
            self._missing = missing
        return listed

    async def batches(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        """Committed records after the cursor, `{"offset": next to read, ...}`."""
        at = _at(partition)
        later = cursor is None and await self._came_later(partition)
        async with self._use() as session:
            from connectors.kafka.partition import Partition  # noqa: PLC0415 - wants aiokafka

            reader = Partition(self._name, at, self._config, self._maker, from_beginning=later)
            lane = session.cluster.lane()
            handed_over: UUID | None = None
            try:
                async with aclosing(reader.batches(session.cluster, lane, cursor)) as batches:
                    async for batch in batches:
                        handed_over = batch.id
                        self._handed_over[batch.id] = at
                        yield batch
                        self._handed_over.pop(batch.id, None)
            finally:
                if handed_over is not None:
                    self._handed_over.pop(handed_over, None)
                await lane.close()

    async def again(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        """What was read up to the cursor and is still there, once more: for `audit --deep`."""
        async with self._use() as session:
            from connectors.kafka.partition import Partition  # noqa: PLC0415 - wants aiokafka

            reader = Partition(self._name, _at(partition), self._config, self._maker, from_beginning=True)
            lane = session.cluster.lane()
            try:
                async with aclosing(reader.again(session.cluster, lane, cursor)) as batches:
                    async for batch in batches:
                        yield batch
            finally:
                await lane.close()

    async def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None:
        """Let the group's offset follow, in the background."""
        at = self._handed_over.pop(batch.id, None)
        session = self._sessions_made.current if self._sessions_made else None
        if at is not None and session is not None:
            session.group.publish(at, batch.cursor["offset"])

    async def refused(self, batch: Batch, error: Exception) -> None:
        """Nobody waits for an answer."""
        self._handed_over.pop(batch.id, None)

    def reread(self, raw: bytes, meta: Mapping[str, JSON]) -> Record:
        """The record of a value that was kept."""
        return self._maker.reread(raw, meta)

    async def progress(self, partition: str, cursor: JSON) -> Progress:
        """Offsets between the position and the end of the log; says what an open transaction holds back."""
        if cursor is None:
            return Progress(None, "records")
        async with self._use() as session:
            return await session.ends.progress(session.cluster, _at(partition), cursor["offset"])

    @staticmethod
    def spelled(cursor: JSON) -> str:
        """The offset."""
        return str(cursor["offset"])

    async def resume_at(self, partition: str, cursor: JSON, where: str) -> Resumption:
        """`where`: earliest, latest, or an offset that the log has."""
        async with self._use() as session:
            from connectors.kafka.resume import resume_at  # noqa: PLC0415 - wants aiokafka

            return await resume_at(session.cluster, self._name, _at(partition), cursor, where)

    @property
    def mirrors(self) -> bool:
        """With `dead_letter_topic`."""
        return self._config.dead_letter_topic is not None

    async def mirror(self, letters: Sequence[DeadLetter]) -> Mapping[UUID, str]:
        """Copies of dead letters into `dead_letter_topic`."""
        from connectors.kafka.dead_letters import mirror  # noqa: PLC0415 - wants aiokafka

        return await mirror(self._name, self._config, self._context, letters)

    async def examine(self) -> Sequence[str]:
        """What the words ask for and the cluster does not have; passwords that anybody could read."""
        layout = await self._layout()
        found: list[str] = []
        if self._config.sasl is not None and self._config.sasl.mechanism == "PLAIN" and not self._config.tls:
            found.append(
                "`sasl: {mechanism: PLAIN}` without `tls` sends the password readable; add `tls: true`"
            )
        missing = frozenset(name for name, topic in layout.topics.items() if topic.error)
        if self._glob is None and missing:
            found.append(f"{_absent(missing)}; create it, or correct `topics`")
        return found

    async def _came_later(self, partition: str) -> bool:
        """Whether the source began without it; asked only where there is no position yet."""
        if self._began_with is None:
            await self.partitions()
        return self._began_with is not None and partition not in self._began_with

    # ------------------------------------------------------------------ the session

    @asynccontextmanager
    async def _use(self) -> AsyncGenerator[Session]:
        if self._sessions_made is None:
            try:
                from connectors.kafka.session import Sessions  # noqa: PLC0415 - wants aiokafka
            except ImportError as error:
                raise SourceUnavailable(
                    f"source '{self._name}': the Kafka client is not installed: install eventflow[kafka]"
                ) from error
            self._sessions_made = Sessions(self._name, self._config, self._context)
        async with self._sessions_made.use() as session:
            yield session

    async def _layout(self) -> Layout:
        oldest = time.monotonic() - LISTING_SECONDS
        if self._listed is None or self._listed.at < oldest:
            async with self._use() as session:
                self._listed = await session.cluster.layout(oldest)
        return self._listed


def _at(partition: str) -> tuple[str, int]:
    topic, _, number = partition.rpartition("/")
    return topic, int(number)


def _absent(topics: frozenset[str]) -> str:
    names = ", ".join(sorted(topics)[:5]) + (", ..." if len(topics) > 5 else "")
    return f"no such topic, or we may not see it: {names}"
