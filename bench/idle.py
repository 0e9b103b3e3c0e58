"""idle_cpu and serve_rss: what a node costs that has nothing to do, Postgres included."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from bench.figure import Figure
from bench.serving import serve
from eventflow.store.pool import connect_once

SECONDS: Final = 20.0
SETTLE_SECONDS: Final = 5.0
RULES = """
sources:
  landing: {connector: file, path: ./landing, initial: process}
  hook: {connector: webhook, verify: none}
workflows: {noop: {tasks: {task: {shell: ["true"]}}}}
rules:
  files: {from: landing, match: {type: file.arrived}, run: noop}
  posts: {from: hook, match: {type: webhook.received}, run: noop}
"""


def _cpu_seconds(pid: int) -> float:
    """Time on a core of all threads of a process, by the scheduler: ticks miss short wake-ups."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def _tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(") ", 1)[1].split()[1])
            except OSError:
                continue
    found = [root]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


def _rss_mib(pid: int) -> float:
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def figures(url: str) -> list[Figure]:
    """Shares of one core over 20 s at rest; resident memory of the serving process alone."""
    conn = await connect_once(url)
    postmaster = int(await conn.fetchval("SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)"))
    await conn.close()
    async with serve(url, {"idle.yaml": RULES, "landing/.keep": ""}) as ours:
        await asyncio.sleep(SETTLE_SECONDS)

        def used() -> float:
            return sum(_cpu_seconds(pid) for root in (ours.pid, postmaster) for pid in _tree(root))

        before = used()
        await asyncio.sleep(SECONDS)
        share = (used() - before) / SECONDS
        rss = _rss_mib(ours.pid)
    return [
        Figure("idle_cpu", share, "cores", None, share),
        Figure("serve_rss", rss, "MiB", None, rss),
    ]
