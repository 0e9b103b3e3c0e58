"""files_noticed: 10,000 files renamed into a folder at 3,000 a second, until the last of them is committed.

Another process renames, at its own pace whatever eventflow does; a real `eventflow serve` notices, reads and
hashes each file and takes it in. One file in ten starts a run. The figure is files committed for each second
from the first rename to the last commit, beside the pace: 1 would be no time at all between the last rename
and its commit. `file_event_to_commit` is how long one file takes from rename to commit, at a low rate.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.figure import Figure
from bench.serving import serve
from eventflow.store.pool import Connection, connect_once

FILES: Final = 10_000
PACE: Final = 3_000
ROUNDS: Final = 3
LATENCIES: Final = 300

RULES: Final = """
sources:
  landing:
    connector: file
    path: {landing}
    pattern: "{{round:int}}/{{kind}}-{{n:int}}.csv"
    initial: process
workflows:
  load:
    params: {{path: string}}
    tasks: {{load: {{python: "load:load", with: {{path: "${{params.path}}"}}}}}}
rules:
  landed:
    from: landing
    match: {{type: file.arrived, data.kind: hot}}
    run: load
    with: {{path: "${{event.data.path}}"}}
"""
LOAD: Final = """
async def load(path):
    return len(path)
"""
# Arguments: the folder to take files from, the one to rename them into, files for each second. Prints the
# moment of the first rename, by the machine's monotonic clock.
RENAME: Final = """
import os, sys, time

aside, landing, pace = sys.argv[1], sys.argv[2], float(sys.argv[3])
names = sorted(os.listdir(aside))
began = time.monotonic()
for number, name in enumerate(names):
    ahead = began + number / pace - time.monotonic()
    if ahead > 0:
        time.sleep(ahead)
    os.rename(f"{aside}/{name}", f"{landing}/{name}")
print(began)
"""


async def figures(url: str) -> list[Figure]:
    """The median of three rounds. Raises `AssertionError` where a file was lost or taken in twice."""
    conn = await connect_once(url)
    try:
        with tempfile.TemporaryDirectory(prefix="eventflow-bench-files-") as folder:
            landing = Path(folder, "landing")
            landing.mkdir()
            files = {"files.yaml": RULES.format(landing=landing), "load.py": LOAD}
            async with serve(url, files):
                # First, while there are few rows to count.
                typical = await _typical_milliseconds(conn, Path(folder))
                rates = [await _round(conn, Path(folder), number) for number in range(ROUNDS)]
    finally:
        await conn.close()
    rate = sorted(rates)[len(rates) // 2]
    return [
        Figure("files_noticed", rate, "files/s", PACE, rate / PACE),
        Figure("file_event_to_commit_p50", typical, "ms", None, typical),
    ]


async def _round(conn: Connection, folder: Path, number: int) -> float:
    aside, into = folder / f"aside-{number}", folder / "landing" / str(number)
    aside.mkdir()
    into.mkdir()
    for n in range(FILES):
        (aside / f"{'hot' if n % 10 == 0 else 'cold'}-{n:05}.csv").write_bytes(b"id,amount\n%d,1\n" % n * 30)
    await _watched(conn, folder, number)
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RENAME, aside, into, str(PACE), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await writer.communicate()
    await _until(conn, number, FILES + 1)
    return FILES / (time.monotonic() - float(said))


async def _watched(conn: Connection, folder: Path, number: int) -> None:
    """The folder of the round is watched once a file in it was taken in."""
    (folder / "first").touch()
    (folder / "first").rename(folder / "landing" / str(number) / "cold-99999.csv")
    await _until(conn, number, 1)


async def _typical_milliseconds(conn: Connection, folder: Path) -> float:
    """From a rename to the moment at which another session sees the event, one file after the other."""
    into, found = folder / "landing" / str(ROUNDS), list[float]()
    into.mkdir()
    await _watched(conn, folder, ROUNDS)
    for number in range(LATENCIES):
        beside = folder / "beside"
        beside.write_bytes(b"id,amount\n1,1\n")
        began = time.perf_counter()
        beside.rename(into / f"cold-{number:05}.csv")
        await _until(conn, ROUNDS, number + 2, pause=0)
        found.append((time.perf_counter() - began) * 1000)
    return sorted(found)[LATENCIES // 2]


_COUNT: Final = """
SELECT count(*), count(DISTINCT id)
  FROM event
 WHERE source = 'landing' AND subject LIKE $1 || '/%'
"""


async def _until(conn: Connection, number: int, wanted: int, pause: float = 0.01) -> None:
    """Asked only once the last file is there, so that asking does not slow down what it asks about."""
    async with asyncio.timeout(60):
        while True:
            row = await conn.fetchrow(_COUNT, str(number))
            assert row is not None
            assert row[0] == row[1] <= wanted, f"taken in more than once: {row[0]} events of {row[1]} files"
            if row[0] == wanted:
                return
            await asyncio.sleep(pause)
