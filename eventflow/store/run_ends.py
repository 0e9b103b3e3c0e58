"""The end of runs: their rows, the dead letter of a failed one, and outcomes for whoever wants them.

Part of a transaction that has locked the runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec

from eventflow.event import EVENTFLOW_SOURCE, Event, Lineage, new_uid
from eventflow.store import outbox, task_runs
from eventflow.store.effects import decode_attributes
from eventflow.store.outcomes import Outcome
from eventflow.store.pool import Connection, Row
from eventflow.workflow.advance import RunState

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_decode_lineage = msgspec.json.Decoder(Lineage).decode


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that ends now. For a failed one: the task that failed it, its error and its last attempt."""

    run_id: UUID
    state: RunState
    task: str | None = None
    error: str | None = None
    attempts: int = 1

    @property
    def reason(self) -> str | None:
        """The run's `error`: which task failed, and how."""
        return None if self.task is None else f"task '{self.task}' failed: {self.error}"

    @property
    def outcome(self) -> str:
        """The type of its outcome event."""
        return f"eventflow.run.{self.state}"


END: Final = """
UPDATE run AS r
SET state = e.state, error = e.error, ended = now()
FROM unnest($1::uuid[], $2::text[], $3::text[]) AS e(run_id, state, error)
WHERE r.id = e.run_id
"""


async def end(conn: Connection, ends: Sequence[Ended], wanted: Callable[[str], bool]) -> int:
    """End these runs; returns how many outcome events were put into the outbox."""
    if not ends:
        return 0
    await conn.execute(END, [e.run_id for e in ends], [e.state for e in ends], [e.reason for e in ends])
    await _bury(conn, [(e.run_id, "run", e.task, e.reason, e.attempts) for e in ends if e.reason])
    told = [e for e in ends if wanted(e.outcome)]
    if told:
        await outbox.put(conn, await _outcomes(conn, told))
    return len(told)


async def give_up(conn: Connection, outcomes: Sequence[Outcome]) -> None:
    """A dead letter of stage `task` for each task run that crashed too often."""
    await _bury(
        conn,
        [(o.claimed.run_id, "task", o.claimed.task, o.error, o.claimed.attempt) for o in outcomes],
    )


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


async def _bury(conn: Connection, dead: Sequence[tuple[UUID, str, str | None, str | None, int]]) -> None:
    """Dead letters of (run, stage, task, reason, attempts). `raw`: the triggering event's data, or the params."""
    if not dead:
        return
    origins = {row["id"]: row for row in await conn.fetch(ORIGINS, [run_id for run_id, *_ in dead])}
    rows = [_letter(origins[run_id], stage, task, reason, n) for run_id, stage, task, reason, n in dead]
    await conn.execute(BURY, *(list(column) for column in zip(*rows, strict=True)))


def _letter(origin: Row, stage: str, task: str | None, reason: str | None, attempts: int) -> tuple[Any, ...]:
    from_event = origin["data"] is not None
    return (
        new_uid(), stage, reason, origin["source"], origin["partition"], origin["event_uid"], origin["rule"],
        origin["firing_id"], origin["id"], task, origin["data"] if from_event else origin["params"],
        _attributes(origin) if from_event else None, attempts,
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
