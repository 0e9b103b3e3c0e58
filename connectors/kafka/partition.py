"""One partition from a position on: fetch, leave out what does not count, hand over, never past a gap.

Each fetch names the topic's id, the leader's epoch and the epoch of the last record read. So the leader
itself says when the topic is another one, when it leads no more, and when its log is not the one we read.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import Final, NoReturn, TypeVar

from connectors.kafka.cluster import EARLIEST, LATEST, At, Cluster, Layout, Led, Topic, error_name
from connectors.kafka.committed import Committed, Oversized, brings
from connectors.kafka.config import KafkaConfig, Since
from connectors.kafka.lane import Lane
from connectors.kafka.patience import Doubt, Doubted, Passing, Patience
from connectors.kafka.position import Gap, Position
from connectors.kafka.protocol import READ_COMMITTED, READ_UNCOMMITTED, Fetch, Fetched, FetchFrom, fetched
from connectors.kafka.record import RecordMaker
from eventflow.errors import SourceStopped, SourceUnavailable
from eventflow.event import JSON, Broken, Record
from eventflow.source import Batch

FETCH_BYTES: Final = 1 << 20
"""An answer is about this long, or one batch of the producer's where that is longer."""
BATCH_RECORDS: Final = 2_000
BATCH_BYTES: Final = 4 << 20
"""What goes into one transaction, once unpacked."""
WAIT_MS: Final = 5_000
"""How long a broker may keep a fetch that finds nothing."""
QUIET_SECONDS: Final = 2.0
"""How often at most the position is moved by a batch without records."""
KEPT_BYTES: Final = 8 << 20
"""A batch that is not unpacked is kept as it came up to this size."""

OFFSET_OUT_OF_RANGE: Final = 1
UNKNOWN_TOPIC: Final = 3
UNAUTHORIZED: Final = 29
PASSING: Final = frozenset({UNKNOWN_TOPIC, 5, 6, 7, 8, 9, 13, 56, 74, 75, 78, 100, 103})
"""Leaders that moved, are not chosen yet or hear of it late; topic ids that a broker does not know (yet)."""


T = TypeVar("T")


class Partition:
    """Reads one partition. `from_beginning`: it was not there when the source began."""

    def __init__(
        self, source: str, at: At, config: KafkaConfig, maker: RecordMaker, *, from_beginning: bool
    ) -> None:
        self._source = source
        self._topic, self._number = self._at = at
        self._config = config
        self._maker = maker
        self._from_beginning = from_beginning
        self._patience = Patience()
        self._since = 0.0
        self._doubt = Doubt()

    async def batches(self, cluster: Cluster, lane: Lane, cursor: JSON) -> AsyncGenerator[Batch]:
        """Strictly after `cursor`, for ever. Raises `SourceUnavailable`, `SourceStopped`."""
        if cursor is None:
            position = await self._begin(cluster)
            yield Batch([], position.cursor)  # before the first record too, `latest` is decided once
        else:
            position = Position.of(cursor)
        moved, handed_over = position, time.monotonic()
        while True:
            # Where the position has moved over what is no record, it is kept soon, but not each time.
            due = QUIET_SECONDS - (time.monotonic() - handed_over) if moved != position else None
            answer = await self._fetch(cluster, lane, moved, due)
            committed = Committed(moved, answer, self._config.limit)
            while records := self._take(committed):
                position = moved = committed.position
                handed_over = time.monotonic()
                yield Batch(records, position.cursor, dedupe_for=self._config.dedupe)
            moved = committed.position
            if moved != position and time.monotonic() - handed_over >= QUIET_SECONDS:
                position, handed_over = moved, time.monotonic()
                yield Batch([], position.cursor)

    async def again(self, cluster: Cluster, lane: Lane, cursor: JSON) -> AsyncGenerator[Batch]:
        """What was read up to `cursor` and is still there, once more, to its end."""
        end = Position.of(cursor)

        async def begin(layout: Layout) -> Position:
            self._place(layout, end)
            begins = await self._offset(cluster, READ_UNCOMMITTED, EARLIEST)
            return replace(end, offset=max(begins, end.first), epoch=-1)

        position = await self._patiently(cluster, begin)
        while position.offset < end.offset:
            answer = await self._fetch(cluster, lane, position, 0)
            committed = Committed(position, answer, self._config.limit, end.offset)
            while records := self._take(committed):
                yield Batch(records, committed.position.cursor)
            if committed.position == position:
                raise self._unavailable(f"the log does not reach {end.offset}, where reading was")
            position = committed.position

    def _take(self, committed: Committed) -> list[Record]:
        topic, number, make = self._topic, self._number, self._maker.record
        try:
            taken = committed.take(BATCH_RECORDS, BATCH_BYTES)
        except Exception as error:  # each codec raises its own
            raise SourceUnavailable(
                f"source '{self._source}': {topic}/{number}: what stands at offset "
                f"{committed.position.offset} cannot be unpacked: {type(error).__name__}: {error}"
            ) from error
        return [
            make(topic, number, one.offset, one.key, one.value, one.headers, one.timestamp)
            if type(one) is not Oversized
            else self._not_unpacked(one)
            for one in taken
        ]

    def _not_unpacked(self, batch: Oversized) -> Broken:
        """The one dead letter of a batch that is larger than `limit` allows."""
        where: dict[str, JSON] = {"topic": self._topic, "partition": self._number, "offset": batch.offset}
        reason = (
            f"the batch of the offsets {batch.offset} to {batch.last} unpacks to more than `limit` allows "
            f"({self._config.limit} bytes; {batch.codec}, {len(batch.value)} bytes as it came); none of its "
            "records were read"
        )
        raw = batch.value
        if len(raw) > KEPT_BYTES:
            raw, reason = b"", f"{reason}, and its bytes are too many to be kept"
        meta: dict[str, JSON] = {**where, "key": None, "headers": {}, "timestamp": batch.timestamp}
        return Broken(self._source, raw, reason, {**where, "to": batch.last}, meta)

    # ------------------------------------------------------------------ one answer

    async def _fetch(self, cluster: Cluster, lane: Lane, position: Position, due: float | None) -> Fetched:
        """An answer without an error. `due`: seconds until it is needed, whatever is in it."""
        wait_ms = WAIT_MS if due is None else max(0, min(WAIT_MS, int(due * 1000)))

        async def ask(layout: Layout) -> Fetched:
            topic, led = self._place(layout, position)
            request = FetchFrom(
                self._topic, position.topic_id or topic.id, self._number, position.offset,
                led.epoch, position.epoch, wait_ms, FETCH_BYTES,
            )  # fmt: skip
            asked = time.monotonic()
            answer = fetched(await lane.ask(layout.brokers[led.leader], Fetch(request)))
            if answer.error:
                await self._trouble(cluster, answer.error, position)
            if answer.diverged is not None:
                self._unless_unsure(self._gap(position).cut(answer.diverged))
            if not brings(answer.records, position.offset) and time.monotonic() - asked < wait_ms / 2000:
                # Throttled, or sent to a replica, which we do not follow: asking again at once helps nobody.
                raise Passing(
                    f"source '{self._source}': {self._topic}/{self._number}: its leader answers at once, and "
                    "without records"
                )
            return answer

        return await self._patiently(cluster, ask)

    async def _begin(self, cluster: Cluster) -> Position:
        """The position that `initial` names. What an open transaction holds back is still to come."""
        initial = self._config.initial
        if isinstance(initial, Since):
            wanted = int(initial.timestamp.timestamp() * 1000)
        else:
            wanted = LATEST if initial == "latest" and not self._from_beginning else EARLIEST

        async def ask(layout: Layout) -> Position:
            topic, _ = self._place(layout, Position(0))
            offset = await self._offset(cluster, READ_COMMITTED, wanted)
            if offset < 0:  # no record is that late
                offset = await self._offset(cluster, READ_COMMITTED, LATEST)
            return Position(offset, topic.id, first=offset)

        return await self._patiently(cluster, ask)

    async def _patiently(self, cluster: Cluster, ask: Callable[[Layout], Awaitable[T]]) -> T:
        """`ask`, again and again through what passes by itself."""
        while True:
            try:
                answer = await ask(await cluster.layout(self._since))
            except Passing as trouble:
                if not isinstance(trouble, Doubted):
                    self._doubt.over()
                await self._patience.wait(trouble)
                self._since = time.monotonic()  # what we know of the cluster may be why
            else:
                self._patience.well()
                self._doubt.over()
                return answer

    # ------------------------------------------------------------------ what is in the way

    def _place(self, layout: Layout, position: Position) -> tuple[Topic, Led]:
        """The topic, and who leads the partition. Raises what is in the way of reading it."""
        topic = layout.topics.get(self._topic)
        led = topic.partitions.get(self._number) if topic else None
        if topic is not None and topic.error == UNAUTHORIZED:
            raise self._unavailable("we may not read the topic; its ACLs must allow Read and Describe")
        if topic is None or topic.error == UNKNOWN_TOPIC or led is None:
            self._unless_unsure(self._unavailable("it is not there: deleted, or not created yet"))
        if position.topic_id and topic.id and position.topic_id != topic.id:
            self._unless_unsure(self._gap(position).recreated(topic.id))
        if led.leader not in layout.brokers:
            raise Passing(f"source '{self._source}': {self._topic}/{self._number}: no broker leads it")
        return topic, led

    async def _trouble(self, cluster: Cluster, code: int, position: Position) -> NoReturn:
        if code == OFFSET_OUT_OF_RANGE:
            gap = self._gap(position)
            begins = await self._offset(cluster, READ_UNCOMMITTED, EARLIEST)
            ends = await self._offset(cluster, READ_UNCOMMITTED, LATEST)
            if position.offset < begins:
                self._unless_unsure(gap.expired(begins))
            if position.offset > begins:
                # Where it is within the log, nothing there is of the epoch that we read: it is another log.
                self._unless_unsure(gap.cut(min(ends, position.offset)))
            raise Passing(f"source '{self._source}': {self._topic}/{self._number}: {error_name(code)}")
        if code in PASSING:
            raise Passing(f"source '{self._source}': {self._topic}/{self._number}: {error_name(code)}")
        raise self._unavailable(error_name(code))

    def _unless_unsure(self, error: SourceStopped | SourceUnavailable) -> NoReturn:
        """Raise `error` only when it was said for a while, with fresh knowledge each time."""
        # Of a gap the kind counts: its range may still move, where retention goes on.
        reason = error.missing["reason"] if isinstance(error, SourceStopped) else str(error)
        self._doubt.unless_sure(reason, error)

    async def _offset(self, cluster: Cluster, isolation: int, wanted: int) -> int:
        found = await cluster.offsets(isolation, {self._at: wanted})
        if self._at not in found:
            raise Passing(f"source '{self._source}': {self._topic}/{self._number}: nobody knows its offsets")
        return found[self._at]

    def _unavailable(self, reason: str) -> SourceUnavailable:
        return SourceUnavailable(f"source '{self._source}': {self._topic}/{self._number}: {reason}")

    def _gap(self, position: Position) -> Gap:
        return Gap(self._source, self._topic, self._number, position)
