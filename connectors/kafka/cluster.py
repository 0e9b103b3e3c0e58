"""The cluster behind the address: which brokers and topics there are, who leads what, where logs end."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from aiokafka.errors import for_code
from aiokafka.protocol.offset import OffsetRequest

from connectors.kafka.access import Access
from connectors.kafka.lane import Broker, BrokerAway, Lane, given
from connectors.kafka.listing import Listing, listed
from eventflow.errors import SourceUnavailable

EARLIEST: Final = -2
LATEST: Final = -1

SOON: Final = frozenset({3, 5, 6, 7, 8, 9, 13, 56, 74, 75, 76, 78, 100, 103})
"""A leader that moved, is not chosen yet or is not ready; topics that a broker does not know (yet)."""

At = tuple[str, int]
"""Topic and partition number."""


@dataclass(frozen=True, slots=True)
class Led:
    """Who leads a partition (-1: nobody), and in which epoch."""

    leader: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Topic:
    """`id` None: the brokers give none. `error` is Kafka's code, 0 for none."""

    id: UUID | None
    error: int
    internal: bool
    partitions: Mapping[int, Led]


@dataclass(frozen=True, slots=True)
class Layout:
    """What the brokers said of themselves at the monotonic time `at`."""

    cluster_id: str
    brokers: Mapping[int, Broker]
    topics: Mapping[str, Topic]
    at: float


class Cluster:
    """One session with the brokers, shared by everything a source does at the same time."""

    def __init__(self, name: str, access: Access, topics: list[str] | None) -> None:
        """`topics` None: all of them are of interest."""
        self._name = name
        self._access = access
        self._topics = topics
        self._questions = Lane(name, access)
        self._refreshing = asyncio.Lock()
        self._layout: Layout | None = None

    def lane(self) -> Lane:
        """A new one; whoever asked for it closes it."""
        return Lane(self._name, self._access)

    async def close(self) -> None:
        await self._questions.close()

    async def layout(self, since: float) -> Layout:
        """What holds at the monotonic time `since` or later. Raises `SourceUnavailable`."""
        async with self._refreshing:
            if self._layout is None or self._layout.at < since:
                self._layout = await self._ask_anyone(self._layout)
            return self._layout

    async def ask(self, broker: int, request: Any) -> Any:
        """A short question to the broker with this id. Raises `BrokerAway`, `SourceUnavailable`."""
        layout = self._layout or await self.layout(0)
        if broker not in layout.brokers:
            raise BrokerAway(f"source '{self._name}': broker {broker} is away")
        return await self._questions.ask(layout.brokers[broker], request)

    async def offsets(self, isolation: int, wanted: Mapping[At, int]) -> dict[At, int]:
        """ListOffsets: EARLIEST, LATEST or a timestamp in milliseconds, each to an offset (-1: none so late).

        Partitions that nobody can answer for just now are missing. Raises `SourceUnavailable`, also where one
        of them is refused for a reason that does not pass by itself.
        """
        found, refused = await self.answers(isolation, wanted)
        for (topic, number), reason in refused.items():
            raise SourceUnavailable(f"source '{self._name}': {topic}/{number}: its offsets: {reason}")
        return found

    async def answers(self, isolation: int, wanted: Mapping[At, int]) -> tuple[dict[At, int], dict[At, str]]:
        """`offsets`, and the reasons for which others were refused: no partition harms another."""
        layout = self._layout or await self.layout(0)
        by_leader: defaultdict[int, defaultdict[str, list[tuple[int, int]]]]
        by_leader = defaultdict(lambda: defaultdict(list))
        for (name, number), timestamp in wanted.items():
            topic = layout.topics.get(name)
            led = topic.partitions.get(number) if topic else None
            if led is not None and led.leader in layout.brokers:
                by_leader[led.leader][name].append((number, timestamp))
        found: dict[At, int] = {}
        refused: dict[At, str] = {}
        for leader, topics in by_leader.items():
            answer = await self.ask(leader, OffsetRequest(-1, isolation, list(topics.items())))
            for name, partitions in answer.topics:
                for number, error, _, offset in partitions:
                    if not error:
                        found[name, number] = offset
                    elif error not in SOON:
                        refused[name, number] = error_name(error)
        return found, refused

    async def _ask_anyone(self, known: Layout | None) -> Layout:
        """Ask whoever a connection stands to, then the brokers we know, then the addresses we were given."""
        reasons: dict[str, None] = {}
        for broker in self._candidates(known):
            try:
                answer = await listed(await self._questions.ask(broker, Listing(self._topics)))
            except BrokerAway as error:
                reasons[str(error).removeprefix(f"source '{self._name}': ")] = None
                continue
            if not answer.brokers:  # it has just started and knows nothing yet
                reasons[f"broker {broker.host}:{broker.port}: it does not know the cluster yet"] = None
                continue
            layout = _layout(answer)
            if known is not None and known.cluster_id != layout.cluster_id:
                raise SourceUnavailable(
                    f"source '{self._name}': cluster {layout.cluster_id} answers where {known.cluster_id} did"
                )
            return layout
        raise SourceUnavailable(
            f"source '{self._name}': " + ("; ".join(reasons) or "`bootstrap` names no broker")
        )

    def _candidates(self, known: Layout | None) -> list[Broker]:
        brokers = list(known.brokers.values()) if known else []
        random.shuffle(brokers)
        return list(dict.fromkeys([*self._questions.open, *brokers, *given(self._access)]))


def _layout(answer: Any) -> Layout:
    topics: dict[str, Topic] = {}
    for error, name, topic_id, internal, partitions, *_ in answer.topics:
        led = {number: Led(leader, epoch) for _, number, leader, epoch, *_ in partitions}
        topics[name] = Topic(topic_id if topic_id.int else None, error, internal, led)
    brokers = {number: Broker(host, port) for number, host, port, *_ in answer.brokers}
    return Layout(answer.cluster_id or "", brokers, topics, time.monotonic())


def error_name(code: int) -> str:
    """Kafka's name of an error, in words."""
    error: Any = for_code(code)
    return f"{error.message} ({code})" if error.errno == code else f"error {code}"
