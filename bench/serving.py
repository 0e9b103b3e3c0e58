"""`eventflow serve` and the floors' servers as processes of their own, as a user would run them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Served:
    """A process that answers on `port` of 127.0.0.1."""

    port: int
    pid: int


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@asynccontextmanager
async def process(argv: list[str], port: int, env: Mapping[str, str]) -> AsyncIterator[Served]:
    """Run `argv` until the block ends; ready once it answers 200 to `GET /healthz`."""
    with tempfile.TemporaryFile() as errors:
        child = await asyncio.create_subprocess_exec(
            *argv, env={**os.environ, **env}, stdout=errors, stderr=errors, stdin=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(60):
                while not await healthy(port):
                    if child.returncode is not None:
                        errors.seek(0)
                        raise RuntimeError(f"{argv} ended with {child.returncode}: {errors.read().decode()}")
                    await asyncio.sleep(0.02)
            yield Served(port, child.pid)
        finally:
            if child.returncode is None:
                child.send_signal(signal.SIGTERM)
                await child.wait()


async def healthy(port: int) -> bool:
    """Whether `GET /healthz` is answered with 200."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
        return b" 200 " in await reader.readline()
    finally:
        writer.close()


@asynccontextmanager
async def serve(url: str, files: Mapping[str, str], env: Mapping[str, str] = {}) -> AsyncIterator[Served]:
    """`eventflow serve` on `url` with these rule files, in a folder of its own."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="eventflow-bench-rules-") as folder:
        for name, text in files.items():
            Path(folder, name).parent.mkdir(exist_ok=True)
            Path(folder, name).write_text(text)
        settings = {
            "EVENTFLOW_DATABASE_URL": url, "EVENTFLOW_HTTP": f"127.0.0.1:{port}",
            "EVENTFLOW_DATA": str(Path(folder, "data")), **env,
        }  # fmt: skip
        argv = [sys.executable, "-m", "eventflow", "serve", str(folder), "--take-over"]
        async with process(argv, port, settings) as served:
            yield served
