"""Which paths are worth a look now, and which one later. In memory only: a scan finds them all again."""

from __future__ import annotations

import heapq
import time

from connectors.file.look import Candidate, Look


class Candidates:
    """Paths to look at: `ready` at once in the order they came, the others when they fall due.

    A path stands at most once in each. One that was renamed into place is whole at once and need not wait.
    """

    def __init__(self) -> None:
        self._ready: dict[bytes, Candidate] = {}
        self._waiting: dict[bytes, tuple[int, Candidate]] = {}
        self._due: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._ready) + len(self._waiting)

    @property
    def ready(self) -> int:
        return len(self._ready)

    def now(self, candidate: Candidate) -> None:
        """Look at once. What is known of an earlier one stays: settled once, settled until looked at."""
        before = self._ready.get(candidate.path)
        if before is None or (candidate.settled and not before.settled):
            self._ready[candidate.path] = candidate
        if candidate.settled:
            self._waiting.pop(candidate.path, None)

    def later(self, candidate: Candidate, due: int) -> None:
        """Look at monotonic nanosecond `due`; a path that waits already keeps its earlier time."""
        waiting = self._waiting.get(candidate.path)
        if waiting and waiting[0] <= due:
            return
        self._waiting[candidate.path] = (due, candidate)
        heapq.heappush(self._due, (due, candidate.path))

    def forget(self, path: bytes) -> None:
        """It need not be looked at any more, unless it is ready already."""
        self._waiting.pop(path, None)

    def unfinished(self, look: Look) -> None:
        """The look says when the next one is worth it; without a time, something else will tell."""
        if look.again is not None:
            self.later(Candidate(look.path, signature=look.signature, since=look.since), look.again)

    def fall_due(self) -> None:
        now = time.monotonic_ns()
        while self._due and self._due[0][0] <= now:
            due, path = heapq.heappop(self._due)
            waiting = self._waiting.get(path)
            if waiting and waiting[0] == due:
                del self._waiting[path]
                self.now(waiting[1])

    def next_due(self) -> int | None:
        """Monotonic nanoseconds; may be early, where that path was looked at meanwhile."""
        return self._due[0][0] if self._due else None

    def take(self, count: int) -> list[Candidate]:
        paths = [path for path, _ in zip(self._ready, range(count), strict=False)]
        return [self._ready.pop(path) for path in paths]
