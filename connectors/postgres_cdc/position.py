"""Where a partition stands, and how that is kept as JSON.

Cursor: `{"lsn": "0/16B3748", "n": 5, "timeline": 1}`. Every transaction whose commit record stands before
`lsn` is taken in whole, and of the one whose commit record stands at `lsn` the first `n` changes. While a
snapshot is being read or joined to the stream, `snapshot` holds the rest (`merge.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from connectors.postgres_cdc.lsn import lsn_text, parse_lsn
from connectors.postgres_cdc.merge import Snapshot
from eventflow.event import JSON


@dataclass(frozen=True, slots=True)
class Position:
    """A cursor, decoded."""

    lsn: int
    n: int = 0
    timeline: int = 1
    snapshot: Snapshot | None = None

    def to_json(self) -> JSON:
        """What is stored."""
        cursor: dict[str, Any] = {"lsn": lsn_text(self.lsn), "n": self.n, "timeline": self.timeline}
        if self.snapshot is not None:
            cursor["snapshot"] = self.snapshot.to_json()
        return cursor

    @classmethod
    def from_json(cls, cursor: Any) -> Position:
        """The inverse."""
        snapshot = cursor.get("snapshot")
        return cls(
            parse_lsn(cursor["lsn"]), cursor["n"], cursor["timeline"],
            None if snapshot is None else Snapshot.from_json(snapshot),
        )  # fmt: skip
