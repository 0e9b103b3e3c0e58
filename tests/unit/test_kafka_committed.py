"""Which records of an answer count, and where the position is after each."""

from __future__ import annotations

from uuid import UUID

import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from connectors.kafka.committed import Committed
from connectors.kafka.position import Position
from connectors.kafka.protocol import Fetched

GZIP = 1
TOPIC_ID = UUID(int=7)


def batch(first: int, count: int, *, producer: int = -1, codec: int = 0, epoch: int = 3) -> bytearray:
    """Records `first` to `first + count - 1`, each holding its offset."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=producer >= 0, producer_id=producer,
        producer_epoch=0, base_sequence=0, batch_size=1 << 20,
    )  # fmt: skip
    for number in range(count):
        builder.append(number, timestamp=1, key=None, value=b"%d" % (first + number), headers=[])
    raw = bytearray(builder.build())
    raw[0:8] = first.to_bytes(8, "big")  # neither is under the checksum: the broker sets them
    raw[12:16] = epoch.to_bytes(4, "big")
    return raw


def committed(offset: int, raw: bytes | bytearray, aborted: tuple[tuple[int, int], ...] = ()) -> Committed:
    return Committed(Position(offset, TOPIC_ID), Fetched(0, records=bytes(raw), aborted=aborted))


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
