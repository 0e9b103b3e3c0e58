"""Trouble that passes: a leader that moves, a broker that starts again."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final, NoReturn

from eventflow.errors import SourceUnavailable

PATIENCE_SECONDS: Final = 10.0
"""After that the partition is let go: eventflow says so, backs off, and another node may try."""
_FIRST_SECONDS: Final = 0.05
_LONGEST_SECONDS: Final = 1.0


class Passing(SourceUnavailable):
    """Trouble that is usually over in a moment; raised to others once it has lasted."""


class Patience:
    """Waits ever longer, with jitter, until things go well again or too long is over."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._pause = _FIRST_SECONDS

    def well(self) -> None:
        """Things go well: the next trouble is a new one."""
        self._since = None
        self._pause = _FIRST_SECONDS

    async def wait(self, trouble: Passing) -> None:
        """A pause before the next try. Raises `trouble` where it has lasted too long."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        elif now - self._since > PATIENCE_SECONDS:
            raise trouble
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        self._pause = min(self._pause * 2, _LONGEST_SECONDS)


SURE_ANSWERS: Final = 4
SURE_SECONDS: Final = 2.5
"""So often and so long the same must be said before it is believed: a broker may be behind the others."""


class Doubted(Passing):
    """What would need a person, were it true, and may be one broker's outdated knowledge."""


class Doubt:
    """Believes what is bad only where nothing else was said for a while."""

    def __init__(self) -> None:
        self._reason: str | None = None
        self._since = 0.0
        self._answers = 0

    def over(self) -> None:
        """Something else was said."""
        self._reason = None

    def unless_sure(self, reason: str, error: Exception) -> NoReturn:
        """Raise `error` where `reason` was said in a row often and long enough, else `Doubted`."""
        now = time.monotonic()
        if reason != self._reason:
            self._reason, self._since, self._answers = reason, now, 0
        self._answers += 1
        if self._answers >= SURE_ANSWERS and now - self._since >= SURE_SECONDS:
            raise error
        raise Doubted(str(error))
