"""What a cluster has, read in a thread: thousands of topics take a third of a second, and nobody may wait.

aiokafka decodes an answer where it arrives, on the event loop. So this one is first kept as it came.
"""

# aiokafka declares what a response is as properties, and sets attributes of classes itself.
# pyright: reportIncompatibleMethodOverride=false, reportAssignmentType=false

from __future__ import annotations

import asyncio
from io import BytesIO
from typing import Any, Final, Self

from aiokafka.protocol.api import Request, Response
from aiokafka.protocol.types import Int32, Schema

from connectors.kafka.protocol import Metadata, MetadataRequestV10, MetadataResponseV10

SMALL_BYTES: Final = 16_384
"""Some hundred partitions: sooner read than handed to a thread."""


class _AsItCame(Response):
    """The bytes of a `MetadataResponseV10`."""

    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(("throttle_time_ms", Int32))
    raw: bytes

    @classmethod
    def decode(cls, data: BytesIO | bytes) -> Self:
        raw = data if isinstance(data, bytes) else data.read()
        kept = cls(Int32.decode(BytesIO(raw)))
        kept.raw = raw
        return kept


class _RequestV10(MetadataRequestV10):
    RESPONSE_TYPE = _AsItCame


class Listing(Request[_RequestV10]):
    """`Metadata` of these topics (None: all); the answer is for `listed`."""

    API_KEY = 3

    def __init__(self, topics: list[str] | None) -> None:
        self._metadata = Metadata(topics)

    def build(self, request_struct_class: type[_RequestV10]) -> _RequestV10:
        built = self._metadata.build(request_struct_class)
        assert isinstance(built, _RequestV10)
        return built


async def listed(answer: Any) -> Any:
    """What an answer to `Listing` says, as `MetadataResponseV10`."""
    if len(answer.raw) <= SMALL_BYTES:
        return MetadataResponseV10.decode(answer.raw)
    return await asyncio.to_thread(MetadataResponseV10.decode, answer.raw)
