"""Durations (`500ms 20s 5m 6h 7d`) and names, as rule files write them."""

from __future__ import annotations

import re
from datetime import timedelta

DURATION = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)")
NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")

_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LONGEST = timedelta(days=36_500)


def duration(text: object) -> timedelta | None:
    """`2s` as a timedelta; None where the text is no duration or longer than a hundred years."""
    found = DURATION.fullmatch(text) if isinstance(text, str) else None
    if not found:
        return None
    milliseconds = int(found[1]) * _MILLISECONDS[found[2]]
    if milliseconds > _LONGEST / timedelta(milliseconds=1):
        return None
    return timedelta(milliseconds=milliseconds)
