"""Which records of an answer count, and where the position is after each."""

from __future__ import annotations

import tracemalloc
from typing import Any
from uuid import UUID

import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from connectors.kafka.committed import Committed, Oversized, brings
from connectors.kafka.position import Position
from connectors.kafka.protocol import Fetched

GZIP = 1
CODECS = [1, 2, 3, 4]
CODEC_NAMES = ["gzip", "snappy", "lz4", "zstd"]
LIMIT = 64 << 20
TOPIC_ID = UUID(int=7)


def batch(
    first: int, count: int, *, producer: int = -1, codec: int = 0, epoch: int = 3, value: bytes = b"%d",
    headers: list[tuple[str, bytes | None]] | None = None,
) -> bytearray:  # fmt: skip
    """Records `first` to `first + count - 1`, each holding its offset."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=producer >= 0, producer_id=producer,
        producer_epoch=0, base_sequence=0, batch_size=1 << 30,
    )  # fmt: skip
    for number in range(count):
        builder.append(
            number,
            timestamp=1,
            key=None,
            value=value.replace(b"%d", b"%d" % (first + number)),
            headers=headers or [],
        )
    raw = bytearray(builder.build())
    raw[0:8] = first.to_bytes(8, "big")  # neither is under the checksum: the broker sets them
    raw[12:16] = epoch.to_bytes(4, "big")
    return raw


def old_batch(magic: Any, first: int, count: int, codec: int = 0) -> bytes:
    """The same as of before Kafka 0.11; compressed, they are wrapped in one message."""
    builder = LegacyRecordBatchBuilder(magic=magic, compression_type=codec, batch_size=1 << 20)
    for number in range(first, first + count):
        builder.append(number, timestamp=1, key=None, value=b"%d" % number)
    raw = bytearray(builder.build())
    if codec:
        raw[0:8] = (first + count - 1).to_bytes(8, "big")  # as the broker does
    return bytes(raw)


def committed(
    offset: int, raw: bytes | bytearray, aborted: tuple[tuple[int, int], ...] = (), limit: int = LIMIT
) -> Committed:
    return Committed(Position(offset, TOPIC_ID), Fetched(0, records=bytes(raw), aborted=aborted), limit)


def test_the_position_is_after_the_last_record_given() -> None:
    answer = committed(0, batch(0, 5) + batch(5, 5, epoch=4))
    assert [record.offset for record in answer.take(3, 1 << 20)] == [0, 1, 2]
    assert answer.position == Position(3, TOPIC_ID, 3)
    assert [record.offset for record in answer.take(100, 1 << 20)] == [3, 4, 5, 6, 7, 8, 9]
    assert answer.position == Position(10, TOPIC_ID, 4)
    assert answer.take(100, 1 << 20) == []


def test_what_stands_before_the_position_in_a_compressed_batch_is_left_out() -> None:
    answer = committed(3, batch(0, 5, codec=GZIP))
    assert [record.value for record in answer.take(100, 1 << 20)] == [b"3", b"4"]


def test_aborted_transactions_are_passed_over_by_their_producer_and_first_offset() -> None:
    """Producer 1 committed at 0, aborted what it wrote from 4 on; producer 2 wrote in between."""
    raw = (
        batch(0, 2, producer=1) + batch(2, 2, producer=2) + batch(4, 2, producer=1) + batch(6, 2, producer=2)
    )
    answer = committed(0, raw, aborted=((1, 4),))
    assert [record.offset for record in answer.take(100, 1 << 20)] == [0, 1, 2, 3, 6, 7]
    answer = committed(0, raw[: len(batch(0, 2, producer=1)) * 3], aborted=((1, 4),))
    answer.take(100, 1 << 20)
    assert answer.position.offset == 6, "also where it ends with what does not count"


def test_a_broken_batch_holds_up_only_what_comes_after_it() -> None:
    broken = batch(5, 5)
    broken[-1] ^= 1
    answer = committed(0, batch(0, 5) + broken)
    assert [record.offset for record in answer.take(100, 1 << 20)] == [0, 1, 2, 3, 4]
    assert answer.take(100, 1 << 20) == []
    assert answer.position.offset == 5
    with pytest.raises(CorruptRecordException):
        committed(5, broken).take(100, 1 << 20)


def test_no_more_is_given_at_once_than_is_asked_for() -> None:
    """By number, and by size: the record that makes it enough is the last."""
    answer = committed(0, batch(0, 10))
    assert [record.offset for record in answer.take(2, 1 << 20)] == [0, 1]
    assert [record.offset for record in answer.take(100, 3)] == [2, 3, 4]
    assert [record.offset for record in answer.take(100, 0)] == [5], "one at least"
    assert answer.position.offset == 6


def test_headers_count_as_size_too() -> None:
    answer = committed(0, batch(0, 3, headers=[("trace", b"x" * 100), ("empty", None)]))
    assert [record.offset for record in answer.take(100, 111)] == [0]
    assert [record.offset for record in answer.take(100, 112)] == [1, 2]


@pytest.mark.parametrize("magic", [0, 1])
def test_an_old_format_has_no_epoch_where_its_checksum_stands(magic: int) -> None:
    """A wrong one makes the leader say that its log was cut."""
    answer = committed(0, b"".join(old_batch(magic, n, 1) for n in range(3)))
    assert [record.value for record in answer.take(100, 1 << 20)] == [b"0", b"1", b"2"]
    assert answer.position == Position(3, TOPIC_ID, -1)


def test_where_formats_change_the_next_answer_goes_on() -> None:
    """The parser takes all batches of an answer for what the first is."""
    raw = old_batch(1, 0, 1) + bytes(batch(1, 1, epoch=4))
    answer = committed(0, raw)
    assert [record.value for record in answer.take(100, 1 << 20)] == [b"0"]
    assert answer.take(100, 1 << 20) == []
    answer = committed(answer.position.offset, raw[len(old_batch(1, 0, 1)) :])
    assert [record.value for record in answer.take(100, 1 << 20)] == [b"1"]
    assert answer.position == Position(2, TOPIC_ID, 4)


def test_a_wrong_checksum_of_an_old_format_is_said_as_such() -> None:
    broken = bytearray(old_batch(1, 5, 1))
    broken[-1] ^= 1
    with pytest.raises(CorruptRecordException, match="a batch at offset 5 has a wrong checksum"):
        committed(5, broken).take(100, 1 << 20)


@pytest.mark.parametrize("codec", CODECS, ids=CODEC_NAMES)
def test_compressed_batches_are_read(codec: int) -> None:
    answer = committed(0, batch(0, 5, codec=codec, headers=[("trace", b"7")]) + batch(5, 5, codec=codec))
    taken = answer.take(100, 1 << 20)
    assert [record.value for record in taken] == [b"%d" % number for number in range(10)]
    assert taken[0].headers == [("trace", b"7")]


@pytest.mark.parametrize("codec", CODECS, ids=CODEC_NAMES)
@pytest.mark.parametrize("size", [1 << 20, 5 << 20], ids=["small", "larger than the usual room"])
def test_a_batch_that_unpacks_to_more_than_is_allowed_is_given_whole(codec: int, size: int) -> None:
    """In its place; what stands around it is read, and the position is after it."""
    large = batch(2, 3, codec=codec, value=b"x" * (size // 3))
    answer = committed(0, batch(0, 2) + large + batch(5, 1), limit=size - 1)
    first, second, oversized, last = answer.take(100, 100 << 20)
    assert (first.value, second.value, last.value) == (b"0", b"1", b"5")
    assert isinstance(oversized, Oversized)
    assert (oversized.offset, oversized.last, oversized.timestamp) == (2, 4, 1)
    assert (oversized.codec, oversized.value) == (CODEC_NAMES[codec - 1], bytes(large))
    assert answer.position == Position(6, TOPIC_ID, 3)
    assert len(committed(0, large, limit=size + 100).take(100, 100 << 20)) == 3, "just not too large"
    answer = committed(3, large, limit=size - 1)
    (oversized,) = answer.take(100, 1 << 20)
    assert (oversized.offset, answer.position.offset) == (3, 5), "what was read before is not said again"


@pytest.mark.parametrize("codec", CODECS[:3], ids=CODEC_NAMES[:3])
def test_the_bound_holds_for_old_formats(codec: int) -> None:
    raw = old_batch(1, 0, 50, codec=codec)
    assert len(committed(0, raw).take(100, 1 << 20)) == 50
    answer = committed(0, raw, limit=1000)
    (oversized,) = answer.take(100, 1 << 20)
    assert (oversized.offset, oversized.last, oversized.codec) == (0, 49, CODEC_NAMES[codec - 1])
    assert answer.position.offset == 50


@pytest.mark.parametrize("codec", CODECS, ids=CODEC_NAMES)
def test_a_bomb_takes_no_memory(codec: int) -> None:
    """200 MB of one byte; looked at as the process sees it."""
    large = batch(0, 1, codec=codec, value=b"x" * (200 << 20))
    tracemalloc.start()
    try:
        (oversized,) = committed(0, large, limit=1 << 20).take(100, 1 << 20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(oversized, Oversized)
    assert peak < 4 * len(large) + (8 << 20)


def test_what_cannot_be_unpacked_is_no_matter_of_its_size() -> None:
    for codec in CODECS:
        broken = batch(0, 3, codec=codec)
        broken[61:69] = b"\xff" * 8
        broken[17:21] = calc_crc32c(bytes(broken[21:])).to_bytes(4, "big")
        with pytest.raises(Exception, match=r"."):
            committed(0, broken).take(100, 1 << 20)


def test_an_answer_brings_something_only_with_a_whole_batch_that_goes_on() -> None:
    raw = bytes(batch(0, 5) + batch(5, 5))
    assert brings(raw, 0)
    assert brings(raw, 9)
    assert not brings(raw, 10)
    assert not brings(raw[:-1], 5), "the second is not whole"
    assert brings(raw[:-1], 4)
    assert not brings(b"", 0)
    assert brings(old_batch(0, 7, 1), 7)
    assert not brings(old_batch(0, 7, 1), 8)
