"""From one event to the next: what an event set off, and what set off an event of eventflow's own."""

from __future__ import annotations

from typing import Any, Final, LiteralString, cast
from uuid import UUID

from eventflow.event import EVENTFLOW_SOURCE, decode_json
from eventflow.store.effects import Attributes
from eventflow.store.pool import Connection
from eventflow.store.views import ids
from eventflow.store.views.events import View, select

FIND_FIRING: Final[LiteralString] = """
SELECT id FROM firing
WHERE id BETWEEN $1 AND $2 OR ($3::text IS NOT NULL AND replace(id::text, '-', '') LIKE $3)
ORDER BY id
LIMIT 6
"""


async def find_firing(conn: Connection, name: str) -> UUID:
    """The firing whose id is, or alone begins or ends with, `name`. Raises `UsageError`."""
    found = await conn.fetch(FIND_FIRING, *ids.span(name))
    return ids.only(found, name, what="firing", listing="eventflow firings")


# The event that a firing emits has the firing's id.
SET_OFF: Final[LiteralString] = """
SELECT f.rule, f.id AS firing_id, f.state, f.revision, f.run_id, r.workflow, r.state AS run_state, f.replayof,
       e.uid AS emitted_uid, e.type AS emitted_type, e.class AS emitted_class
FROM firing AS f
LEFT JOIN run AS r ON r.id = f.run_id
LEFT JOIN event AS e ON hashtextextended(e.id, 0) = hashtextextended(f.id::text, 0) AND e.id = f.id::text
                    AND e.source = $2
WHERE f.event_uid = $1
ORDER BY f.at, f.rule
"""


async def set_off(conn: Connection, uid: UUID) -> View:
    """The firings of one event, each with its run and the event it emitted; oldest first."""
    return await select(conn, SET_OFF, uid, EVENTFLOW_SOURCE)


CAUSE: Final[LiteralString] = """
SELECT r.id AS run_id, r.workflow, f.id AS firing_id, coalesce(f.rule, r.rule) AS rule,
       e.uid AS event_uid, e.source, e.id AS event
FROM (SELECT $1::uuid AS run_id, $2::uuid AS firing_id) AS of
LEFT JOIN run AS r ON r.id = of.run_id
LEFT JOIN firing AS f ON f.id = coalesce(of.firing_id, r.firing_id)
LEFT JOIN event AS e ON e.uid = coalesce(f.event_uid, r.event_uid)
"""


async def cause(
    conn: Connection, source: str, type_: str, raw: bytes, attributes: Attributes
) -> dict[str, Any] | None:
    """What made this event: a run that ended, a firing that emitted it, a replay. None: the world outside.

    `run_id` and `workflow` are null for an emit, the rule and the event null for a run by hand or where
    retention has removed them. `replayof` names an event or a dead letter.
    """
    lineage = attributes.lineage
    run_id = _run_of(type_, raw) if source == EVENTFLOW_SOURCE else None
    firing_id = UUID(lineage.firing) if lineage and lineage.firing else None
    if run_id is None and firing_id is None and attributes.replayof is None:
        return None
    (found,) = await select(conn, CAUSE, run_id, firing_id)
    return {**found, "replayof": attributes.replayof}


def _run_of(type_: str, raw: bytes) -> UUID | None:
    """The run whose outcome the event is. A rule may emit events of that type too, with data of its own."""
    if not type_.startswith("eventflow.run."):
        return None
    data = decode_json(raw)
    named = cast("dict[str, Any]", data).get("run_id") if isinstance(data, dict) else None
    try:
        return UUID(named) if isinstance(named, str) else None
    except ValueError:
        return None
