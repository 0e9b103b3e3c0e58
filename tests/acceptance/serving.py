"""`eventflow serve` as a user starts it: a process of its own, with a folder of rule files."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

RULES = """
sources:
  landing: {connector: file, path: ../landing, pattern: "**", settle: {quiet: 2s}, initial: process}
  hook: {connector: webhook, verify: none}
  keyed: {connector: webhook, verify: none, id: data.key}
workflows:
  load:
    params: {item: string}
    tasks: {enter: {python: "steps:enter", with: {item: "${params.item}"}}}
  slow: {tasks: {wait: {shell: ["sh", "-c", "echo started >> slow.log; sleep 2; echo ended >> slow.log"]}}}
rules:
  files:
    from: landing
    match: {type: [file.arrived, file.changed]}
    run: load
    with: {item: "${event.data.name}"}
  posts:
    from: [hook, keyed]
    match: {type: webhook.received, data.slow: {exists: false}}
    run: load
    with: {item: "${event.id}"}
  slow-posts: {from: hook, match: {data.slow: true}, run: slow}
"""

STEPS = """
async def enter(item):
    return len(item)
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def until(true: Callable[[], Awaitable[bool]], seconds: float = 60, what: str = "") -> None:
    """Wait for a condition; its deadline is no synchronisation, only an end to waiting."""
    async with asyncio.timeout(seconds):
        while not await true():
            await asyncio.sleep(0.05)


class Served:
    """A running `eventflow serve`."""

    def __init__(self, child: asyncio.subprocess.Process, port: int, log: Path) -> None:
        self.child = child
        self.port = port
        self.log = log

    def signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    async def stop(self) -> int:
        if self.child.returncode is None:
            self.signal(signal.SIGTERM)
        return await asyncio.wait_for(self.child.wait(), 60)

    async def kill(self) -> None:
        self.child.kill()
        await self.child.wait()

    async def get(self, path: str) -> int:
        return (await request(self.port, f"GET {path} HTTP/1.1\r\nHost: t\r\n\r\n".encode()))[0]

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        head = f"POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n"
        return await request(self.port, head.encode() + body)


async def request(port: int, message: bytes) -> tuple[int, bytes]:
    """Status and body of one request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(message)
        status = int((await reader.readline()).split()[1])
        length = 0
        while (line := await reader.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return status, await reader.readexactly(length)
    finally:
        writer.close()


class Place:
    """A folder with `rules/`, `landing/` and `data/`, and the processes started on it."""

    def __init__(self, folder: Path, url: str | None, rules: str = RULES) -> None:
        self.folder = folder
        self.url = url
        self.landing = folder / "landing"
        self.landing.mkdir(parents=True)
        (folder / "rules").mkdir()
        (folder / "rules" / "rules.yaml").write_text(rules)
        (folder / "rules" / "steps.py").write_text(STEPS)
        self._started = 0

    @property
    def env(self) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("EVENTFLOW_")}
        env |= {"EVENTFLOW_DATA": str(self.folder / "data"), "EVENTFLOW_LOG": "json"}
        return env if self.url is None else env | {"EVENTFLOW_DATABASE_URL": self.url}

    @asynccontextmanager
    async def serve(
        self, *, path: str | None = "rules", ready: bool = True, settings: Mapping[str, str] = {}
    ) -> AsyncIterator[Served]:
        """Serve until the block ends; answers 200 to /healthz when it begins."""
        port, self._started = free_port(), self._started + 1
        log = self.folder / f"serve-{self._started}.log"
        with log.open("wb") as output:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "eventflow", "serve", *([path] if path else []),
                cwd=self.folder, stdout=output, stderr=output,
                env={**self.env, "EVENTFLOW_HTTP": f"127.0.0.1:{port}", **settings},
            )  # fmt: skip
            served = Served(child, port, log)
            try:
                if ready:
                    await until(lambda: self._answers(served))
                yield served
            finally:
                if child.returncode is None:
                    child.send_signal(signal.SIGCONT)
                    child.kill()
                    await child.wait()

    async def _answers(self, served: Served) -> bool:
        if served.child.returncode is not None:
            raise AssertionError(f"serve ended: {served.log.read_text()}")
        try:
            return await served.get("/healthz") == 200
        except (OSError, IndexError, asyncio.IncompleteReadError):
            return False

    async def command(self, *words: str) -> tuple[int, str, str]:
        """Exit code, standard output and error of `eventflow WORDS`."""
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "eventflow", *words, cwd=self.folder, env=self.env,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await child.communicate()
        assert child.returncode is not None
        return child.returncode, out.decode(), err.decode()

    def drop(self, name: str, content: bytes) -> Path:
        """A file renamed into place."""
        partial = self.folder / f"partial-{name.replace('/', '-')}"
        partial.write_bytes(content)
        return partial.rename(self.landing / name)


async def run_counts(pool: Any) -> dict[str, int]:
    """How many runs in each state."""
    async with pool.acquire() as conn:
        rows = await conn.fetch("SELECT state, count(*) AS n FROM run GROUP BY state")
    return {row["state"]: row["n"] for row in rows}


async def fetch(pool: Any, query: str, *args: Any) -> list[Any]:
    async with pool.acquire() as conn:
        return list(await conn.fetch(query, *args))
