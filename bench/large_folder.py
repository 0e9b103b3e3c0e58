"""A folder of a million files: `.venv/bin/python -m bench.large_folder [COUNT]`. No figure: it takes minutes.

Makes COUNT empty files in memory (/dev/shm, where there is one), lets a real `eventflow serve` take them in,
and after a restart compare them with its ledger. Prints how long each took, the process's largest memory, and
its longest answer to `GET /healthz`, asked all the while: for so long, at most, its event loop was held.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from bench.serving import Served, healthy, serve
from eventflow.store.pool import Connection, connect_once
from eventflow.testing.postgres import DatabaseServer

RULES: Final = """
sources:
  large: {{connector: file, path: {path}, initial: process, settle: {{quiet: 1ms}}, removed: true}}
rules:
  never: {{from: large, match: {{type: file.removed}}, emit: large.removed}}
"""


async def main(count: int) -> None:
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as made:
        landing = Path(made, "landing")
        landing.mkdir()
        for number in range(count):
            (landing / f"{number}").touch()
        with tempfile.TemporaryDirectory(prefix="eventflow-large-") as folder:
            async with DatabaseServer(Path(folder)) as server, server.database() as url:
                conn = await connect_once(url)
                rules = {"large.yaml": RULES.format(path=landing)}
                async with serve(url, rules) as served:
                    await _watched("taken in", served, lambda: _is(conn, "arrived", count))
                (landing / "0").unlink()  # seen to be gone at the end of the scan that a start begins with
                async with serve(url, rules) as served:
                    await _watched("compared", served, lambda: _is(conn, "removed", 1))
                await conn.close()


async def _watched(what: str, served: Served, done: Callable[[], Awaitable[bool]]) -> None:
    began, longest, asked, finished = time.monotonic(), 0.0, 0.0, False
    while not finished:
        before = time.monotonic()
        await healthy(served.port)
        longest = max(longest, time.monotonic() - before)
        await asyncio.sleep(0.005)
        if before - asked > 1:  # counting a million rows is work as well
            asked, finished = before, await done()
    status = Path(f"/proc/{served.pid}/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    took = time.monotonic() - began
    print(f"{what}: {took:.1f} s, {peak:.0f} MiB at most, longest answer {longest * 1000:.0f} ms", flush=True)


async def _is(conn: Connection, what: str, wanted: int) -> bool:
    query = "SELECT count(*) FROM event WHERE source = 'large' AND type = 'file.' || $1"
    return await conn.fetchval(query, what) == wanted


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
