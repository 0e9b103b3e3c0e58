"""The records of one answer that count: committed, in order, with the position after each.

Markers, aborted transactions and holes that compaction left are passed over; the position is not.
"""

# aiokafka's record parsers are compiled and have no types.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from aiokafka.errors import CorruptRecordException
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.memory_records import MemoryRecords

from connectors.kafka.names import records_of
from connectors.kafka.position import Position
from connectors.kafka.protocol import Fetched

_HEAD: Final = struct.Struct(">qii")
"""Base offset, length of what follows these 12 bytes, leader epoch (message format 2)."""


class Committed:
    """What a fetch at `position` brought."""

    def __init__(self, position: Position, answer: Fetched, end: int | None = None) -> None:
        """`end`: records from there on are left out."""
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

        Each has `offset`, `key`, `value`, `headers`, `timestamp`.
        Raises `CorruptRecordException`, and what unpacking a compressed batch raises.
        """
        taken: list[Any] = []
        try:
            for record in self._records:
                taken.append(record)
                size -= len(record.value or b"") + len(record.key or b"")
                if len(taken) >= count or size <= 0:
                    break
        except Exception:
            if not taken:  # else what stands before the broken batch is handed over first
                raise
        return taken

    def _iterate(self) -> Iterator[Any]:
        while self._batches.has_next():
            batch, begins = self._batches.next_batch(), self._at
            epoch = self._next_epoch()
            if not batch.validate_crc():
                raise CorruptRecordException(f"a batch at offset {batch.base_offset} has a wrong checksum")
            if self._counts(batch):
                for record in records_of(batch, self._raw[begins : self._at]):
                    if self._end is not None and record.offset >= self._end:
                        self._offset = self._end
                        return
                    if record.offset >= self._offset:
                        self._offset, self._epoch = record.offset + 1, epoch
                        yield record
            if batch.next_offset > self._offset:
                self._offset, self._epoch = batch.next_offset, epoch

    def _next_epoch(self) -> int:
        _, length, epoch = _HEAD.unpack_from(self._raw, self._at)
        self._at += 12 + length
        return epoch

    def _counts(self, batch: Any) -> bool:
        """False for markers and for what a transaction wrote that was aborted. As KIP-98 says."""
        while self._aborted and self._aborted[-1][1] <= batch.base_offset:
            self._aborting.add(self._aborted.pop()[0])
        if batch.is_control_batch:
            marker = next(batch, None)
            if marker is not None and ControlRecord.parse(marker.key) == ABORT_MARKER:
                self._aborting.discard(batch.producer_id)
            return False
        return not (batch.is_transactional and batch.producer_id in self._aborting)
