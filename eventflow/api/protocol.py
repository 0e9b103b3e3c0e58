"""uvicorn's HTTP/1.1 protocol with limits that it lacks: slow, endless or many headers, bodies, connections.

uvicorn alone lets a silent connection stay for ever and a header line grow without end. All checks run
after the parser, once per read, and cost a whole request that came in one read almost nothing.
"""

from __future__ import annotations

import asyncio
import resource
from asyncio import TimerHandle
from typing import Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from eventflow.api.joined import JoinedWrites

HEADERS_WITHIN: Final = 10.0
"""Seconds from the first sign of a request (or the connection) to the end of its headers."""
BODY_WITHIN: Final = 30.0
"""Seconds from the end of the headers to the end of the body."""
MAX_FRAMING: Final = 64 << 10
"""Bytes of a request that are not body: headers, trailers, chunk lines."""
MAX_HEADERS: Final = 128
"""Header lines of a request."""
MAX_CONNECTIONS: Final = 16_384
SPARE_FILES: Final = 256
"""File descriptors that connections leave to Postgres, sources and logs."""

_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)
_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def connections_allowed() -> int:
    """`MAX_CONNECTIONS`, or what the process may open.

    Raises the process's own limit first, as far as it may: the usual 1,024 files are fewer than one burst
    of senders.
    """
    wanted = MAX_CONNECTIONS + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MAX_CONNECTIONS
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, soft - SPARE_FILES)


class TooManyHeaders(Exception):
    """A request has more than `MAX_HEADERS` header lines."""


class GuardedProtocol(HttpToolsProtocol):
    """One connection."""

    headers_within = HEADERS_WITHIN
    body_within = BODY_WITHIN
    max_connections = MAX_CONNECTIONS

    _deadline: TimerHandle | None = None
    _deadline_of_body = False
    _read = 0
    _body = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Arm the deadline of the first request; refuse the connection if there are too many."""
        joined = cast("asyncio.Transport", JoinedWrites(transport, self.loop))
        super().connection_made(joined)
        if len(self.connections) > self.max_connections:
            joined.write(_TOO_MANY)
            joined.close()
            return
        self._expect(body=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._expect_nothing()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """Serve the request, unless there are too many headers: the parser then ends with 400."""
        if len(self.headers) > MAX_HEADERS:
            raise TooManyHeaders
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count what is body, to tell framing from it."""
        self._body += len(body)
        super().on_body(body)

    def data_received(self, data: bytes) -> None:
        """Parse, then look at what the request still owes us."""
        super().data_received(data)
        cycle = self._cycle()
        if cycle is None or cycle.response_complete or "method" not in self.scope:
            self._expect(body=False)
        elif cycle.more_body:
            self._expect(body=True)
        else:
            self._expect_nothing()
            self._read = self._body = 0
            return
        self._read += len(data)
        # Tiny chunks are legal: five bytes of framing for one of body.
        if self._read - self._body > MAX_FRAMING + 8 * self._body and not self.transport.is_closing():
            if not self._answering():
                self.transport.write(_TOO_LONG)
            self.transport.close()

    def _answering(self) -> bool:
        """Whether a response is on its way, which a second one would garble."""
        cycle = self._cycle()
        return cycle is not None and not cycle.response_complete

    def _cycle(self) -> RequestResponseCycle | None:
        return self.cycle  # None before the first request, whatever uvicorn's annotation says

    def _expect(self, *, body: bool) -> None:
        """Arm the deadline for headers or body, unless it is armed: more bytes do not move it."""
        if self._deadline is not None:
            if self._deadline_of_body == body:
                return
            self._deadline.cancel()
        self._deadline_of_body = body
        within = self.body_within if body else self.headers_within
        self._deadline = self.loop.call_later(within, self._give_up)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()
