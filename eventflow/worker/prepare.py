"""From claimed task runs to calls: read what their arguments need, fill the holes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import msgspec

from eventflow.event import JSON, encode_json
from eventflow.expression import Template, activate
from eventflow.secret import secret
from eventflow.store import task_runs
from eventflow.store.effects import Attributes, decode_attributes
from eventflow.store.pool import Connection
from eventflow.store.task_runs import Claimed
from eventflow.task import TriggeringEvent
from eventflow.units import parse_duration
from eventflow.worker.call import Call
from eventflow.worker.plan import TaskPlan

_decode: Final = msgspec.json.Decoder().decode

DataOf = Callable[[str, bytes, Attributes], bytes]
"""The data of an event as JSON, from its source's name, its bytes as they arrived, and its attributes."""


def as_it_came(source: str, raw: bytes, attributes: Attributes) -> bytes:
    """For events whose bytes are their data in JSON."""
    return raw


Origin = tuple[TriggeringEvent, bytes]
"""A triggering event without its data, and its data as it came (JSON)."""

EVENTS: Final = """
SELECT e.uid, e.ingested, e.source, e.id, e.type, e.subject, e.attributes, e.data
FROM unnest($1::uuid[]) AS u(uid)
CROSS JOIN LATERAL (SELECT * FROM event WHERE event.uid = u.uid LIMIT 1) AS e
"""


async def _events(conn: Connection, uids: Sequence[UUID], data_of: DataOf) -> dict[UUID, Origin]:
    rows = await conn.fetch(EVENTS, list(set(uids)))
    return {row["uid"]: _origin(row, decode_attributes(row["attributes"]), data_of) for row in rows}


def _origin(row: Any, more: Attributes, data_of: DataOf) -> Origin:
    event = TriggeringEvent(
        source=row["source"], id=row["id"], type=row["type"], data=None, subject=row["subject"],
        time=more.time, ingested=row["ingested"], sender=more.sender,
        datacontenttype=more.datacontenttype, dataschema=more.dataschema,
        extensions=more.extensions, meta=more.meta,
    )  # fmt: skip
    return event, data_of(row["source"], row["data"], more)


class Surroundings(msgspec.Struct, frozen=True):
    """What the arguments of some claimed task runs need beside their runs: triggering events, results."""

    events: Mapping[UUID, Origin] = {}
    results: Mapping[UUID, Mapping[str, bytes]] = {}

    @classmethod
    async def read(
        cls, conn: Connection, claimed: Sequence[tuple[Claimed, TaskPlan]], data_of: DataOf
    ) -> Surroundings:
        """Two statements at most for all of them; none where nobody asks."""
        uids = [c.event_uid for c, plan in claimed if plan.wants_event and c.event_uid is not None]
        runs = [c.run_id for c, plan in claimed if plan.wants_results]
        return cls(
            await _events(conn, uids, data_of) if uids else {},
            await task_runs.results(conn, runs) if runs else {},
        )

    def origin(self, uid: UUID | None) -> tuple[TriggeringEvent | None, bytes]:
        """The event, where there is one and somebody asked for it."""
        return (None, b"null") if uid is None else self.events.get(uid, (None, b"null"))


def prepare(claimed: Claimed, plan: TaskPlan, around: Surroundings) -> Call:
    """The call of this attempt.

    Raises `EvaluationError` where a hole cannot be filled, `SourceUnavailable` where a secret is not there.
    """
    task, hidden = plan.task, dict[str, str]()
    arguments, argv = plan.fixed_arguments, ()
    if arguments is None:
        arguments, argv = _filled(plan, _values(claimed, around.results.get(claimed.run_id, {})), hidden)
    elif isinstance(task.call, tuple):
        argv = tuple(_text(template, activate({})) for template in task.call)
    event, data = around.origin(claimed.event_uid)
    return Call(
        run_id=str(claimed.run_id), workflow=claimed.workflow, task=claimed.task, attempt=claimed.attempt,
        folder=plan.folder, target=task.call if isinstance(task.call, str) else "", argv=argv,
        arguments=arguments, typed=plan.typed, params=claimed.params, event=event, data=data,
        hidden=tuple(hidden.values()),
        timeout=task.timeout.total_seconds() if task.timeout is not None else None,
    )  # fmt: skip


def _values(claimed: Claimed, results: Mapping[str, bytes]) -> dict[str, JSON]:
    """What the holes of a task may read."""
    return {
        "params": _decode(claimed.params),
        "tasks": {task: {"result": _decode(result)} for task, result in results.items()},
        "run": {
            "id": str(claimed.run_id), "workflow": claimed.workflow, "rule": claimed.rule,
            "task": claimed.task, "attempt": claimed.attempt,
        },
    }  # fmt: skip


def _filled(
    plan: TaskPlan, values: Mapping[str, JSON], hidden: dict[str, str]
) -> tuple[bytes, tuple[str, ...]]:
    """Arguments and argument vector; secrets that were asked for are added to `hidden`."""

    def reveal(name: str) -> str:
        hidden[name] = secret(name)
        return hidden[name]

    activation = activate(values)
    arguments = {name: template.render(activation, reveal) for name, template in plan.task.inputs.items()}
    for name, kind in plan.typed.items():
        if kind == "duration" and arguments[name] is not None:
            arguments[name] = _seconds(arguments[name])
    call = plan.task.call
    argv = tuple(_text(template, activation) for template in call) if isinstance(call, tuple) else ()
    return encode_json(arguments), argv


def _seconds(text: str) -> float:
    span = parse_duration(text)
    return span.total_seconds() if span is not None else float(text.removesuffix("s"))


def _text(template: Template, activation: Any) -> str:
    """An argument of a command: text as it is, any other value as JSON."""
    value = template.render(activation)
    return value if isinstance(value, str) else encode_json(value).decode()
