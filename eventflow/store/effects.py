"""Everything a batch sets off, written: one COPY for its events and one statement for all the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from eventflow.event import JSON, Broken, Event, Lineage, encode_json, new_uid
from eventflow.matching.effects import Decision, EventClass, Firing, Letter, Taken
from eventflow.store.outbox import encode_event
from eventflow.store.pool import Connection


class Attributes(msgspec.Struct, frozen=True, omit_defaults=True):
    """The event table's `attributes`: what an event has beside the columns."""

    type: str | None = None  # in dead letters only, where no column holds it
    id: str | None = None
    subject: str | None = None
    time: datetime | None = None
    sender: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    extensions: Mapping[str, str | int | bool] = {}
    meta: Mapping[str, JSON] = {}
    lineage: Lineage | None = None
    replayof: str | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Attributes).decode


def attributes_of(event: Event) -> bytes | None:
    """An event's attributes without a column of their own; None where it has none."""
    if not (event.time or event.meta or event.datacontenttype or event.lineage or event.sender
            or event.extensions or event.dataschema or event.replayof):  # fmt: skip
        return None
    return _encode(Attributes(
        time=event.time, sender=event.sender, datacontenttype=event.datacontenttype,
        dataschema=event.dataschema, extensions=event.extensions, meta=event.meta,
        lineage=event.lineage, replayof=event.replayof,
    ))  # fmt: skip


def decode_attributes(encoded: bytes | None) -> Attributes:
    """The inverse, of events and of dead letters."""
    return Attributes() if encoded is None else _decode(encoded)


EVENT_COLUMNS: Final = (
    "uid", "ingested", "source", "partition", "id", "type", "subject", "class", "attributes", "data",
)  # fmt: skip


async def write_events(
    conn: Connection, taken: Sequence[Taken], classes: Sequence[EventClass], partition: str
) -> None:
    """COPY the events of a batch: the fastest way in, and without ON CONFLICT no second look at each row."""
    await conn.copy_records_to_table(
        "event",
        columns=EVENT_COLUMNS,
        records=(
            (
                t.uid, t.ingested, t.event.source, partition, t.event.id, t.event.type, t.event.subject,
                class_.encode(), attributes_of(t.event), t.event.raw,
            )
            for t, class_ in zip(taken, classes, strict=True)
        ),
    )  # fmt: skip


WRITE: Final = """
WITH counted AS (
    INSERT INTO source_partition AS p (source, partition, taken, last_event, rate)
    SELECT $1, $2, $3::bigint, $4, $3::bigint / 60.0 WHERE $3::bigint > 0
    ON CONFLICT (source, partition) DO UPDATE
    SET taken = p.taken + excluded.taken,
        last_event = greatest(p.last_event, excluded.last_event), unread = NULL,
        (state, message) = (
            SELECT CASE WHEN pushed THEN 'running' ELSE p.state END, CASE WHEN NOT pushed THEN p.message END
            FROM (SELECT p.partition = '' AND p.owner IS NULL AND p.state = 'waiting') AS t(pushed)
        ),
        (rate, gaps, gaps_square, learnt) = (
            SELECT p.rate * exp(-least(50, t.gap / 60)) + excluded.rate,
                   CASE WHEN t.counts THEN p.gaps * t.fading + t.gap ELSE p.gaps END,
                   CASE WHEN t.counts THEN p.gaps_square * t.fading + t.gap * t.gap ELSE p.gaps_square END,
                   p.learnt + t.counts::int
            FROM (
                SELECT g.gap, exp(-least(50, g.gap / 86400)) AS fading,
                       coalesce(p.last_event >= p.since, false) AND p.trouble IS NULL AS counts
                FROM (SELECT greatest(0, coalesce(date_part('epoch', excluded.last_event - p.last_event), 0)))
                    AS g(gap)
            ) AS t
        )
), fired AS (
    INSERT INTO firing (id, rule, revision, state, event_uid, run_id, replayof, at)
    SELECT t.id, t.rule, $5, 'admitted', t.event_uid, t.run_id, t.replayof, $4
    FROM unnest($6::uuid[], $7::text[], $8::uuid[], $9::uuid[], $10::uuid[])
        AS t(id, rule, event_uid, run_id, replayof)
), started AS (
    INSERT INTO run (id, workflow, revision, rule, firing_id, event_uid, state, params, lineage, priority,
                     created)
    SELECT t.id, t.workflow, $5, t.rule, t.firing_id, t.event_uid, 'running', t.params, t.lineage, t.priority,
           $4
    FROM unnest($11::uuid[], $12::text[], $13::text[], $14::uuid[], $15::uuid[], $16::bytea[], $17::bytea[],
                $18::smallint[])
        AS t(id, workflow, rule, firing_id, event_uid, params, lineage, priority)
), readied AS (
    INSERT INTO task_run (run_id, task, state, priority, due)
    SELECT t.run_id, t.task, 'ready', t.priority, $4
    FROM unnest($19::uuid[], $20::text[], $21::smallint[]) AS t(run_id, task, priority)
), dead AS (
    INSERT INTO dead_letter (id, stage, reason, source, partition, position, event_uid, rule, raw, attributes,
                             created)
    SELECT t.id, t.stage, t.reason, t.source, $2, t.position, t.event_uid, t.rule, t.raw, t.attributes, $4
    FROM unnest($22::uuid[], $23::text[], $24::text[], $25::text[], $26::bytea[], $27::uuid[], $28::text[],
                $29::bytea[], $30::bytea[])
        AS t(id, stage, reason, source, position, event_uid, rule, raw, attributes)
), sent AS (
    INSERT INTO outbox (event) SELECT * FROM unnest($31::bytea[])
)
INSERT INTO rule_counter AS c (rule, name, value)
SELECT * FROM unnest($32::text[], $33::text[], $34::bigint[]) AS t(rule, name, value) ORDER BY rule, name
ON CONFLICT (rule, name) DO UPDATE SET value = c.value + excluded.value
"""

Rooted = Callable[[str], Sequence[str]]
"""The names of a workflow's root tasks: those a run starts with."""


def _columns(rows: Iterable[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Rows as one list per column; `width` empty lists where there is no row."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    return columns or [[] for _ in range(width)]


def _dead_record(broken: Broken, uid: UUID) -> tuple[Any, ...]:
    position = None if broken.position is None else encode_json(broken.position)
    attributes = _encode(Attributes(meta=dict(broken.meta))) if broken.meta else None
    return uid, "decode", broken.reason, broken.source, position, None, None, broken.raw, attributes


def _dead_event(letter: Letter) -> tuple[Any, ...]:
    taken, event = letter.taken, letter.taken.event
    attributes = _encode(Attributes(
        type=event.type, id=event.id, subject=event.subject, time=event.time, sender=event.sender,
        datacontenttype=event.datacontenttype, dataschema=event.dataschema,
        extensions=dict(event.extensions), meta=dict(event.meta), lineage=event.lineage,
    ))  # fmt: skip
    return (
        new_uid(), letter.stage, letter.reason, event.source, None, taken.uid, letter.rule.name,
        event.raw, attributes,
    )  # fmt: skip


async def write(
    conn: Connection,
    *,
    source: str,
    partition: str,
    now: datetime,
    revision: int,
    decision: Decision,
    roots: Rooted,
    broken: Sequence[tuple[Broken, UUID]] = (),
    taken: int = 0,
    replayof: UUID | None = None,
) -> None:
    """Write firings, runs with their first tasks, emits, dead letters and counters of one batch.

    `taken` counts the records that are new, broken ones included. Where it is not 0 somebody reads the
    partition: whatever another node has said of a source that all of them serve.
    """
    started = [(new_uid() if f.start else None, f) for f in decision.firings]
    runs = [(run_id, f) for run_id, f in started if run_id is not None]
    await conn.execute(
        WRITE,
        source, partition, taken, now, revision,
        *_columns(((f.id, f.rule.name, f.taken.uid, run_id, replayof) for run_id, f in started), 5),
        *_columns((_run(run_id, f) for run_id, f in runs), 8),
        *_columns(
            ((run_id, task, f.start.priority) for run_id, f in runs if f.start
             for task in roots(f.start.workflow)), 3,
        ),
        *_columns(
            [*(_dead_record(record, uid) for record, uid in broken), *map(_dead_event, decision.letters)], 9
        ),
        [encode_event(f.emit) for f in decision.firings if f.emit],
        *_columns(((rule, name, n) for (rule, name), n in decision.counts.items()), 3),
    )  # fmt: skip


def _run(run_id: UUID, firing: Firing) -> tuple[Any, ...]:
    start = firing.start
    assert start is not None
    return (
        run_id, start.workflow, firing.rule.name, firing.id, firing.taken.uid,
        encode_json(start.params), _encode(start.lineage), start.priority,
    )  # fmt: skip


COUNT_DUPLICATES: Final = """
INSERT INTO source_partition AS p (source, partition, duplicates) VALUES ($1, $2, $3)
ON CONFLICT (source, partition) DO UPDATE SET duplicates = p.duplicates + excluded.duplicates
"""


async def count_duplicates(conn: Connection, source: str, partition: str, repeated: int) -> None:
    """Records that were taken in before are not taken again, but they are counted."""
    await conn.execute(COUNT_DUPLICATES, source, partition, repeated)
