"""HTTP load, and the floor under a webhook: a bare ASGI sink that drops the body.

`drive` sends requests over a number of connections, one at a time on each, with wrk where it is
installed and else with processes of its own. A figure is refused (`ClientLimited`) where the client was busy
all the time: then it is the client that was measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvicorn

BUSY: Final = 0.95
"""Share of a core above which a client process counts as the limit."""
CONNECTIONS: Final = 32

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_LUA = """
local requests, at = {}, 0
for line in io.lines("%s") do
  requests[#requests + 1] = (line:gsub("..", function(hex) return string.char(tonumber(hex, 16)) end))
end
request = function() at = at %% #requests + 1; return requests[at] end
done = function(summary)
  local e = summary.errors
  io.write(string.format("RESULT %%d %%d %%d\\n", summary.requests, summary.duration,
    e.status + e.connect + e.read + e.write + e.timeout))
end
"""


class ClientLimited(Exception):
    """The client was the bottleneck; the figure would say nothing about the server."""


@dataclass(frozen=True, slots=True)
class Load:
    """What came of it. `failed` counts answers other than 2xx and broken connections."""

    answered: int
    failed: int
    seconds: float
    client_busy: float

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return (self.answered - self.failed) / self.seconds


def drive(
    host: str, port: int, requests: Sequence[bytes], *, seconds: float, connections: int = CONNECTIONS
) -> Load:
    """Send `requests`, over and over, for `seconds`. Raises `ClientLimited`."""
    run = _wrk if shutil.which("wrk") else _processes
    load = run(host, port, requests, seconds, connections)
    if load.client_busy > BUSY:
        raise ClientLimited(
            f"the client was busy {load.client_busy:.0%} of the time; {load.rate:.0f}/s is its limit"
        )
    return load


def _wrk(host: str, port: int, requests: Sequence[bytes], seconds: float, connections: int) -> Load:
    with tempfile.TemporaryDirectory() as folder:
        wires, script = Path(folder, "requests"), Path(folder, "load.lua")
        wires.write_text("\n".join(request.hex() for request in requests))
        script.write_text(_LUA % wires)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(script),
             f"http://{host}:{port}/"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    answered, micros, failed = map(int, re.findall(r"^RESULT (\d+) (\d+) (\d+)$", done.stdout, re.M)[0])
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Load(answered, failed, micros / 1e6, used / (micros / 1e6))


def _processes(host: str, port: int, requests: Sequence[bytes], seconds: float, connections: int) -> Load:
    count = max(1, min(4, os.cpu_count() or 1, connections))
    with tempfile.TemporaryDirectory() as folder:
        wires = Path(folder, "requests")
        wires.write_text("\n".join(request.hex() for request in requests))
        share = [connections // count + (index < connections % count) for index in range(count)]
        argv = [sys.executable, "-m", "bench.load", "load", host, str(port), str(wires)]
        children = [
            subprocess.Popen([*argv, str(mine), str(seconds)], stdout=subprocess.PIPE, text=True)
            for mine in share
        ]
        parts = [json.loads(child.communicate()[0]) for child in children]
    return Load(
        sum(part["answered"] for part in parts),
        sum(part["failed"] for part in parts),
        max(part["seconds"] for part in parts),
        max(part["cpu"] / part["seconds"] for part in parts),
    )


def load_here(
    host: str, port: int, requests: Sequence[bytes], connections: int, seconds: float
) -> dict[str, Any]:
    """The client process: one thread, one request at a time on each connection."""
    selector = selectors.DefaultSelector()
    at = answered = failed = 0
    for _ in range(connections):
        sock = socket.create_connection((host, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(sock, selectors.EVENT_READ, bytearray())
        sock.sendall(requests[at % len(requests)])
        at += 1
    cpu, start = time.process_time(), time.monotonic()
    end = start + seconds
    while time.monotonic() < end and selector.get_map():
        for key, _ in selector.select(0.1):
            sock, buffer = key.fileobj, key.data
            assert isinstance(sock, socket.socket)
            part = sock.recv(65_536)
            buffer += part
            if not part:
                failed += 1
                answered += 1
                selector.unregister(sock)
            elif _whole(buffer):
                answered += 1
                failed += not buffer.startswith(b"HTTP/1.1 2")
                buffer.clear()
                sock.sendall(requests[at % len(requests)])
                at += 1
    spent = time.monotonic() - start
    return {"answered": answered, "failed": failed, "seconds": spent, "cpu": time.process_time() - cpu}


def _whole(response: bytearray) -> bool:
    head = response.find(b"\r\n\r\n")
    found = _LENGTH.search(response, 0, head) if head >= 0 else None
    return found is not None and len(response) >= head + 4 + int(found[1])


async def sink(scope: Any, receive: Any, send: Any) -> None:
    """The floor: read the body, drop it, say 202."""
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


@contextlib.contextmanager
def running_sink() -> Iterator[tuple[str, int]]:
    """The sink in a process of its own; gives its host and port."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        host, port = listener.getsockname()
        child = subprocess.Popen(
            [sys.executable, "-m", "bench.load", "sink", str(listener.fileno())],
            pass_fds=[listener.fileno()],
        )
        try:
            with socket.create_connection((host, port)) as probe:  # answered once the loop runs
                probe.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
                probe.recv(1024)
            yield host, port
        finally:
            child.terminate()
            child.wait()


def main(words: Sequence[str]) -> None:
    """The processes of this module: `sink FD`, `load HOST PORT FILE CONNECTIONS SECONDS`."""
    match words:
        case ["sink", fd]:
            config = uvicorn.Config(
                sink, loop="uvloop", http="httptools", ws="none", lifespan="off",
                log_config=None, access_log=False, server_header=False, proxy_headers=False,
            )  # fmt: skip
            # Handed over as a socket: uvicorn takes a bare descriptor for a Unix socket and leaves Nagle on.
            uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(fd))])
        case ["load", host, port, file, connections, seconds]:
            requests = [bytes.fromhex(line) for line in Path(file).read_text().split()]
            result = load_here(host, int(port), requests, int(connections), float(seconds))
            print(json.dumps(result))
        case _:
            raise SystemExit(main.__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
