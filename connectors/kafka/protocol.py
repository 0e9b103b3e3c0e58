"""The few requests of Kafka's protocol that reading needs and aiokafka's own classes do not say.

aiokafka's consumer reads by topic name and without epochs, so a topic that was deleted and created again, or
a log that was cut and has grown again, looks to it like the one it knew. These versions name what they mean:
topic ids (KIP-516), the current leader epoch (KIP-320), the epoch of the last record read (KIP-595).
https://kafka.apache.org/protocol
"""

# aiokafka declares what a response is as properties, and sets attributes of classes itself.
# pyright: reportIncompatibleMethodOverride=false, reportAssignmentType=false

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final
from uuid import UUID

from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.fetch import FetchRequest_v11
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactBytes,
    CompactString,
    Int8,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

_Tags = dict[int, bytes]

READ_COMMITTED: Final = 1
READ_UNCOMMITTED: Final = 0
_CONSUMER: Final = -1
_NO_ID: Final = UUID(int=0)


class _Uuid(AbstractType[UUID]):
    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(16))


_NAME: Final = CompactString("utf-8")


class MetadataResponseV10(Response):
    """Metadata, with topic ids."""

    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32), ("host", _NAME), ("port", Int32), ("rack", _NAME), ("tags", TaggedFields)
            ),
        ),
        ("cluster_id", _NAME),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", _NAME),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("index", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("operations", Int32),
        ("tags", TaggedFields),
    )


class MetadataRequestV10(RequestStruct):
    """Metadata, with topic ids."""

    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = MetadataResponseV10
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", _NAME), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_operations", Boolean),
        ("include_topic_operations", Boolean),
        ("tags", TaggedFields),
    )


class Metadata(Request[MetadataRequestV10]):
    """Brokers, and topics with their ids; `topics` None: all. Brokers since 2.8. Creates no topic."""

    API_KEY = 3

    def __init__(self, topics: list[str] | None) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[MetadataRequestV10]) -> MetadataRequestV10:
        topics = None if self._topics is None else [(_NO_ID, topic, _Tags()) for topic in self._topics]
        return request_struct_class(topics, False, False, False, {})


class FetchResponseV13(Response):
    """Fetch by topic id."""

    API_KEY = 1
    API_VERSION = 13
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("session_id", Int32),
        (
            "topics",
            CompactArray(
                ("topic_id", _Uuid),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("high_watermark", Int64),
                        ("last_stable_offset", Int64),
                        ("log_start_offset", Int64),
                        (
                            "aborted",
                            CompactArray(
                                ("producer_id", Int64), ("first_offset", Int64), ("tags", TaggedFields)
                            ),
                        ),
                        ("preferred_read_replica", Int32),
                        ("records", CompactBytes),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class FetchRequestV13(RequestStruct):
    """Fetch by topic id."""

    FLEXIBLE_VERSION = True
    API_KEY = 1
    API_VERSION = 13
    RESPONSE_TYPE = FetchResponseV13
    SCHEMA = Schema(
        ("replica_id", Int32),
        ("max_wait_ms", Int32),
        ("min_bytes", Int32),
        ("max_bytes", Int32),
        ("isolation_level", Int8),
        ("session_id", Int32),
        ("session_epoch", Int32),
        (
            "topics",
            CompactArray(
                ("topic_id", _Uuid),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("current_leader_epoch", Int32),
                        ("fetch_offset", Int64),
                        ("last_fetched_epoch", Int32),
                        ("log_start_offset", Int64),
                        ("max_bytes", Int32),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        (
            "forgotten",
            CompactArray(("topic_id", _Uuid), ("partitions", CompactArray(Int32)), ("tags", TaggedFields)),
        ),
        ("rack_id", _NAME),
        ("tags", TaggedFields),
    )


@dataclass(frozen=True, slots=True)
class FetchFrom:
    """One partition from one offset on.

    `topic_id` is the topic that the position belongs to, `leader_epoch` what we believe of the leader,
    `last_epoch` the epoch of the last record read (-1: not known).
    """

    topic: str
    topic_id: UUID | None
    partition: int
    offset: int
    leader_epoch: int
    last_epoch: int
    wait_ms: int
    max_bytes: int


class Fetch(Request[FetchRequest_v11 | FetchRequestV13]):
    """One partition, read committed, answered as soon as there is anything. Brokers before 3.1 go by name."""

    API_KEY = 1

    def __init__(self, at: FetchFrom) -> None:
        self._at = at

    def build(
        self, request_struct_class: type[FetchRequest_v11 | FetchRequestV13]
    ) -> FetchRequest_v11 | FetchRequestV13:
        at = self._at
        # A session of its own for every request: there is one partition in it, nothing to save.
        head = (_CONSUMER, at.wait_ms, 1, at.max_bytes, READ_COMMITTED, 0, -1)
        if request_struct_class is FetchRequest_v11 or at.topic_id is None:
            partition = (at.partition, at.leader_epoch, at.offset, -1, at.max_bytes)
            return FetchRequest_v11(*head, [(at.topic, [partition])], [], "")
        epochs = (at.partition, at.leader_epoch, at.offset, at.last_epoch, -1, at.max_bytes, _Tags())
        return FetchRequestV13(*head, [(at.topic_id, [epochs], {})], [], "", {})


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a leader answered for one partition.

    `error` is Kafka's code, 0 for none. `high_watermark` is the end of the log, `last_stable` the end of
    what no open transaction holds back; a record before `log_start` is gone. `diverged` is the offset
    after the last one that our log and theirs share, where it is before ours.
    """

    error: int
    high_watermark: int = -1
    last_stable: int = -1
    log_start: int = -1
    aborted: tuple[tuple[int, int], ...] = ()
    records: bytes = b""
    diverged: int | None = None


def fetched(response: Any) -> Fetched:
    """The one partition of an answer to `Fetch`."""
    if response.error_code or not response.topics:
        return Fetched(response.error_code)
    _, partitions, *_ = response.topics[0]
    _, error, high_watermark, last_stable, log_start, aborted, _, records, *tags = partitions[0]
    return Fetched(
        error, high_watermark, last_stable, log_start,
        tuple((pair[0], pair[1]) for pair in aborted or ()), records or b"", _diverged(*tags),
    )  # fmt: skip


def _diverged(tags: _Tags | None = None) -> int | None:
    """Tag 0 is the largest epoch that both logs have, and where it ends."""
    if not tags or 0 not in tags:
        return None
    return struct.unpack(">iq", tags[0][:12])[1]
