"""Where a partition stands, and what is said when it cannot go on there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from eventflow.errors import SourceStopped
from eventflow.event import JSON


@dataclass(frozen=True, slots=True)
class Position:
    """As JSON `{"offset": next to read, "first": ..., "topic_id": uuid, "epoch": of the last record read}`.

    An offset means something in one incarnation of a topic only, `topic_id` (None: the brokers have no
    ids). With `epoch` (-1: unknown) a leader can tell whether its log is the one we read from. `first` is
    where reading began: what lies between, and is still there, was taken in.
    """

    offset: int
    topic_id: UUID | None = None
    epoch: int = -1
    first: int = 0

    @property
    def cursor(self) -> dict[str, Any]:
        cursor: dict[str, Any] = {"offset": self.offset, "first": self.first}
        if self.topic_id is not None:
            cursor["topic_id"] = str(self.topic_id)
        if self.epoch >= 0:
            cursor["epoch"] = self.epoch
        return cursor

    @classmethod
    def of(cls, cursor: JSON) -> Position:
        """The inverse of `cursor`."""
        topic_id = cursor.get("topic_id")
        return cls(
            cursor["offset"], UUID(topic_id) if topic_id else None, cursor.get("epoch", -1),
            cursor.get("first", 0),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Gap:
    """The three ways in which a log is no longer the one that a position belongs to."""

    source: str
    topic: str
    number: int
    position: Position

    def expired(self, begins: int) -> SourceStopped:
        """Retention was faster than we: the log begins after the position."""
        here = self.position.offset
        return self._stopped(
            "retention",
            f"the records {here} to {begins - 1} are gone before they were read: "
            f"the log begins at {begins} (retention, or records that were deleted)",
            here, begins - 1,
        )  # fmt: skip

    def cut(self, ends: int) -> SourceStopped:
        """Records that were read are no longer in the log: an unclean leader election, or lost disks.

        At least the last one that was read is another: that is how a leader knows.
        """
        here = self.position.offset
        ends = min(ends, here - 1)
        return self._stopped(
            "truncated",
            f"the log was cut at {ends}, before the position {here}: the records {ends} to {here - 1}, which "
            "were taken in, are no longer in it; others may stand in their place (unclean leader election)",
            ends, here - 1,
        )  # fmt: skip

    def recreated(self, topic_id: UUID) -> SourceStopped:
        """Another topic of the same name: what the old one held after the position is gone for good."""
        here = self.position
        return self._stopped(
            "recreated",
            f"the topic was deleted and created again (id {here.topic_id} is {topic_id} now): "
            f"whatever the old one held from {here.offset} on is gone",
            here.offset, None,
        )  # fmt: skip

    def _stopped(self, reason: str, what: str, first: int, last: int | None) -> SourceStopped:
        resume = f"`eventflow sources resume {self.source} --from earliest|latest|OFFSET`"
        missing = {
            "topic": self.topic, "partition": self.number, "reason": reason, "from": first, "to": last,
        }  # fmt: skip
        return SourceStopped(
            f"source '{self.source}': {self.topic}/{self.number}: {what}; decide where it goes on: {resume}",
            missing,
        )
