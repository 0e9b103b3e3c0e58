"""`make bench`: one line per figure, `name value unit floor ratio`, ours and its floor in the same run.

Exits 1 where a figure misses what it must reach. Refuses to run on a server that may lose what it
acknowledged. `--only NAME[,NAME]` runs some of the groups.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench.figure import GOALS, Figure
from eventflow.store.pool import check_server, connect_once
from eventflow.testing.postgres import DatabaseServer

GROUPS: Final = (
    "matching", "ingest", "tasks", "latency", "webhook", "files", "kafka", "cdc", "sources", "idle",
)  # fmt: skip


async def measure(groups: list[str]) -> list[Figure]:
    """Every group on a database of its own, printed as it comes."""
    found: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="eventflow-bench-") as folder:
        async with DatabaseServer(Path(folder)) as server:
            for name in groups:
                async with server.database() as url:
                    conn = await connect_once(url)
                    await check_server(conn, allow_unsafe=False)
                    await conn.close()
                    print(f"# {name} ...", file=sys.stderr, flush=True)
                    for figure in await importlib.import_module(f"bench.{name}").figures(url):
                        print(figure, flush=True)
                        found.append(figure)
    return found


def main() -> int:
    """Measure, print, compare with the goals."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--only", default=",".join(GROUPS), help=f"some of: {', '.join(GROUPS)}")
    groups = parser.parse_args().only.split(",")
    unknown = set(groups) - set(GROUPS)
    if unknown:
        parser.error(f"no such group: {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    found = asyncio.run(measure(groups))
    print("\n# figure                     ratio      must       aim  reached", file=sys.stderr)
    missed = False
    for figure in found:
        goal = GOALS.get(figure.name)
        if goal is None:
            continue
        verdict = goal.verdict(figure.ratio)
        missed = missed or verdict == "MISSED"
        print(
            f"# {figure.name:24s} {figure.ratio:9.4g} {goal.must:9g} {goal.aim:9g}  {verdict}",
            file=sys.stderr,
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
