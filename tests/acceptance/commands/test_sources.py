"""`eventflow sources` over real nodes: a gap, a pause, an owner that dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from eventflow.store.pool import Pool
from tests.acceptance.serving import Place, fetch, until

NUMBERED = Path(__file__).parents[2] / "contract" / "numbered"
RULES = """
sources:
  lines: {connector: numbered, path: ../lines}
  web: {connector: webhook, verify: none, id: data.n}
rules:
  troubles:
    from: eventflow
    match: {type: [eventflow.source.stopped, eventflow.source.recovered]}
    emit: told
    with: {type: "${event.type}", data: "${event.data}"}
"""


@pytest.fixture
def place(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("PYTHONPATH", str(NUMBERED), prepend=os.pathsep)
    place = Place(tmp_path / "place", database, RULES)
    (place.folder / "lines").mkdir()
    return place


def write(place: Place, partition: str, *numbers: int) -> None:
    with (place.folder / "lines" / f"{partition}.log").open("a") as file:
        file.writelines(f'{{"n": {n}}}\n' for n in numbers)


async def rows(place: Place, source: str = "lines") -> dict[str, Any]:
    code, out, err = await place.command("sources", "--json")
    assert code == 0, err
    return {row["partition"]: row for row in json.loads(out) if row["source"] == source}


async def said(place: Place, *words: str, code: int = 0) -> str:
    """What a command says on stdout, or where it fails as expected on stderr."""
    got, out, err = await place.command("sources", *words)
    assert got == code, out + err
    return out if code == 0 else err


async def taken(pool: Pool, source: str = "lines") -> Counter[Any]:
    found = await fetch(pool, "SELECT data FROM event WHERE source = $1", source)
    return Counter(json.loads(bytes(row["data"]))["n"] for row in found)


def has_taken(pool: Pool, numbers: Counter[Any], source: str = "lines") -> Callable[[], Awaitable[bool]]:
    async def true() -> bool:
        return await taken(pool, source) == numbers

    return true


async def told(pool: Pool) -> list[str]:
    found = await fetch(pool, "SELECT data FROM event WHERE type = 'told' ORDER BY uid")
    return [json.loads(bytes(row["data"]))["type"].rpartition(".")[2] for row in found]


async def state(pool: Pool, partition: str) -> str:
    (row,) = await fetch(
        pool, "SELECT state FROM source_partition WHERE source = 'lines' AND partition = $1", partition
    )
    return row["state"]


async def test_a_gap_stops_a_partition_until_a_person_passes_over_it(place: Place, pool: Pool) -> None:
    async def stopped() -> bool:
        return await state(pool, "a") == "stopped"

    async def is_told(*types: str) -> None:
        async def true() -> bool:
            return await told(pool) == list(types)

        await until(true)

    write(place, "a", 1, 2, 3, 4, 5)
    write(place, "b", 6)
    settings = {"EVENTFLOW_LEASE": "3s"}
    async with place.serve(settings=settings) as served:
        await until(has_taken(pool, Counter(range(1, 7))))
        assert "neither paused nor stopped" in await said(
            place, "resume", "lines", "--from", "latest", code=2
        )
        await served.kill()
    (place.folder / "lines" / "a.log").write_text('{"n": 1}\n')
    async with place.serve(settings=settings) as served:
        await until(stopped)
        await is_told("stopped")
        assert served.log.read_text().count("source_stopped") == 1
        row = (await rows(place))["a"]
        assert (row["state"], row["missing"], row["owner"]) == ("stopped", {"first": 2, "last": 5}, None)
        assert "had 5 lines and has 1 now" in row["message"]
        assert (await rows(place))["b"]["state"] == "running", "the other goes on"
        await served.kill()
    async with place.serve(settings=settings):
        write(place, "b", 7)
        await until(has_taken(pool, Counter(range(1, 8))))
        assert await stopped()
        assert (await rows(place))["a"]["missing"] == {"first": 2, "last": 5}, "still, after a restart"
        before = (await fetch(pool, "SELECT epoch FROM source_partition WHERE partition = 'a'"))[0]["epoch"]
        assert "resumed" in await said(place, "resume", "lines")

        async def tried_again() -> bool:
            (row,) = await fetch(pool, "SELECT epoch, state FROM source_partition WHERE partition = 'a'")
            return row["epoch"] > before and row["state"] == "stopped"

        await until(tried_again)  # it looked, and the gap is still there
        assert "no position 'never'" in await said(place, "resume", "lines", "--from", "never", code=2)
        assert "neither" in await said(place, "resume", "lines", "--partition", "b", code=2)
        out = await said(place, "resume", "lines", "--from", "latest")
        assert out == 'lines a: goes on at 1; passed over: {"first":2,"last":5}\n'
        write(place, "a", 8)
        await until(has_taken(pool, Counter(range(1, 9))))
        await is_told("stopped", "recovered")
        row = (await rows(place))["a"]
        assert (row["state"], row["missing"], row["message"]) == ("running", None, None)
        (gap,) = json.loads(await said(place, "gaps", "lines", "--json"))
        assert (gap["partition"], gap["before"], gap["after"]) == ("a", "5", "1")
        assert gap["missing"] == {"first": 2, "last": 5}
        assert "@" in gap["who"]
        assert "had 5 lines" in gap["reason"]
        assert json.loads(await said(place, "gaps", "web", "--json")) == []

        async def measured() -> bool:
            row = (await rows(place))["a"]
            return (row["lag"], row["unit"]) == (0, "lines")

        await until(measured)
    code, _, err = await place.command("audit")
    assert code == 0, err
    assert "source 'lines': 1 gap was passed over" in err


async def test_pause_and_resume_lose_nothing_through_kills(place: Place, pool: Pool) -> None:
    write(place, "a", 1)
    settings = {"EVENTFLOW_LEASE": "3s"}
    async with place.serve(settings=settings) as served:
        await until(has_taken(pool, Counter([1])))
        assert (await served.post("/hooks/web", b'{"n": 101}'))[0] == 202
        for source in ("lines", "web"):
            assert f"paused {source}" in await said(place, "pause", source)
            assert "paused already" in await said(place, "pause", source)
        write(place, "a", 2)

        async def told_to_come_again() -> bool:
            return (await served.post("/hooks/web", b'{"n": 101}'))[0] == 503

        await until(told_to_come_again)
        await served.kill()
    async with place.serve(settings=settings) as served:
        write(place, "b", 3)
        assert {row["state"] for row in (await rows(place)).values()} <= {"paused", "running"}
        assert (await rows(place))["a"]["state"] == "paused"
        assert (await rows(place, "web"))[""]["state"] == "paused"
        assert "1 " not in await said(place, "resume", "lines")
        assert "resumed web" in await said(place, "resume", "web")
        await until(has_taken(pool, Counter([1, 2, 3])))

        async def answered() -> bool:
            return (await served.post("/hooks/web", b'{"n": 102}'))[0] == 202

        await until(answered)
        assert await taken(pool, "web") == Counter([101, 102])


async def test_a_deep_audit_finds_what_falsified_books_hide(place: Place, pool: Pool) -> None:
    with (place.folder / "lines" / "a.log").open("w") as file:
        file.write('{"n": 1}\n# nothing\n{"n": \n{"n": 2}\n')

    async def level() -> bool:
        rows = await fetch(pool, "SELECT taken FROM source_partition WHERE source = 'lines' AND taken = 3")
        return bool(rows)

    async with place.serve():
        await until(level)
    write(place, "a", 3, 4)

    async def audited() -> tuple[int, str, dict[str, Any]]:
        code, out, err = await place.command("audit", "--deep", "--json")
        return code, err, next(row for row in json.loads(out) if row["source"] == "lines")

    code, err, row = await audited()
    assert (code, row["outside"], row["unknown"], row["lag"], row["balanced"]) == (0, 3, 0, 2, True), err
    async with pool.acquire() as conn:
        await conn.execute("DELETE FROM event WHERE id = 'a/4'")
        await conn.execute("UPDATE source_partition SET taken = taken - 1 WHERE source = 'lines'")
    assert (await place.command("audit"))[0] == 0
    code, err, row = await audited()
    assert (code, row["outside"], row["unknown"], row["balanced"]) == (1, 3, 1, False)
    assert "1 are there and were not taken in: a/4" in err
    async with pool.acquire() as conn:  # retention has counted as many, but not this one
        await conn.execute(
            "UPDATE source_partition SET taken = taken + 1, retired = 1 WHERE source = 'lines'"
        )
    code, err, row = await audited()
    assert (code, row["unknown"], row["missing"]) == (1, 1, 0)
    assert "not taken in: a/4" in err
    async with pool.acquire() as conn:
        await conn.execute("UPDATE event SET id = 'a/4' WHERE id = 'a/1'")
    code, err, row = await audited()
    assert (code, row["unknown"], row["missing"]) == (0, 0, 0), "what comes before all that is kept"


async def test_setup_prints_what_a_system_needs_and_runs_it(place: Place, pool: Pool) -> None:
    folder = place.folder / "rules" / ".." / "lines"
    folder.rmdir()
    assert (await place.command("apply", "rules"))[0] == 0
    assert await said(place, "setup", "lines") == f"mkdir -p '{folder}';\n"
    assert not folder.exists()
    code, out, err = await place.command("sources", "setup", "lines", "--run")
    assert (code, out) == (0, f"mkdir -p '{folder}';\n")
    assert "that was run" in err
    assert folder.is_dir()
    (folder / "a.log").write_text('{"n": 1')
    code, out, err = await place.command("sources", "setup", "lines")
    assert (code, out) == (0, "")
    assert err.splitlines() == [
        "lines: nothing is needed",
        "lines: warning: a ends within a line, which is not handed over; end it",
    ]
    code, _, err = await place.command("sources", "setup", "web")
    assert (code, err) == (0, "web: nothing is needed\n")
    code, out, _ = await place.command("check", "rules")
    assert code == 0
    assert "rules.yaml:3:3: warning: source 'lines': a ends within a line" in out
    folder.rename(place.folder / "away")
    code, out, _ = await place.command("check", "rules")
    assert (code, "warning: source" in out) == (0, False)
    folder.touch()
    assert "lines is a file" in await said(place, "setup", "lines", code=1)
    for command in ("pause", "resume", "setup"):
        assert "'eventflow' is eventflow's own events" in await said(place, command, "eventflow", code=2)


async def test_partitions_of_a_node_that_dies_move_within_lease_and_five_seconds(
    place: Place, pool: Pool
) -> None:
    lease, partitions = 3, [f"p{n:02}" for n in range(12)]
    for n, partition in enumerate(partitions):
        write(place, partition, n)

    async def shares() -> list[int]:
        found = await fetch(
            pool,
            "SELECT count(*) AS n FROM source_partition WHERE source = 'lines' AND lease_until > now()"
            " GROUP BY owner ORDER BY n",
        )
        return [row["n"] for row in found]

    def shared(*wanted: int) -> Callable[[], Awaitable[bool]]:
        async def true() -> bool:
            return await shares() == list(wanted)

        return true

    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(place.serve(path=path, settings={"EVENTFLOW_LEASE": f"{lease}s"}))
            for path in ("rules", None, None)
        ]
        await until(shared(4, 4, 4))
        await nodes[0].kill()
        died = time.monotonic()
        await until(shared(6, 6), lease + 5 + 5)
        assert time.monotonic() - died < lease + 5
        nodes[1].signal(signal.SIGSTOP)
        stood_still = time.monotonic()
        await until(shared(12), lease + 5 + 5)
        assert time.monotonic() - stood_still < lease + 5
        for n, partition in enumerate(partitions):
            write(place, partition, 100 + n)
        everything = Counter([*range(12), *range(100, 112)])
        await until(has_taken(pool, everything))
        nodes[1].signal(signal.SIGCONT)
        await until(shared(6, 6))
        await asyncio.gather(*(one.stop() for one in nodes[1:]))
        assert await taken(pool) == everything
