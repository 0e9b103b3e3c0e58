"""Dead letters as a person handles them: list, read, edit, discard; and the lock that a replay holds.

States: open -> replayed | discarded. A letter keeps the bytes that arrived whatever is done with it; an
edit stands beside them. Every change locks the row first, so of two people at once the second sees what
the first did. `eventflow.replay` sends letters in again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from json import loads
from typing import Any, Final, LiteralString
from uuid import UUID

from eventflow.errors import EventflowError, UsageError
from eventflow.event import JSON, decode_json
from eventflow.offers import DeadLetter
from eventflow.store.effects import Attributes, decode_attributes
from eventflow.store.pool import Connection, Row
from eventflow.store.views import ids
from eventflow.store.views.events import View, select


class Stage(StrEnum):
    """Where on its way the letter died."""

    decode = "decode"
    match = "match"
    start = "start"
    task = "task"
    run = "run"


class LetterState(StrEnum):
    """What a person has done with it."""

    open = "open"
    replayed = "replayed"
    discarded = "discarded"


class LetterNotOpen(EventflowError):
    """Somebody has replayed or discarded the letter already."""


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """One row, locked by the transaction that read it. `raw` is what a replay sends: the edit, if any.

    `replays` counts the replays so far: the next one's generation is one more.
    """

    id: UUID
    stage: Stage
    state: LetterState
    reason: str
    source: str | None
    position: JSON
    event_uid: UUID | None
    rule: str | None
    run_id: UUID | None
    raw: bytes
    was_edited: bool
    attributes: Attributes
    replays: int


LIST: Final[LiteralString] = """
SELECT d.id, d.created, d.stage, d.state, d.source, d.partition, d.rule, d.run_id, d.task,
       d.event_uid, e.id AS event, d.position, d.reason, d.attempts, d.replays,
       d.edited IS NOT NULL AS edited, d.resolved
FROM (
    SELECT * FROM dead_letter
    WHERE ($1::text IS NULL OR state = $1)
      AND ($2::text IS NULL OR stage = $2)
      AND ($3::text IS NULL OR rule = $3)
      AND ($4::text IS NULL OR source = $4)
      AND ($5::timestamptz IS NULL OR created >= $5)
    ORDER BY created DESC, id DESC
    LIMIT $6
) AS d
LEFT JOIN event AS e ON e.uid = d.event_uid
ORDER BY d.created DESC, d.id DESC
"""


async def letters(
    conn: Connection,
    *,
    state: LetterState | None = LetterState.open,
    stage: Stage | None = None,
    rule: str | None = None,
    source: str | None = None,
    since: datetime | None = None,
    limit: int | None = None,
) -> View:
    """Dead letters without their bytes, newest first, `position` decoded. `state=None`: done with or not."""
    rows = await select(conn, LIST, state, stage, rule, source, since, limit)
    return [row | {"position": _place(row["position"])} for row in rows]


def _place(position: bytes | None) -> JSON:
    """Any JSON that Postgres has kept, even what no event may hold: a list must not fail for one letter."""
    return None if position is None else loads(position)


OPEN_IDS: Final[LiteralString] = """
SELECT id
FROM dead_letter
WHERE state = 'open'
  AND ($1::text IS NULL OR stage = $1)
  AND ($2::text IS NULL OR rule = $2)
  AND ($3::text IS NULL OR source = $3)
  AND ($4::timestamptz IS NULL OR created >= $4)
ORDER BY created, id
LIMIT $5
"""


async def open_ids(
    conn: Connection,
    *,
    stage: Stage | None = None,
    rule: str | None = None,
    source: str | None = None,
    since: datetime | None = None,
    limit: int | None = None,
) -> list[UUID]:
    """The open letters in the order they were made, which is the order to replay them in."""
    return [row["id"] for row in await conn.fetch(OPEN_IDS, stage, rule, source, since, limit)]


TO_MIRROR: Final[LiteralString] = """
WITH free AS (
    SELECT id
    FROM dead_letter
    WHERE source = $1 AND mirrored IS NULL AND (mirroring IS NULL OR mirroring < now())
    ORDER BY created, id
    LIMIT $2
    FOR NO KEY UPDATE SKIP LOCKED
), taken AS (
    UPDATE dead_letter AS d SET mirroring = now() + $3::interval
    FROM free WHERE d.id = free.id
    RETURNING d.id, d.stage, d.reason, d.source, d.position, d.rule, d.raw, d.attributes, d.created
)
SELECT * FROM taken ORDER BY created, id
"""


async def to_mirror(conn: Connection, source: str, limit: int, lease: timedelta) -> list[DeadLetter]:
    """Take in hand the oldest letters of which no copy is written yet, whatever was done with them since.

    Other nodes pass them over for `lease`, or until `mirrored` or `not_mirrored`. Nothing stays locked.
    """
    rows = await conn.fetch(TO_MIRROR, source, limit, lease)
    return [
        DeadLetter(
            id=row["id"], stage=row["stage"], reason=row["reason"], source=row["source"], raw=row["raw"],
            position=None if row["position"] is None else decode_json(row["position"]),
            meta=decode_attributes(row["attributes"]).meta, rule=row["rule"], created=row["created"],
        )
        for row in rows
    ]  # fmt: skip


MIRRORED: Final[LiteralString] = (
    "UPDATE dead_letter SET mirrored = clock_timestamp() WHERE id = ANY($1::uuid[])"
)


async def mirrored(conn: Connection, letters: Sequence[DeadLetter]) -> None:
    """Note that their copies are written."""
    await conn.execute(MIRRORED, [letter.id for letter in letters])


NOT_MIRRORED: Final[LiteralString] = "UPDATE dead_letter SET mirroring = NULL WHERE id = ANY($1::uuid[])"


async def not_mirrored(conn: Connection, letters: Sequence[DeadLetter]) -> None:
    """Let go of letters that could not be copied: whoever looks next takes them."""
    await conn.execute(NOT_MIRRORED, [letter.id for letter in letters])


FIND: Final[LiteralString] = """
SELECT id FROM dead_letter
WHERE id BETWEEN $1 AND $2 OR ($3::text IS NOT NULL AND replace(id::text, '-', '') LIKE $3)
ORDER BY id
LIMIT 6
"""


async def find_letter(conn: Connection, name: str) -> UUID:
    """The letter whose id is, or alone begins or ends with, `name`. `UsageError` for none, or several."""
    found = await conn.fetch(FIND, *ids.span(name))
    return ids.only(found, name, what="dead letter", listing="eventflow dlq --state all")


# The values of a position in their order, like the id that its event would have had. A NUL, which is no text
# in Postgres, is in no name that a person types.
FIND_PLACE: Final[LiteralString] = """
SELECT id
FROM (
    SELECT d.id, d.source,
           CASE WHEN strpos(j.text, '\\u0000') > 0 THEN NULL
                WHEN json_typeof(j.text::json) = 'object'
                THEN (SELECT string_agg(value, '/') FROM json_each_text(j.text::json))
                ELSE j.text::json #>> '{}' END AS place
    FROM dead_letter AS d CROSS JOIN convert_from(d.position, 'UTF8') AS j(text)
    WHERE d.event_uid IS NULL AND d.position IS NOT NULL
) AS d
WHERE $1 IN (place, source || '/' || place)
ORDER BY id DESC
LIMIT 1
"""


async def find_place(conn: Connection, name: str) -> UUID:
    """The newest letter of a record that never became an event and stood at `name`, `orders.v1/3/17`.

    `SOURCE/orders.v1/3/17` too. Reads the whole table. Raises `UsageError` for none.
    """
    found: UUID | None = await conn.fetchval(FIND_PLACE, name)
    if found is None:
        raise ids.UnknownName(f"no dead letter of a record at {name!r}")
    return found


SHOW: Final[LiteralString] = """
SELECT d.id, d.stage, d.state, d.reason, d.created, d.attempts, d.replays, d.resolved, d.resolution,
       d.source, d.partition, d.position, d.event_uid, e.id AS event, d.rule, d.firing_id, d.run_id, d.task,
       d.attributes, d.raw, d.edited
FROM dead_letter AS d
LEFT JOIN event AS e ON e.uid = d.event_uid
WHERE d.id = $1
"""


async def show(conn: Connection, letter_id: UUID) -> dict[str, Any]:
    """Everything about one letter; `position` and `attributes` decoded, `raw` and `edited` as bytes."""
    found = await select(conn, SHOW, letter_id)
    if not found:
        raise UsageError(f"dead letter {letter_id} is not in this database (any more)")
    letter = found[0]
    letter["attributes"] = None if letter["attributes"] is None else decode_json(letter["attributes"])
    return letter | {"position": _place(letter["position"])}


# The run's row goes first, here as in `runs.retry_run`: a replay and a retry at the same time wait for each
# other instead of deadlocking, and the second sees what the first has settled.
LOCK_RUN: Final[LiteralString] = """
SELECT FROM run
WHERE id = (SELECT run_id FROM dead_letter WHERE id = $1)
FOR NO KEY UPDATE
"""

LOCK: Final[LiteralString] = """
SELECT id, stage, state, reason, source, position, event_uid, rule, run_id, raw, edited, attributes,
       replays, resolved
FROM dead_letter
WHERE id = $1
FOR UPDATE
"""


async def lock(conn: Connection, letter_id: UUID, *, again: bool = False, hint: str = "") -> StoredLetter:
    """The letter, locked until the caller's transaction ends. It must be open, or with `again` at least kept.

    Waits for whoever else has it locked and then sees what they did. Raises `LetterNotOpen`, with `hint` at
    its end where the letter was replayed.
    """
    await conn.execute(LOCK_RUN, letter_id)
    row = await conn.fetchrow(LOCK, letter_id)
    if row is None:
        raise UsageError(f"dead letter {letter_id} is not in this database (any more)")
    state = LetterState(row["state"])
    if state is LetterState.discarded or (state is LetterState.replayed and not again):
        raise LetterNotOpen(_what_was_done(row, state) + (hint if state is LetterState.replayed else ""))
    position, edited = row["position"], row["edited"]
    return StoredLetter(
        id=row["id"], stage=Stage(row["stage"]), state=state, reason=row["reason"], source=row["source"],
        position=None if position is None else decode_json(position), event_uid=row["event_uid"],
        rule=row["rule"], run_id=row["run_id"], raw=row["raw"] if edited is None else edited,
        was_edited=edited is not None, attributes=decode_attributes(row["attributes"]),
        replays=row["replays"],
    )  # fmt: skip


def _what_was_done(row: Row, state: LetterState) -> str:
    when = f"{row['resolved']:%Y-%m-%dT%H:%M:%SZ}" if row["resolved"] else "earlier"
    return f"dead letter {row['id']} was {state} at {when}"


REPLAYED: Final[LiteralString] = """
UPDATE dead_letter
SET state = 'replayed', resolved = clock_timestamp(), replays = replays + 1
WHERE id = $1
"""


async def replayed(conn: Connection, letter: StoredLetter) -> None:
    """Note the replay, in the transaction that locked the letter and wrote what it became."""
    await conn.execute(REPLAYED, letter.id)


DISCARD: Final[LiteralString] = """
UPDATE dead_letter
SET state = 'discarded', resolved = clock_timestamp(), resolution = $2
WHERE id = $1
"""


async def discard(conn: Connection, letter_ids: Sequence[UUID], reason: str | None = None) -> int:
    """Mark open letters as done with; their rows and bytes stay.

    All or nothing; how many. Raises `LetterNotOpen`.
    """
    async with conn.transaction():
        # In one order everywhere: two people with overlapping lists wait instead of deadlocking.
        for letter_id in sorted(set(letter_ids)):
            await lock(conn, letter_id)
            await conn.execute(DISCARD, letter_id, reason)
    return len(set(letter_ids))


EDIT: Final[LiteralString] = "UPDATE dead_letter SET edited = $2 WHERE id = $1"


async def edit(conn: Connection, letter_id: UUID, content: bytes | None) -> None:
    """Keep `content` beside the original bytes: a replay sends it instead. None takes the edit back.

    Raises `LetterNotOpen`.
    """
    async with conn.transaction():
        await lock(conn, letter_id)
        await conn.execute(EDIT, letter_id, content)
