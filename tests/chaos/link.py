"""A node's way to Postgres: a proxy on a Unix socket that can cut, stall, and hold one chosen message.

It speaks just enough of Postgres' protocol (https://www.postgresql.org/docs/current/protocol-message-formats.html)
to know where a request ends, where its answer ends, and which request is a COMMIT. It knows nothing of
what eventflow says through it.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from tests.chaos.faults import Moment

SOCKET = ".s.PGSQL.5432"
TORN = (OSError, asyncio.IncompleteReadError)
PARTS_OF_REQUEST = b"PBDEC"
"""Parse, Bind, Describe, Execute, Close: nothing happens before the Sync that follows."""
ENDS_OF_REQUEST = b"QS"
"""Query, Sync."""
END_OF_ANSWER = b"Z"
"""ReadyForQuery."""
ROWS = b"D"
"""DataRow: never the last of what the server has to say."""


@dataclass(slots=True, eq=False)
class Trap:
    """Waits for the `skip + 1`st such moment of a node, then holds that message until `let_go`."""

    moment: Moment
    skip: int
    sprung: asyncio.Event = field(default_factory=asyncio.Event)
    delivered: asyncio.Future[bool] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def let_go(self, *, deliver: bool) -> None:
        """Send the message on, or never, and then close its connection."""
        if not self.delivered.done():
            self.delivered.set_result(deliver)

    async def hold(self) -> bool:
        """Whether the message may go on; for the connection that carries it."""
        self.sprung.set()
        return await self.delivered


class Link:
    """One node's proxy. `url` stands for Postgres in the node's settings."""

    def __init__(self, postgres: Path, *, user: str = "eventflow", database: str = "postgres") -> None:
        """`postgres` is the folder of the server's socket."""
        # A socket's path may have about 100 bytes, and a work folder may lie deep.
        self._folder = Path(tempfile.mkdtemp(prefix="efl-"))
        self._postgres = postgres
        self._open = asyncio.Event()
        self._open.set()
        self._traps: list[Trap] = []
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self.url = f"postgresql://{user}@/{database}?host={quote(str(self._folder), safe='')}"

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self._folder / SOCKET)

    async def close(self) -> None:
        """End every connection; the socket's folder goes."""
        self.flow()
        for trap in list(self._traps):
            self.disarm(trap)
        if self._server is not None:
            self._server.close()
        self.cut()
        if self._connections:
            await asyncio.wait(self._connections.values(), timeout=5)
        shutil.rmtree(self._folder, ignore_errors=True)

    # ------------------------------------------------------------------ what the driver does to it

    def cut(self) -> None:
        """Close all connections, whatever is on its way in them."""
        for connection in list(self._connections):
            connection.close()

    def stall(self) -> None:
        """Nothing passes any more, in either direction, and nobody is told."""
        self._open.clear()

    def flow(self) -> None:
        """What was stalled arrives."""
        self._open.set()

    @property
    def stalled(self) -> bool:
        return not self._open.is_set()

    def arm(self, moment: Moment, skip: int) -> Trap:
        """Wait for a moment; whoever arms a trap disarms it."""
        trap = Trap(moment, skip)
        self._traps.append(trap)
        return trap

    def disarm(self, trap: Trap) -> None:
        """Let the trap go, sprung or not."""
        if trap in self._traps:
            self._traps.remove(trap)
        trap.let_go(deliver=True)

    # ------------------------------------------------------------------ what its connections ask

    async def opened(self) -> None:
        """Wait while the link is stalled."""
        await self._open.wait()

    def trap_for(self, *, commit: bool, answer: bool) -> Trap | None:
        """The trap that this request springs, once. An answer's trap is taken when the request passes."""
        for trap in self._traps:
            if trap.moment.of_answer != answer or (trap.moment.of_commit and not commit):
                continue
            if not trap.skip:
                self._traps.remove(trap)
                return trap
            trap.skip -= 1
        return None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_unix_connection(str(self._postgres / SOCKET))
        except OSError:
            writer.close()
            return
        connection = Connection(self, (reader, writer), upstream)
        self._connections[connection] = asyncio.ensure_future(connection.run())
        try:
            await self._connections[connection]
        finally:
            del self._connections[connection]


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Connection:
    """One session through a link."""

    def __init__(self, link: Link, client: Stream, server: Stream) -> None:
        self._link = link
        self._client, self._client_out = client
        self._server, self._server_out = server
        self._held: Trap | None = None
        """The trap that waits for the end of the answer that is on its way."""

    async def run(self) -> None:
        """Carry messages until one side ends, then close the other."""
        pumps = [asyncio.ensure_future(pump()) for pump in (self._requests, self._answers)]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.close()
            for pump in pumps:
                pump.cancel()
            for pump in pumps:
                with suppress(asyncio.CancelledError, *TORN):
                    await pump

    def close(self) -> None:
        if self._held is not None:
            self._held.sprung.set()  # its answer will never come; the driver need not wait for it
        for writer in (self._client_out, self._server_out):
            with suppress(OSError, RuntimeError):
                writer.close()

    async def _requests(self) -> None:
        length = await self._client.readexactly(4)  # the first message has no type
        await self._pass(self._server_out, length + await self._client.readexactly(_size(length) - 4))
        waiting = b""
        while True:
            head, body = await _message(self._client)
            waiting += head + body
            if head[:1] in PARTS_OF_REQUEST:
                continue
            if head[:1] in ENDS_OF_REQUEST:
                commit = head[:1] == b"Q" and b"COMMIT" in body[:200].upper()
                trap = self._link.trap_for(commit=commit, answer=False)
                if trap is not None and not await trap.hold():
                    return
                self._held = self._held or self._link.trap_for(commit=commit, answer=True)
            await self._pass(self._server_out, waiting)
            waiting = b""

    async def _answers(self) -> None:
        waiting = b""
        while True:
            head, body = await _message(self._server)
            waiting += head + body
            if self._held is not None:
                if head[:1] != END_OF_ANSWER:
                    continue
                trap, self._held = self._held, None
                if not await trap.hold():
                    return
            elif head[:1] in ROWS:
                continue
            await self._pass(self._client_out, waiting)
            waiting = b""

    async def _pass(self, writer: asyncio.StreamWriter, messages: bytes) -> None:
        await self._link.opened()
        writer.write(messages)
        await writer.drain()


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """One message: its type and length, its content."""
    head = await reader.readexactly(5)
    return head, await reader.readexactly(_size(head[1:]) - 4)


def _size(length: bytes) -> int:
    return int.from_bytes(length, "big")
