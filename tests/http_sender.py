"""A sender that writes its own bytes: for requests that no well-behaved HTTP client would make."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Answer:
    """One response, headers by name in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The event's id of a 202."""
        assert self.status == 202, self
        return json.loads(self.body)["id"]


def wire(method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """A request as bytes. Headers that are given win over Content-Length and Content-Type."""
    all_headers = {"Host": "test", "Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = [f"{name}: {value}" for name, value in (all_headers | dict(headers or {})).items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode("latin-1") + body


class Sender:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @asynccontextmanager
    async def connected(cls, port: int) -> AsyncIterator[Self]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()

    def write(self, raw: bytes) -> None:
        self._writer.write(raw)

    async def answer(self, seconds: float = 10) -> Answer:
        """The next response; raises `IncompleteReadError` where the connection ends before it."""
        async with asyncio.timeout(seconds):
            lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            pairs = [line.partition(": ") for line in lines[1:] if line]
            headers = {name.lower(): value for name, _, value in pairs}
            body = await self._reader.readexactly(int(headers["content-length"]))
            return Answer(int(lines[0].split()[1]), headers, body)

    async def ended(self, seconds: float = 10) -> bool:
        """Whether the other side closes the connection."""
        async with asyncio.timeout(seconds):
            try:
                return not await self._reader.read(1)
            except ConnectionResetError:
                return True

    def abort(self) -> None:
        """Leave without a word: a reset."""
        self._writer.transport.abort()


async def post(port: int, path: str, body: Any = b"", headers: Mapping[str, str] | None = None) -> Answer:
    """One POST on a connection of its own. `body` that is no bytes is sent as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with Sender.connected(port) as sender:
        sender.write(wire("POST", path, raw, headers))
        return await sender.answer()


async def get(port: int, path: str, method: str = "GET") -> Answer:
    """One request without a body."""
    async with Sender.connected(port) as sender:
        sender.write(wire(method, path))
        return await sender.answer()
