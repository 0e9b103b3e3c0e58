"""One HTTP/1.1 request to this machine, the way a sender does it that may be cut off at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping


async def request(
    port: int,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    seconds: float = 8,
) -> tuple[int, bytes]:
    """Status and body; status 0 where no whole answer came, and then nobody knows what was done."""
    try:
        async with asyncio.timeout(seconds):
            return await _exchange(port, method, path, body, headers or {})
    except (OSError, TimeoutError, ValueError, IndexError, asyncio.IncompleteReadError):
        return 0, b""


async def _exchange(
    port: int, method: str, path: str, body: bytes, headers: Mapping[str, str]
) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        lines = [
            f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: close",
            f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in headers.items()),
        ]  # fmt: skip
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        lengths = [line.split(":")[1] for line in head if line.lower().startswith("content-length:")]
        content = await (reader.readexactly(int(lengths[0])) if lengths else reader.read())
        return int(head[0].split()[1]), content
    finally:
        writer.close()
