"""One attempt on its way through the worker, and what it printed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from eventflow.store.task_logs import Chunk
from eventflow.store.task_runs import Claimed
from eventflow.worker.call import Call
from eventflow.worker.hidden import cover_bytes
from eventflow.worker.plan import TaskPlan

LOG_LIMIT: Final = 1024 * 1024
"""Bytes kept of one attempt's output; the rest is dropped, and the log says so."""


class AttemptLog:
    """The output of one attempt on its way to the store. `write` may be called from any thread.

    The texts in `hidden` do not get there.
    """

    __slots__ = ("_claimed", "_hidden", "_lock", "_number", "_pieces", "_size")

    def __init__(self, claimed: Claimed, hidden: Sequence[str] = ()) -> None:
        self._claimed = claimed
        self._hidden = hidden
        self._lock = threading.Lock()
        self._pieces: list[bytes] = []
        self._size = 0
        self._number = 0

    def write(self, content: bytes) -> None:
        """Keep `content`, up to the limit."""
        content = cover_bytes(content, self._hidden)
        with self._lock:
            if self._size >= LOG_LIMIT:
                return
            kept = content[: LOG_LIMIT - self._size]
            self._size += len(kept)
            self._pieces.append(kept)
            if self._size >= LOG_LIMIT:
                self._pieces.append(b"\n[eventflow: the log of this attempt ends here, at 1 MiB]\n")

    def take(self) -> Chunk | None:
        """What came since the last call, as the next chunk."""
        if not self._pieces:
            return None
        with self._lock:
            content, self._pieces = b"".join(self._pieces), []
            self._number += 1
        c = self._claimed
        return Chunk(c.run_id, c.task, c.attempt, self._number - 1, content)


@dataclass(eq=False, slots=True)
class Attempt:
    """A claimed task run that is executed here. `why_stopped` is set before it is ended from outside."""

    claimed: Claimed
    plan: TaskPlan
    call: Call
    log: AttemptLog = field(init=False)
    why_stopped: str | None = None

    def __post_init__(self) -> None:
        self.log = AttemptLog(self.claimed, self.call.hidden)
