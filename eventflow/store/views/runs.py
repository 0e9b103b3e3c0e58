"""Runs, their tasks and their logs. Read-only."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, LiteralString
from uuid import UUID

from eventflow.errors import UsageError
from eventflow.store.pool import Connection
from eventflow.store.views import ids
from eventflow.store.views.events import View, select

RUNS: Final[LiteralString] = """
SELECT r.id AS run_id, r.workflow, r.rule, r.state, r.created, r.ended,
       coalesce(r.ended, now()) - r.created AS duration,
       e.source, e.id AS event, e.subject, r.event_uid, r.revision, r.error
FROM (
    SELECT * FROM run
    WHERE ($1::timestamptz IS NULL OR created >= $1)
      AND ($2::text IS NULL OR state = $2)
      AND ($3::text IS NULL OR workflow = $3)
      AND ($4::text IS NULL OR rule = $4)
    ORDER BY created DESC, id DESC
    LIMIT $5
) AS r
LEFT JOIN event AS e ON e.uid = r.event_uid
ORDER BY r.created DESC, r.id DESC
"""


async def runs(
    conn: Connection,
    *,
    since: datetime | None = None,
    state: str | None = None,
    workflow: str | None = None,
    rule: str | None = None,
    limit: int | None = None,
) -> View:
    """Runs, newest first; `event` is the id of what triggered them."""
    return await select(conn, RUNS, since, state, workflow, rule, limit)


FIND_RUN: Final[LiteralString] = """
SELECT id FROM run
WHERE id BETWEEN $1 AND $2 OR ($3::text IS NOT NULL AND replace(id::text, '-', '') LIKE $3)
ORDER BY id
LIMIT 6
"""


async def find_run(conn: Connection, name: str) -> UUID:
    """The run whose id is, or alone begins or ends with, `name`. Raises `UsageError` for none, or several."""
    found = await conn.fetch(FIND_RUN, *ids.span(name))
    return ids.only(found, name, what="run", listing="eventflow runs")


RUN: Final[LiteralString] = """
SELECT r.id AS run_id, r.workflow, r.rule, r.state, r.created, r.ended,
       coalesce(r.ended, now()) - r.created AS duration,
       r.error, r.revision, r.firing_id, r.event_uid, e.source, e.id AS event_id, e.type AS event_type,
       e.subject AS event_subject, convert_from(r.params, 'UTF8') AS params
FROM run AS r
LEFT JOIN event AS e ON e.uid = r.event_uid
WHERE r.id = $1
"""

TASKS: Final[LiteralString] = """
SELECT t.task, t.state, t.attempt, t.crashes, t.started, t.ended,
       coalesce(t.ended, CASE WHEN t.state = 'running' THEN now() END) - t.started AS duration,
       n.name AS worker, convert_from(t.result, 'UTF8') AS result, t.error
FROM task_run AS t
LEFT JOIN node AS n ON n.id = t.worker
WHERE t.run_id = $1
ORDER BY t.started NULLS LAST, t.task
"""


async def run(conn: Connection, run_id: UUID) -> dict[str, Any]:
    """One run that exists: parameters as JSON text, the triggering event, and `tasks` in order of start."""
    found = await select(conn, RUN, run_id)
    if not found:
        raise UsageError(f"run {run_id} is not in this database (any more)")
    return {**found[0], "tasks": await select(conn, TASKS, run_id)}


STATES: Final[LiteralString] = """
SELECT r.state, r.error, t.task, t.state AS task_state, t.attempt, t.error AS task_error
FROM run AS r
LEFT JOIN task_run AS t ON t.run_id = r.id
WHERE r.id = $1
ORDER BY t.started NULLS LAST, t.task
"""


async def states(conn: Connection, run_id: UUID) -> View:
    """The run's state beside each of its tasks': what someone who waits looks at. Empty: no such run."""
    return await select(conn, STATES, run_id)


LOGS: Final[LiteralString] = """
SELECT task, attempt, chunk, at, content
FROM task_log
WHERE run_id = $1 AND ($2::text IS NULL OR task = $2)
  AND ($3::timestamptz IS NULL OR at >= $3)
ORDER BY at, task, attempt, chunk
"""


async def logs(
    conn: Connection, run_id: UUID, *, task: str | None = None, since: datetime | None = None
) -> View:
    """What the tasks of a run wrote, oldest first, in the chunks that it was stored in."""
    return await select(conn, LOGS, run_id, task, since)


TASK_ERRORS: Final[LiteralString] = """
SELECT task, attempt, ended AS at, error
FROM task_run
WHERE run_id = $1 AND error IS NOT NULL AND ($2::text IS NULL OR task = $2)
  AND ($3::timestamptz IS NULL OR coalesce(ended, now()) >= $3)
ORDER BY ended, task
"""


async def task_errors(
    conn: Connection, run_id: UUID, *, task: str | None = None, since: datetime | None = None
) -> View:
    """How the last attempts of a run's tasks failed, those that did, oldest first."""
    return await select(conn, TASK_ERRORS, run_id, task, since)


NODES_ALIVE: Final[LiteralString] = "SELECT count(*) FROM node WHERE lease_until > now()"


async def nodes_alive(conn: Connection) -> int:
    """How many `serve` processes have renewed their lease lately."""
    return int(await conn.fetchval(NODES_ALIVE))
