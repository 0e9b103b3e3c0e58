"""The end of runs: their rows, the dead letter of a failed one, and outcomes for whoever wants them.

Part of a transaction that has locked the runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec

from eventflow.event import EVENTFLOW_SOURCE, Event, Lineage, new_uid
from eventflow.store import outbox, task_runs
from eventflow.store.effects import decode_attributes
from eventflow.store.pool import Connection, Row
from eventflow.workflow.advance import RunState
from eventflow.workflow.retry import MAX_CRASHES

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_decode_lineage = msgspec.json.Decoder(Lineage).decode


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that ends now. For a failed one: the task that failed first, its error, its last attempt."""

    run_id: UUID
    state: RunState
    task: str | None = None
    error: str | None = None
    attempts: int = 1
    gave_up: bool = False

    @property
    def reason(self) -> str | None:
        """The run's `error` in one line: which task failed, and how. The rest stands with the task."""
        if self.task is None:
            return None
        how = (self.error or "").partition("\n")[0]
        return f"task '{self.task}' failed: {how}"

    @property
    def stage(self) -> str:
        """The stage of its dead letter: `task` where that task crashed too often, else `run`."""
        return "task" if self.gave_up else "run"

    @property
    def outcome(self) -> str:
        """The type of its outcome event."""
        return f"eventflow.run.{self.state}"


GUILTY: Final = """
SELECT DISTINCT ON (run_id) run_id, task, error, attempt, crashes
FROM task_run
WHERE run_id = ANY($1::uuid[]) AND state = 'failed'
ORDER BY run_id, ended, task
"""


async def _guilty(conn: Connection, states: Mapping[UUID, RunState]) -> list[Ended]:
    failed = [run_id for run_id, state in states.items() if state is RunState.failed]
    rows = {row["run_id"]: row for row in await conn.fetch(GUILTY, failed)} if failed else {}
    return [
        Ended(run_id, state, row["task"], row["error"], row["attempt"], row["crashes"] >= MAX_CRASHES)
        if (row := rows.get(run_id))
        else Ended(run_id, state)
        for run_id, state in states.items()
    ]


END: Final = """
UPDATE run AS r
SET state = e.state, error = e.error, ended = now()
FROM unnest($1::uuid[], $2::text[], $3::text[]) AS e(run_id, state, error)
WHERE r.id = e.run_id
"""


async def end(conn: Connection, states: Mapping[UUID, RunState], wanted: Callable[[str], bool]) -> int:
    """End these runs; returns how many outcome events were put into the outbox."""
    if not states:
        return 0
    ends = await _guilty(conn, states)
    await conn.execute(END, [e.run_id for e in ends], [e.state for e in ends], [e.reason for e in ends])
    await _bury(conn, [e for e in ends if e.reason])
    told = [e for e in ends if wanted(e.outcome)]
    if told:
        await outbox.put(conn, await _outcomes(conn, told))
    return len(told)


ORIGINS: Final = """
SELECT r.id, r.params, r.rule, r.firing_id, r.event_uid,
       e.source, e.partition, e.id AS event_id, e.type, e.subject, e.attributes, e.data
FROM run AS r
LEFT JOIN LATERAL (SELECT * FROM event WHERE uid = r.event_uid LIMIT 1) AS e ON true
WHERE r.id = ANY($1::uuid[])
"""

BURY: Final = """
INSERT INTO dead_letter (id, stage, reason, source, partition, event_uid, rule, firing_id, run_id, task,
                         raw, attributes, attempts, created)
SELECT d.*, now()
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::text[], $8::uuid[],
            $9::uuid[], $10::text[], $11::bytea[], $12::bytea[], $13::integer[]) AS d
"""


async def _bury(conn: Connection, dead: Sequence[Ended]) -> None:
    """A dead letter for each. `raw` is the triggering event's data, or the params of a run without one."""
    if not dead:
        return
    origins = {row["id"]: row for row in await conn.fetch(ORIGINS, [e.run_id for e in dead])}
    rows = [_letter(origins[e.run_id], e) for e in dead]
    await conn.execute(BURY, *(list(column) for column in zip(*rows, strict=True)))


def _letter(origin: Row, ended: Ended) -> tuple[Any, ...]:
    from_event = origin["data"] is not None
    return (
        new_uid(), ended.stage, ended.reason, origin["source"], origin["partition"], origin["event_uid"],
        origin["rule"], origin["firing_id"], origin["id"], ended.task,
        origin["data"] if from_event else origin["params"],
        _attributes(origin) if from_event else None, ended.attempts,
    )  # fmt: skip


def _attributes(origin: Row) -> bytes:
    """The event's attributes as a dead letter keeps them: those with a column of the event table as well."""
    attributes = decode_attributes(origin["attributes"])
    return _encode(
        msgspec.structs.replace(
            attributes, type=origin["type"], id=origin["event_id"], subject=origin["subject"]
        )
    )


RUNS: Final = """
SELECT id, workflow, rule, state, params, lineage, error FROM run WHERE id = ANY($1::uuid[])
"""


async def _outcomes(conn: Connection, told: Sequence[Ended]) -> list[Event]:
    ids = [e.run_id for e in told]
    results = await task_runs.results(conn, ids)
    rows = {row["id"]: row for row in await conn.fetch(RUNS, ids)}
    return [_outcome(rows[e.run_id], e.outcome, results[e.run_id]) for e in told]


def _outcome(run: Row, type_: str, results: dict[str, bytes]) -> Event:
    raw = _encode({
        "run_id": str(run["id"]), "workflow": run["workflow"], "rule": run["rule"], "state": run["state"],
        "params": msgspec.Raw(run["params"]), "error": run["error"],
        "results": {task: msgspec.Raw(result) for task, result in results.items()},
    })  # fmt: skip
    return Event(
        source=EVENTFLOW_SOURCE,
        id=str(new_uid()),
        type=type_,
        subject=run["rule"] or str(run["id"]),
        data=_decode(raw),
        raw=raw,
        lineage=_decode_lineage(run["lineage"]) if run["lineage"] else None,
    )
