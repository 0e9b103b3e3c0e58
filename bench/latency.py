"""event_to_task: from the webhook being sent to the task being entered, at a low rate.

The floor is a bare ASGI application that inserts the event and a task row, notifies, and claims the row when
the notification comes back. Both stamp the moment with the machine's monotonic clock and send it as a
datagram; requests to the two alternate, so a neighbour disturbs both alike.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from typing import Final

from bench.figure import Figure
from bench.serving import free_port, process, serve
from eventflow.event import encode_json
from eventflow.store.pool import connect_once

REQUESTS: Final = 1_200
WARM_UP: Final = 100

RULES = """
sources:
  async-hook: {connector: webhook, verify: none}
  def-hook: {connector: webhook, verify: none}
workflows:
  in-loop:
    params: {n: int, port: int}
    tasks: {enter: {python: "stamp:enter_loop", with: {n: "${params.n}", port: "${params.port}"}}}
  in-process:
    params: {n: int, port: int}
    tasks: {enter: {python: "stamp:enter_process", with: {n: "${params.n}", port: "${params.port}"}}}
rules:
  hot:
    from: async-hook
    match: {type: webhook.received}
    run: in-loop
    with: {n: "${event.data.n}", port: "${event.data.port}"}
  warm:
    from: def-hook
    match: {type: webhook.received}
    run: in-process
    with: {n: "${event.data.n}", port: "${event.data.port}"}
"""

STAMP = """
import socket, time

_out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


async def enter_loop(n, port):
    _out.sendto(b"%d %d" % (n, time.monotonic_ns()), ("127.0.0.1", port))


def enter_process(n, port):
    _out.sendto(b"%d %d" % (n, time.monotonic_ns()), ("127.0.0.1", port))
"""


class Sender:
    """Posts one numbered event at a time over a kept connection and waits for its stamp."""

    def __init__(self, port: int, path: str, stamps: socket.socket) -> None:
        self._port, self._path, self._stamps = port, path, stamps
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.answered: list[float] = []
        """Milliseconds to each 202, which is sent after the COMMIT."""

    async def milliseconds(self, n: int) -> float:
        """From just before the request is written to the stamp of its task."""
        if self._stream is None:
            self._stream = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._stream
        body = encode_json({"n": n, "port": self._stamps.getsockname()[1], "note": "x" * 440})
        head = (
            f"POST {self._path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        loop = asyncio.get_running_loop()
        sent = time.monotonic_ns()
        writer.write(head.encode() + body)
        answer = loop.create_task(self._answer(reader, sent))
        while True:
            number, entered = map(
                int, (await asyncio.wait_for(loop.sock_recv(self._stamps, 100), 30)).split()
            )
            if number == n:
                break
        await answer
        return (entered - sent) / 1e6

    async def _answer(self, reader: asyncio.StreamReader, sent: int) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.answered.append((time.monotonic_ns() - sent) / 1e6)
        assert b" 202 " in head.split(b"\r\n")[0], head
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


async def _second_database(url: str) -> str:
    conn = await connect_once(url)
    try:
        await conn.execute("CREATE DATABASE floor TEMPLATE eventflow_template")
        name = await conn.fetchval("SELECT current_database()")
    finally:
        await conn.close()
    return url.replace(f"/{name}?", "/floor?")


async def figures(url: str) -> list[Figure]:
    """Three ways in turns, one request every few milliseconds."""
    stamps = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stamps.bind(("127.0.0.1", 0))
    stamps.setblocking(False)
    port = free_port()
    # A database of its own: the floor's claim would else take our tasks.
    floor_argv = [sys.executable, "-m", "bench.floor_app", await _second_database(url), str(port)]
    taken: dict[str, list[float]] = {"floor": [], "async": [], "def": []}
    async with (
        serve(url, {"latency.yaml": RULES, "stamp.py": STAMP}) as ours,
        process(floor_argv, port, {}) as floor,
    ):
        senders = {
            "floor": Sender(floor.port, "/", stamps),
            "async": Sender(ours.port, "/hooks/async-hook", stamps),
            "def": Sender(ours.port, "/hooks/def-hook", stamps),
        }
        for n in range(REQUESTS + WARM_UP):
            for name, sender in senders.items():
                taken[name].append(await sender.milliseconds(n))
                await asyncio.sleep(0.003)  # a low rate: what is left of the last event is over
    values = {name: each[WARM_UP:] for name, each in taken.items()}
    lines: list[Figure] = []
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        floor_ms, ours_ms = _quantile(values["floor"], share), _quantile(values["async"], share)
        lines.append(Figure(f"event_to_task_{name}", ours_ms, "ms", floor_ms, ours_ms / floor_ms))
    answered = _quantile(senders["async"].answered[WARM_UP:], 0.5)
    lines.append(Figure("webhook_event_to_commit_p50", answered, "ms", None, answered))
    floor_ms, ours_ms = _quantile(values["floor"], 0.5), _quantile(values["def"], 0.5)
    return [*lines, Figure("process_task_p50", ours_ms, "ms", floor_ms, ours_ms / floor_ms)]
