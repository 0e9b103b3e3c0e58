"""A transport that sends what is written in one pass of the event loop with one system call.

uvicorn writes the head and the body of a response apart. Each would be a system call, a packet, and most
often a switch to the sender's process: more than all else that a small response costs.
"""

from __future__ import annotations

import asyncio


class JoinedWrites:
    """What uvicorn's HTTP protocol uses of a transport, around one."""

    __slots__ = (
        "_call_soon",
        "_parts",
        "_transport",
        "get_extra_info",
        "is_closing",
        "pause_reading",
        "resume_reading",
    )

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._call_soon = loop.call_soon
        self._parts: list[bytes] = []
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        """Send `data` once the running callbacks are through."""
        if not self._parts:
            self._call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        """Send what was written, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            self._transport.write(b"".join(parts))
