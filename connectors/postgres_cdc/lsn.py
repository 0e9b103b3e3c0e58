"""Log sequence numbers as Postgres writes them."""

from __future__ import annotations


def lsn_text(lsn: int) -> str:
    """Such as `0/16B3748`."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def parse_lsn(text: str) -> int:
    """The inverse. Raises `ValueError`."""
    high, slash, low = text.partition("/")
    if not slash or not (0 < len(high) <= 8 and 0 < len(low) <= 8):
        raise ValueError(f"{text!r} is no log sequence number; they look like 0/16B3748")
    return int(high, 16) << 32 | int(low, 16)
