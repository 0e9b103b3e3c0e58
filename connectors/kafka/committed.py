"""The records of one answer that count: committed, in order, with the position after each.

Markers, aborted transactions and holes that compaction left are passed over; the position is not. A batch
that unpacks to more than is allowed is one `Oversized` in place of its records.
"""

# aiokafka's record parsers are compiled and have no types.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from aiokafka.errors import CorruptRecordException
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords

from connectors.kafka.names import records_of
from connectors.kafka.position import Position
from connectors.kafka.protocol import Fetched
from connectors.kafka.unpacking import CODEC, CODECS, TooLarge, check_wrapped, plain

_HEAD: Final = struct.Struct(">qiib")
"""Base offset, length of what follows these 12 bytes, leader epoch, format. The last two mean this since
format 2 only: before it a checksum stands where the epoch is."""
_LAST: Final = struct.Struct(">i")
"""At byte 23, since format 2: how far behind the first record the last is."""
_FORMAT: Final = 2


@dataclass(frozen=True, slots=True)
class Oversized:
    """A batch that is not unpacked: its first offset that was not read yet, its last, its own bytes."""

    offset: int
    last: int
    value: bytes
    timestamp: int | None
    codec: str
    key: None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def brings(raw: bytes, offset: int) -> bool:
    """Whether an answer holds a whole batch that goes up to `offset` or further."""
    at = 0
    while at + _HEAD.size <= len(raw):
        base, length, _, magic = _HEAD.unpack_from(raw, at)
        begins, at = at, at + 12 + length
        if at > len(raw):
            break
        if base + (_LAST.unpack_from(raw, begins + 23)[0] if magic >= _FORMAT else 0) >= offset:
            return True
    return False


class Committed:
    """What a fetch at `position` brought."""

    def __init__(self, position: Position, answer: Fetched, limit: int, end: int | None = None) -> None:
        """`limit`: bytes that a batch may unpack to. `end`: records from there on are left out."""
        self._limit = limit
        self._end = end
        self._before = position
        self._offset, self._epoch = position.offset, position.epoch
        self._raw = answer.records
        self._at = 0
        self._batches: Any = MemoryRecords(answer.records)
        self._aborted = sorted(answer.aborted, key=lambda pair: pair[1], reverse=True)
        self._aborting: set[int] = set()
        self._records = self._iterate()

    @property
    def position(self) -> Position:
        """After the last record given; after the whole answer once `take` gives none."""
        return replace(self._before, offset=self._offset, epoch=self._epoch)

    def take(self, count: int, size: int) -> list[Any]:
        """The next records, at most `count`, and no more after `size` bytes; none where all were given.

        Each has `offset`, `key`, `value`, `headers`, `timestamp`, an `Oversized` too.
        Raises `CorruptRecordException`, and what unpacking a compressed batch raises.
        """
        taken: list[Any] = []
        try:
            for record in self._records:
                taken.append(record)
                size -= len(record.value or b"") + len(record.key or b"")
                if record.headers:
                    size -= sum(len(name) + len(value or b"") for name, value in record.headers)
                if len(taken) >= count or size <= 0:
                    break
        except Exception:
            if not taken:  # else what stands before the broken batch is handed over first
                raise
        return taken

    def _iterate(self) -> Iterator[Any]:
        while self._batches.has_next():
            batch, begins = self._batches.next_batch(), self._at
            base, magic, epoch = self._next_head()
            if not batch.validate_crc():
                raise CorruptRecordException(f"a batch at offset {base} has a wrong checksum")
            if self._counts(batch, base):
                for record in self._unpacked(batch, self._raw[begins : self._at], magic):
                    if self._end is not None and record.offset >= self._end:
                        self._offset = self._end
                        return
                    if record.offset >= self._offset:
                        self._offset, self._epoch = record.offset + 1, epoch
                        if type(record) is Oversized:
                            self._offset = record.last + 1
                        yield record
            if batch.next_offset > self._offset:
                self._offset, self._epoch = batch.next_offset, epoch

    def _next_head(self) -> tuple[int, int, int]:
        """The next batch's base offset, format, and leader's epoch (-1: older formats have none)."""
        base, length, epoch, magic = _HEAD.unpack_from(self._raw, self._at)
        self._at += 12 + length
        return base, magic, epoch if magic >= _FORMAT else -1

    def _unpacked(self, batch: Any, raw: bytes, magic: int) -> Iterator[Any]:
        """The records of a batch, of which `raw` are the bytes."""
        try:
            if magic < _FORMAT:
                check_wrapped(raw, magic, self._limit)
            elif batch.compression_type:
                plainly = plain(raw, self._limit)
                return records_of(DefaultRecordBatch(plainly), plainly)
        except TooLarge:
            return iter([self._oversized(batch, raw, magic)])
        return records_of(batch, raw)

    def _oversized(self, batch: Any, raw: bytes, magic: int) -> Oversized:
        last = batch.next_offset - 1
        if magic < _FORMAT:  # only the last offset is written where it can be read
            return Oversized(self._offset, last, raw, None, CODECS[raw[17] & CODEC])
        first = max(self._offset, batch.base_offset)
        return Oversized(first, last, raw, batch.first_timestamp, CODECS[batch.compression_type])

    def _counts(self, batch: Any, base: int) -> bool:
        """False for markers and for what a transaction wrote that was aborted. As KIP-98 says."""
        while self._aborted and self._aborted[-1][1] <= base:
            self._aborting.add(self._aborted.pop()[0])
        if batch.is_control_batch:
            marker = next(batch, None)
            if marker is not None and ControlRecord.parse(marker.key) == ABORT_MARKER:
                self._aborting.discard(batch.producer_id)
            return False
        return not (batch.is_transactional and batch.producer_id in self._aborting)
