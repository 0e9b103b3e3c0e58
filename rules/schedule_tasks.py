"""The tasks of schedule.yaml. A task goes by the time it was scheduled for: it may run later, or twice."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta


def close(now: str) -> dict[str, str]:
    """The day that a run at six in the morning is about, by the clock of the schedule's zone."""
    return {"closed": (datetime.fromisoformat(now).date() - timedelta(days=1)).isoformat()}


def measure(at: str) -> dict[str, object]:
    """How full the disk is."""
    usage = shutil.disk_usage("/")
    return {"at": at, "used": round(usage.used / usage.total, 4)}
