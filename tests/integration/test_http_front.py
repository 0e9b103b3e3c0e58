"""Connections to the HTTP front: slow, endless, too many, at stop, and where it listens."""

from __future__ import annotations

import asyncio
import resource
import shlex
import socket
import subprocess
import sys

import pytest

from eventflow.api import server as server_module
from eventflow.api.app import App
from eventflow.api.protocol import GuardedProtocol
from eventflow.api.server import serve_http
from eventflow.errors import ListenError
from tests.http_sender import Sender, get, post, wire
from tests.integration.test_webhook_http import front


async def test_requests_on_one_connection_are_answered_in_order_even_when_sent_at_once() -> None:
    async with front() as at, Sender.connected(at.port) as sender:
        sender.write(
            b"".join(wire("POST", "/hooks/hook", b"1", {"Idempotency-Key": f"k{n}"}) for n in range(5))
        )
        assert [(await sender.answer()).id for _ in range(5)] == [f"k{n}" for n in range(5)]


@pytest.mark.parametrize(
    ("part", "limit"),
    [
        (b"", "headers_within"), (b"POST /hooks/hook HTTP/1.1\r\nHos", "headers_within"),
        (wire("POST", "/hooks/hook", b"{", {"Content-Length": "9"}), "body_within"),
    ],
)  # fmt: skip
async def test_a_slow_sender_is_cut_off(monkeypatch: pytest.MonkeyPatch, part: bytes, limit: str) -> None:
    monkeypatch.setattr(GuardedProtocol, limit, 0.1)
    async with front() as at, Sender.connected(at.port) as sender:
        sender.write(part)
        assert await sender.ended(5)
        assert (await post(at.port, "/hooks/hook", b"{}")).status == 202


async def test_headers_without_end_are_cut_off() -> None:
    async with front() as at, Sender.connected(at.port) as sender:
        sender.write(b"POST /hooks/hook HTTP/1.1\r\n" + b"X-A: " + b"a" * 100_000)
        assert (await sender.answer()).status in (400, 431)
        assert await sender.ended(5)


def test_the_usual_limit_of_open_files_is_raised_for_a_burst_of_senders() -> None:
    show = "from eventflow.api.protocol import connections_allowed as n; print(n(), end='')"
    limited = f"ulimit -S -n 1024 && exec {shlex.quote(sys.executable)} -c {shlex.quote(show)}"
    allowed = subprocess.run(["sh", "-c", limited], capture_output=True, check=True).stdout
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert int(allowed) == (16_384 if hard == resource.RLIM_INFINITY or hard >= 16_640 else hard - 256)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_answers_leave_at_once(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """With Nagle's algorithm on, one in two answers would wait 40 ms for the sender's acknowledgement."""
    no_delay: list[int] = []
    made = GuardedProtocol.connection_made

    def noting(self: GuardedProtocol, transport: asyncio.Transport) -> None:
        no_delay.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        made(self, transport)

    monkeypatch.setattr(GuardedProtocol, "connection_made", noting)
    async with serve_http(App(), host, 0, explicit=False) as server:
        reader, writer = await asyncio.open_connection(host, server.port)
        writer.write(wire("GET", "/healthz"))
        assert await reader.readline() == b"HTTP/1.1 503 Service Unavailable\r\n"
        writer.close()
    assert no_delay == [1]


async def test_a_connection_too_many_hears_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "connections_allowed", lambda: 2)
    async with front() as at, Sender.connected(at.port) as first, Sender.connected(at.port):
        answer = await post(at.port, "/hooks/hook", b"{}")
        assert (answer.status, answer.headers["retry-after"]) == (503, "2")
        first.abort()
        async with asyncio.timeout(5):
            while (await post(at.port, "/hooks/hook", b"{}")).status != 202:
                await asyncio.sleep(0.01)


async def test_at_stop_requests_inside_are_answered_and_the_connection_ends() -> None:
    async with front() as at:
        at.commits.automatic = False
        stopping: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def serve_once(port: int) -> None:
            async with serve_http(at.app, "127.0.0.1", port, explicit=True):
                started.set()
                await stopping

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        started = asyncio.Event()
        serving = asyncio.create_task(serve_once(port))
        await started.wait()
        async with Sender.connected(port) as inside, Sender.connected(port) as idle:
            inside.write(wire("POST", "/hooks/hook", b"{}"))
            await at.commits.taken(0)
            stopping.set_result(None)
            assert await idle.ended(5)
            assert not serving.done()
            await at.commits.verdict.put(at.commits.committed)
            answer = await inside.answer()
            assert (answer.status, answer.headers["connection"]) == (202, "close")
        await asyncio.wait_for(serving, 5)


async def test_a_busy_port_that_nobody_asked_for_gives_way_to_the_next_one() -> None:
    app = App()
    async with serve_http(app, "127.0.0.1", 0, explicit=False) as first:
        async with serve_http(app, "127.0.0.1", first.port, explicit=False) as second:
            assert second.port > first.port
            assert (await get(second.port, "/healthz")).status == 503
        with pytest.raises(ListenError, match=f"port {first.port} on 127.0.0.1 is taken"):
            async with serve_http(app, "127.0.0.1", first.port, explicit=True):
                pass
