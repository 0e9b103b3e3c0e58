"""Reads what the oracle judges: the database by plain SQL, the files, `eventflow audit`."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, LiteralString, TypeVar, cast

import asyncpg

from tests.chaos.model import Expected
from tests.chaos.processes import eventflow_command
from tests.chaos.seen import Observed, RecordSeen, RunSeen, TaskSeen
from tests.chaos.sender import Sender
from tests.chaos.sink import Sink

T = TypeVar("T")

AWAY = (OSError, asyncpg.InterfaceError, asyncpg.PostgresError)
"""Postgres is down, coming up, or has just ended the session."""


class Database:
    """The driver's own session; opened again whenever a kill took it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: Any = None
        self._one_at_a_time = asyncio.Lock()

    async def ask(self, question: Callable[[Any], Awaitable[T]]) -> T | None:
        """The answer, or None while Postgres is away."""
        driver: Any = asyncpg
        async with self._one_at_a_time:
            try:
                async with asyncio.timeout(10):
                    if self._session is None or self._session.is_closed():
                        settings = {"search_path": "eventflow", "application_name": "kill run"}
                        self._session = await driver.connect(self._url, server_settings=settings)
                    return await question(self._session)
            except (*AWAY, TimeoutError):
                await self.close()  # before anybody else asks: it may be in the middle of something
                return None

    async def must(self, question: Callable[[Any], Awaitable[T]]) -> T:
        """The answer; raises what stands in the way."""
        driver: Any = asyncpg
        session = await driver.connect(self._url, server_settings={"search_path": "eventflow"})
        try:
            return await question(session)
        finally:
            await session.close()

    async def close(self) -> None:
        if self._session is not None:
            with suppress(*AWAY, TimeoutError):
                await self._session.close(timeout=1)
            self._session = None


OPEN_WORK: Final[LiteralString] = """
SELECT (SELECT count(*) FROM run WHERE state = 'running') AS open,
       (SELECT count(*) FROM run WHERE state <> 'running') AS ended,
       (SELECT count(*) FROM outbox) AS outbox
"""


async def open_work(session: Any) -> tuple[int, int, int]:
    """Runs that have not ended, runs that have, own events that wait to be taken in."""
    row = await session.fetchrow(OPEN_WORK)
    return row["open"], row["ended"], row["outbox"]


POSITIONS: Final[LiteralString] = "SELECT source, partition, version, epoch, cursor FROM source_partition"
ATTEMPTS: Final[LiteralString] = "SELECT run_id, task, attempt FROM task_run WHERE state = 'running'"


class Watch:
    """What may never go back, looked at again and again while it runs."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self._positions: dict[tuple[str, str], tuple[Any, ...]] = {}
        self._attempts: dict[tuple[Any, str], int] = {}

    async def look(self, session: Any) -> None:
        for row in await session.fetch(POSITIONS):
            where = (row["source"], row["partition"])
            position = position_of(row["cursor"]) if row["source"] == "numbers" else 0
            at = (row["version"], row["epoch"], position)
            before = self._positions.get(where, at)
            if any(now < then for now, then in zip(at, before, strict=True)):
                self.violations.append(f"position of {where} went back from {before} to {at}")
            self._positions[where] = at
        for row in await session.fetch(ATTEMPTS):
            which = (row["run_id"], row["task"])
            if row["attempt"] < self._attempts.get(which, 0):
                self.violations.append(f"attempt of {which} went back to {row['attempt']}")
            self._attempts[which] = row["attempt"]


def position_of(cursor: bytes | None) -> int:
    """The numbered source's cursor as the number of lines behind it; 0 for none."""
    return 0 if cursor is None else int(json.loads(cursor))


RUNS: Final[LiteralString] = "SELECT id, coalesce(rule, '') AS rule, params, state FROM run ORDER BY created"

TASK_RUNS: Final[LiteralString] = (
    "SELECT run_id, task, state, attempt, failures, crashes, result FROM task_run"
)

LETTERS: Final[LiteralString] = """
SELECT d.stage, d.raw, d.rule, r.rule AS run_rule, r.params
FROM dead_letter AS d LEFT JOIN run AS r ON r.id = d.run_id
"""

RECORDS: Final[LiteralString] = """
SELECT e.source, e.partition, e.id, e.data, f.at, e.uid
FROM firing AS f JOIN event AS e ON e.uid = f.event_uid
WHERE f.rule IN ('record', 'order', 'row')
"""

TICKS: Final[LiteralString] = "SELECT data FROM event WHERE source = 'ticks'"

COUNTED: Final[LiteralString] = "SELECT data FROM event WHERE source = 'visits'"

TAKEN: Final[LiteralString] = """
SELECT source, count(*) AS count FROM event WHERE source <> 'eventflow' GROUP BY source
UNION ALL
SELECT source, count(*) FROM dead_letter WHERE stage = 'decode' AND event_uid IS NULL GROUP BY source
"""

RELAYS: Final[LiteralString] = "SELECT count(*) FROM event WHERE type = 'chaos.relayed'"

STRANGERS: Final[LiteralString] = """
SELECT 'partition ' || source || '/' || partition || ' is owned by ' || owner AS lease
FROM source_partition
WHERE owner IS NOT NULL AND owner NOT IN (SELECT id FROM node WHERE lease_until > clock_timestamp())
UNION ALL
SELECT 'task ' || run_id || ' ' || task || ' is leased by ' || coalesce(worker::text, 'nobody')
FROM task_run WHERE state = 'running'
UNION ALL
SELECT 'an own event waits in the outbox since ' || created FROM outbox
"""


def _parameters(encoded: bytes | None) -> Mapping[str, Any]:
    return {} if encoded is None else json.loads(encoded)


def _result_attempt(encoded: bytes | None) -> int | None:
    result = None if encoded is None else json.loads(encoded)
    return cast("dict[str, int]", result).get("attempt") if isinstance(result, dict) else None


def _letter(row: Any) -> tuple[str, str]:
    if row["stage"] == "decode":
        return "decode", bytes(row["raw"]).decode(errors="replace")
    rule = row["run_rule"] or row["rule"]
    return row["stage"], f"{rule} {_parameters(row['params']).get('key', '?')}"


def _record(row: Any, changes: Mapping[str, int]) -> RecordSeen:
    data, order = json.loads(row["data"]), (row["at"], row["uid"])
    if row["source"] == "orders":
        return RecordSeen(row["partition"], int(row["id"].rpartition("/")[2]), order)
    if row["source"] == "rows":
        return RecordSeen("rows", changes.get(_change_key(data), 0), order)
    partition, _, number = data["key"].partition("/")
    return RecordSeen(partition, int(number), order)


def _change_key(data: Any) -> str:
    """As the history names it: what became of which row."""
    table = f"{data['source']['schema']}.{data['source']['table']}"
    gone = data["op"] == "d"
    row = data["before" if gone else "after"]
    return f"{data['op']}/{table}/{row['id']}/{'gone' if gone else row['version']}"


async def read_database(session: Any, seen: Observed, expected: Expected) -> None:
    """Everything the oracle wants to know from the tables."""
    seen.runs = [
        RunSeen(str(row["id"]), row["rule"], _parameters(row["params"]).get("key", "?"), row["state"])
        for row in await session.fetch(RUNS)
    ]
    seen.tasks = [
        TaskSeen(
            str(row["run_id"]), row["task"], row["state"], row["attempt"], row["failures"],
            row["crashes"], _result_attempt(row["result"]),
        )
        for row in await session.fetch(TASK_RUNS)
    ]  # fmt: skip
    seen.letters = Counter(_letter(row) for row in await session.fetch(LETTERS))
    seen.records = [_record(row, expected.changes) for row in await session.fetch(RECORDS)]
    seen.ticks = [json.loads(row["data"])["scheduled"] for row in await session.fetch(TICKS)]
    seen.counted = sum(json.loads(row["data"])["new_rows"] for row in await session.fetch(COUNTED))
    for row in await session.fetch(TAKEN):
        seen.taken[row["source"]] += row["count"]
    seen.relays = await session.fetchval(RELAYS)
    seen.strangers = [row["lease"] for row in await session.fetch(STRANGERS)]
    seen.cursors = {
        row["partition"]: position_of(row["cursor"])
        for row in await session.fetch(POSITIONS)
        if row["source"] == "numbers"
    }


async def audit(environment: Mapping[str, str], seen: Observed) -> None:
    """What `eventflow audit` says, and its exit code."""
    process = await asyncio.create_subprocess_exec(
        *eventflow_command("audit", "--json"), env=dict(environment),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await process.communicate()
    seen.audit_exit = await process.wait()
    try:
        seen.audit = json.loads(output)
    except ValueError:
        seen.audit_exit = seen.audit_exit or 1
        seen.audit = {"output": output.decode()[-500:], "errors": errors.decode()[-2000:]}


def complete(expected: Expected, seen: Observed) -> bool:
    """Whether everything expected is there, so that nothing more has to be waited for."""
    runs = Counter((run.rule, run.key) for run in seen.runs)
    letters = sum(count for (stage, _), count in seen.letters.items() if stage == "decode")
    wanted = sum(count for (stage, _), count in expected.letters.items() if stage == "decode")
    counted = letters >= wanted and seen.counted >= seen.visits
    return counted and all(runs[key] >= count for key, count in expected.runs.items())


async def everything(
    database: Database, environment: Mapping[str, str], sender: Sender, sink: Sink, expected: Expected
) -> Observed:
    """The state of the world for the oracle."""
    seen = Observed()
    await database.must(lambda session: read_database(session, seen, expected))
    await audit(environment, seen)
    sink.follow()
    seen.sink = sink.lines
    seen.answers = sender.answers
    seen.unanswered = sorted(sender.unanswered)
    seen.ends = {path.stem: path.read_bytes().count(b"\n") for path in sender.numbers.iterdir()}
    return seen
