"""How many requests a source takes: a token bucket on the machine's steady clock, one on each node."""

from __future__ import annotations

import time
from datetime import timedelta


class TokenBucket:
    """`limit` tokens at first and at most, and as many again every `per`."""

    def __init__(self, limit: int, per: timedelta) -> None:
        self._most = float(limit)
        self._per_second = limit / per.total_seconds()
        self._tokens = self._most
        self._at = time.monotonic()

    @property
    def per_minute(self) -> int:
        """How many requests a minute come through, at least 1."""
        return max(1, int(self._per_second * 60))

    def take(self) -> float:
        """Take a token: 0; where there is none, the seconds until there is one."""
        now = time.monotonic()
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._per_second
