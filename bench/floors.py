"""The floors: what the same rows, the same durability and the same client cost when nothing else is done.

Each floor is the least work that could be called the same job. Their absolute values are printed beside
ours and may not fall: a slower floor would flatter a ratio. `minimal` is the same batch transaction on a
frozen minimal event table, so that a heavy schema of ours cannot flatter one either.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from eventflow.event import new_uid
from eventflow.store.effects import EVENT_COLUMNS
from eventflow.store.pool import Connection

RUN_COLUMNS = (
    "id", "workflow", "revision", "rule", "firing_id", "event_uid", "state", "params", "lineage", "priority",
    "created",
)  # fmt: skip
TASK_COLUMNS = ("run_id", "task", "state", "priority", "due")

MINIMAL_TABLE = """
CREATE TABLE IF NOT EXISTS minimal_event (
    uid      uuid PRIMARY KEY,
    ingested timestamptz NOT NULL,
    source   text NOT NULL,
    id       text NOT NULL,
    type     text NOT NULL,
    data     bytea NOT NULL,
    UNIQUE (source, id)
)
"""
"""Frozen: an event table that any such product needs. Never edited to make a ratio better."""

MINIMAL_COLUMNS = ("uid", "ingested", "source", "id", "type", "data")

CURSOR = """
UPDATE source_partition SET cursor = $1, version = version + 1 WHERE source = 'floor' AND partition = ''
"""
CURSOR_ROW = """
INSERT INTO source_partition (source, partition) VALUES ('floor', '') ON CONFLICT DO NOTHING
"""

Rows = Sequence[tuple[Any, ...]]


def event_rows(raws: Sequence[bytes], now: datetime) -> Rows:
    """The event table's rows for these payloads, as ingest would write them."""
    return [
        (new_uid(), now, "floor", "", f"f/{index}", "bench.event", None, b"u", None, raw)
        for index, raw in enumerate(raws)
    ]


def run_rows(events: Rows, now: datetime) -> tuple[Rows, Rows]:
    """A run with one task for every tenth event."""
    runs = [
        (new_uid(), "noop", 1, "r", new_uid(), event[0], "running", b"{}", b"{}", 0, now)
        for event in events[::10]
    ]
    return runs, [(run[0], "task", "ready", 0, now) for run in runs]


async def batch_transaction(conn: Connection, events: Rows, runs: Rows, tasks: Rows, cursor: bytes) -> None:
    """The bare batch: COPY the same event, run and task rows, move the cursor, commit."""
    async with conn.transaction():
        await conn.copy_records_to_table("event", columns=EVENT_COLUMNS, records=events)
        await conn.copy_records_to_table("run", columns=RUN_COLUMNS, records=runs)
        await conn.copy_records_to_table("task_run", columns=TASK_COLUMNS, records=tasks)
        await conn.execute(CURSOR, cursor)


async def minimal_transaction(conn: Connection, events: Rows, runs: Rows, tasks: Rows, cursor: bytes) -> None:
    """The same with the minimal event table."""
    async with conn.transaction():
        await conn.copy_records_to_table("minimal_event", columns=MINIMAL_COLUMNS, records=events)
        await conn.copy_records_to_table("run", columns=RUN_COLUMNS, records=runs)
        await conn.copy_records_to_table("task_run", columns=TASK_COLUMNS, records=tasks)
        await conn.execute(CURSOR, cursor)


def minimal_rows(events: Rows) -> Rows:
    """The minimal table's columns of the same rows; ids distinct over the whole run."""
    return [(uid, now, source, f"{id_}/{uid}", type_, data)
            for uid, now, source, _, id_, type_, _, _, _, data in events]  # fmt: skip


async def rate_of_batches(
    conn: Connection, batches: Sequence[Sequence[bytes]], now: datetime, *, minimal: bool
) -> float:
    """Events per second of the bare batch transaction over these payloads; rows are made inside the loop."""
    await conn.execute(CURSOR_ROW)
    await conn.execute(MINIMAL_TABLE)
    started = time.perf_counter()
    for number, raws in enumerate(batches):
        events = event_rows(raws, now)
        runs, tasks = run_rows(events, now)
        if minimal:
            await minimal_transaction(conn, minimal_rows(events), runs, tasks, b"%d" % number)
        else:
            await batch_transaction(conn, events, runs, tasks, b"%d" % number)
    return sum(map(len, batches)) / (time.perf_counter() - started)


CLAIM = """
UPDATE task_run
SET state = 'running', attempt = attempt + 1, lease_until = clock_timestamp() + interval '30 s'
WHERE (run_id, task) IN (
    SELECT run_id, task FROM task_run WHERE state = 'ready' AND due <= clock_timestamp()
    ORDER BY priority DESC, due, run_id LIMIT $1 FOR UPDATE SKIP LOCKED
)
RETURNING run_id, task
"""
COMPLETE = """
UPDATE task_run AS t SET state = 'succeeded', lease_until = NULL, ended = clock_timestamp()
FROM unnest($1::uuid[], $2::text[]) AS d(run_id, task) WHERE t.run_id = d.run_id AND t.task = d.task
"""


async def claim_complete(conn: Connection, tasks: int, batch: int) -> float:
    """Tasks per second of a bare queue: claim `batch` with SKIP LOCKED, complete them, two commits each."""
    started = time.perf_counter()
    done = 0
    while done < tasks:
        rows = await conn.fetch(CLAIM, batch)
        await conn.execute(COMPLETE, [r["run_id"] for r in rows], [r["task"] for r in rows])
        done += len(rows)
    return done / (time.perf_counter() - started)
