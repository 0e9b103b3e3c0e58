"""When a failed try is followed by another one. Pure: chance is handed in."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from eventflow.workflow.definition import Retry

MAX_CRASHES: Final = 3
"""The crash at which a task run is given up: code that kills its process three times will do it again."""

LONGEST_WAIT: Final = timedelta(days=1)
JITTER: Final = 0.25


def wait_after(retry: Retry, failures: int, chance: float) -> timedelta | None:
    """How long to wait after the `failures`-th failure (from 1); None: that was the last attempt.

    `backoff` * 2^(failures - 1), and up to a quarter more: `chance` is uniform in [0, 1), so that tasks
    which failed together do not come back together. Never shorter than stated, never above a day.
    """
    if failures >= retry.attempts:
        return None
    # 2^62 seconds is far above the cap, and no power of two is computed that a float cannot hold.
    doubled = retry.backoff.total_seconds() * 2.0 ** min(failures - 1, 62)
    return timedelta(seconds=min(doubled * (1 + JITTER * chance), LONGEST_WAIT.total_seconds()))
