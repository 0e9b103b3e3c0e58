"""A large cluster is listed while everything else goes on."""

from __future__ import annotations

import asyncio
import time
from io import BytesIO
from uuid import uuid4

from connectors.kafka.listing import Listing, listed
from connectors.kafka.protocol import MetadataResponseV10


async def test_a_large_answer_holds_up_nothing() -> None:
    """3,000 topics of 12 partitions, decoded as aiokafka does it when the answer arrives, and then by us."""
    partitions = [(0, number, 1, 0, [1, 2, 3], [1, 2, 3], [], {}) for number in range(12)]
    topics = [(0, f"topic.{number}", uuid4(), False, partitions, 0, {}) for number in range(3_000)]
    raw = MetadataResponseV10(0, [(1, "host", 1, None, {})], "cluster", 1, topics, 0, {}).encode()
    request = Listing(None).prepare({3: (0, 12)})

    longest = 0.0
    begun = last = time.monotonic()
    reading = asyncio.ensure_future(listed(request.RESPONSE_TYPE.decode(BytesIO(raw))))
    while not reading.done():
        await asyncio.sleep(0.001)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    took = time.monotonic() - begun
    assert len((await reading).topics) == 3_000
    assert longest < took / 2, f"{longest:.2f} s of {took:.2f} s nothing else went on"


async def test_a_small_answer_says_the_same() -> None:
    topics = [(0, "orders", uuid4(), False, [(0, 0, 1, 5, [1], [1], [], {})], 0, {})]
    sent = MetadataResponseV10(7, [(1, "host", 1, None, {})], "cluster", 1, topics, 0, {})
    request = Listing(["orders"]).prepare({3: (0, 12)})
    answer = request.RESPONSE_TYPE.decode(BytesIO(sent.encode()))
    assert vars(answer)["throttle_time_ms"] == 7
    assert (await listed(answer)).topics == topics
