"""The HTTP server: uvicorn in our event loop, without its signal handling and its ten wake-ups a second."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from email.utils import formatdate
from typing import Any, Final

import structlog
from uvicorn import Config, Server

from eventflow.api.protocol import GuardedProtocol, connections_allowed
from eventflow.errors import ListenError

log = structlog.get_logger()

KEEP_ALIVE: Final = 30
"""Seconds for which a connection may idle between requests."""
PORTS_TRIED: Final = 100
BACKLOG: Final = 2048

Application = Callable[[Any, Any, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class HttpServer:
    """A server that listens. `url` has no slash at its end."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Where a client on this machine reaches it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - no binding
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


@asynccontextmanager
async def serve_http(
    app: Application, host: str, port: int, *, explicit: bool, grace: timedelta = timedelta(seconds=10)
) -> AsyncGenerator[HttpServer]:
    """Serve `app` until the block ends, then let requests inside finish for `grace`.

    A busy `port` that nobody asked for by name (`explicit`) gives way to the next free one, which is logged.
    Raises `ListenError` where the address cannot be listened on.
    """
    listener = _listen(host, port, explicit)
    address = HttpServer(host, listener.getsockname()[1])
    server = _uvicorn(app, grace)
    await server.startup([listener])
    ticker = _Ticker(server)
    log.info("http_listening", url=address.url)
    try:
        yield address
    finally:
        ticker.stop()
        await server.shutdown([listener])


def _uvicorn(app: Application, grace: timedelta) -> Server:
    class Protocol(GuardedProtocol):
        max_connections = connections_allowed()

    config = Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",  # its warnings are one line for every broken request a stranger sends
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(grace.total_seconds())),
    )
    config.load()
    server = Server(config)
    server.lifespan = config.lifespan_class(config)
    return server


class _Ticker:
    """Keeps the Date header current, once a second; the rest of uvicorn's main loop is not needed."""

    def __init__(self, server: Server) -> None:
        self._state = server.server_state
        self._loop = asyncio.get_running_loop()
        self._tick()

    def _tick(self) -> None:
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        self._timer = self._loop.call_later(1.0, self._tick)

    def stop(self) -> None:
        self._timer.cancel()


def _listen(host: str, port: int, explicit: bool) -> socket.socket:
    tries = 1 if explicit or not port else PORTS_TRIED
    for candidate in range(port, min(port + tries, 65_536)):
        try:
            listener = _bind(host, candidate)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                reason = error.strerror or error
                raise ListenError(f"cannot listen on {host}:{candidate}: {reason}") from error
            continue
        if candidate != port:
            log.warning("http_port_busy", asked=port, taken=candidate)
        return listener
    taken = f"port {port}" if explicit else f"every port from {port} to {port + tries - 1}"
    raise ListenError(f"{taken} on {host} is taken; stop what listens there or name another address")


def _bind(host: str, port: int) -> socket.socket:
    """A listener whose connections have Nagle's algorithm off.

    asyncio turns it off only where the socket names its protocol, which `socket.create_server` does not: a
    response of two writes would wait 40 ms for the sender's delayed acknowledgement.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
