"""Which source partitions are in trouble, and eventflow's own events about it: stalled, stopped, recovered.

- *stopped*: a gap, or another origin behind the address; until a person lets it go on.
- *stalled*: nobody could read it for longer than a lease while some node tried, or it is silent for far
  longer than its usual rhythm: more than ten times as long, and more than a minute, once ten intervals were
  learnt. Its row tells the two apart ('stalled', 'silent'): one that was silent is well once something comes,
  one that was not read is once it is.
- *recovered*, after either: a batch came in again, or it has been read for a whole lease. What is pushed has
  recovered as soon as a node serves it.

The usual rhythm is the interval between two batches with events in which a random moment finds itself: the
sum of squared intervals over the sum of intervals (the inspection paradox's mean). Other than the plain
mean it does not take a burst of a thousand batches once a day for a source that talks all day. Both sums
fade over a day; intervals in which nobody read it, and troubles, do not count.

A partition's row says what was last told of it (`trouble`). Telling compares and sets that under the row's
lock and puts the event into the outbox in the same transaction: however many nodes look, each change is
told once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, LiteralString

from eventflow.event import EVENTFLOW_SOURCE, JSON, Event, SourceNews, decode_json, encode_json, new_uid
from eventflow.store import outbox
from eventflow.store.pool import Connection, Row
from eventflow.units import duration_text

LEAST_SILENCE: Final = timedelta(minutes=1)
LEAST_LEARNT: Final = 10
TIMES_RHYTHM: Final = 10

READ_AGAIN: Final[LiteralString] = """
UPDATE source_partition AS p SET unread = NULL
FROM (
    SELECT source, partition FROM source_partition
    WHERE source = ANY($1::text[]) AND unread IS NOT NULL
      AND state = 'running' AND since < now() - $2::interval
      AND (lease_until IS NULL OR lease_until > now())
    FOR NO KEY UPDATE SKIP LOCKED
) AS mended
WHERE p.source = mended.source AND p.partition = mended.partition
"""

# Nobody tries before there is a node: `tried` is since when the oldest one that is alive may have.
CHANGED: Final[LiteralString] = """
WITH alive AS (
    SELECT min(started) AS tried FROM node WHERE lease_until > now()
), seen AS (
    SELECT p.source, p.partition, p.state, p.trouble, p.message, p.missing, p.cursor, p.troubled,
           p.last_event, p.since, p.unread,
           CASE WHEN p.gaps > 0 AND p.learnt >= $4 THEN make_interval(secs => p.gaps_square / p.gaps) END
               AS rhythm,
           now() - CASE WHEN p.trouble = 'silent' THEN p.last_event ELSE greatest(p.last_event, p.since) END
               AS silence,
           p.state = 'running' AND (p.lease_until IS NULL OR p.lease_until > now()) AS is_read,
           greatest(p.unread, alive.tried) < now() - $2::interval AS long_unread
    FROM source_partition AS p CROSS JOIN alive
    WHERE p.source = ANY($1::text[]) AND p.partition <> 'outbox' AND p.state <> 'paused'
), judged AS (
    SELECT *, is_read AND rhythm IS NOT NULL AND silence > greatest($5 * rhythm, $3) AS is_silent
    FROM seen
), found AS (
    SELECT *,
           CASE WHEN state = 'stopped' THEN 'stopped'
                WHEN unread IS NOT NULL AND long_unread AND NOT is_read THEN coalesce(trouble, 'stalled')
                WHEN unread IS NOT NULL THEN trouble
                WHEN trouble = 'silent' AND (is_silent OR NOT is_read) THEN 'silent'
                WHEN trouble IS NULL AND is_silent THEN 'silent' END AS now_in
    FROM judged
)
SELECT f.*
FROM found AS f JOIN source_partition AS p USING (source, partition)
WHERE f.now_in IS DISTINCT FROM f.trouble AND p.trouble IS NOT DISTINCT FROM f.trouble
FOR NO KEY UPDATE OF p SKIP LOCKED
"""

TELL: Final[LiteralString] = """
UPDATE source_partition AS p
SET trouble = t.trouble, troubled = t.troubled, reason = t.reason
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[])
    AS t(source, partition, trouble, troubled, reason)
WHERE p.source = t.source AND p.partition = t.partition
"""

Wanted = Callable[[str], bool]
"""Does any rule ask for this type of eventflow's own events?"""


async def tell(
    conn: Connection,
    sources: Collection[str],
    lease: timedelta,
    wanted: Wanted,
    *,
    least_silence: timedelta = LEAST_SILENCE,
) -> list[Event]:
    """Look at the partitions of these sources; what has changed, an event each.

    Those that a rule asks for are in the outbox. Safe beside the same on other nodes; a row that a batch
    has locked is looked at next time.
    """
    async with conn.transaction():
        await conn.execute(READ_AGAIN, list(sources), lease)
        rows = await conn.fetch(CHANGED, list(sources), lease, least_silence, LEAST_LEARNT, TIMES_RHYTHM)
        if not rows:
            return []
        told = [(row, _reason(row)) for row in rows]
        await conn.execute(
            TELL, [row["source"] for row in rows], [row["partition"] for row in rows],
            [row["now_in"] for row in rows], [_since(row) if row["now_in"] else None for row in rows],
            [reason if row["now_in"] else None for row, reason in told],
        )  # fmt: skip
        events = [_event(row, reason) for row, reason in told]
        await _put(conn, events, wanted)
    return events


TAKE_BACK: Final[LiteralString] = """
DELETE FROM source_partition
WHERE source = $1 AND partition = '' AND owner IS NULL AND epoch = 0 AND version = 0 AND taken = 0
  AND duplicates = 0
  AND (state = 'waiting' OR state = 'paused' AND EXISTS (
          SELECT FROM source_partition AS other
          WHERE other.source = $1 AND other.partition NOT IN ('', 'outbox')))
RETURNING source, partition, trouble, troubled, NULL::text AS now_in, NULL::bytea AS cursor
"""


async def take_back_report(conn: Connection, source: str, wanted: Wanted) -> list[Event]:
    """The source can be opened again, and '' is none of its partitions: forget the row that said why not.

    One that is paused stays until there are others, which then say that. Where that row had been told to be
    in trouble, this is its recovery.
    """
    async with conn.transaction():
        row = await conn.fetchrow(TAKE_BACK, source)
        events = [_event(row, _reason(row))] if row is not None and row["trouble"] else []
        await _put(conn, events, wanted)
    return events


def _reason(row: Row) -> str:
    if row["now_in"] is None:
        return "it is read again" if row["trouble"] == "stopped" else "it goes on"
    if row["now_in"] == "silent":
        silence, rhythm = (_rounded(row[name]) for name in ("silence", "rhythm"))
        return f"nothing has come for {silence}; usually something comes every {rhythm}"
    return row["message"] or "it cannot be read"


def _rounded(span: timedelta) -> str:
    seconds = span.total_seconds()
    return duration_text(timedelta(seconds=round(seconds) if seconds >= 10 else round(seconds, 3)))


def _since(row: Row) -> datetime:
    """When it began: the last event of a silent one, the first failure of an unreadable one."""
    if row["now_in"] == "stopped":
        return row["since"]
    return row["last_event"] if row["now_in"] == "silent" else row["unread"]


def _event(row: Row, reason: str) -> Event:
    """Stalled, stopped or recovered; a recovery's `since` is when the trouble began, `was` what it was."""
    since: datetime = _since(row) if row["now_in"] else row["troubled"]
    data: dict[str, JSON] = {
        "source": row["source"], "partition": row["partition"], "reason": reason,
        "since": since.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "position": None if row["cursor"] is None else decode_json(row["cursor"]),
    }  # fmt: skip
    if row["now_in"] == "stopped":
        data["missing"] = None if row["missing"] is None else decode_json(row["missing"])
    if row["now_in"] is None:
        data["was"] = _told(row["trouble"])
    news = SourceNews[_told(row["now_in"]) or "recovered"]
    return Event(
        source=EVENTFLOW_SOURCE, id=str(new_uid()), type=news.value,
        subject=row["source"], data=data, raw=encode_json(data),
    )  # fmt: skip


def _told(trouble: str | None) -> str | None:
    """Silence is one of the ways to be stalled."""
    return "stalled" if trouble == "silent" else trouble


async def _put(conn: Connection, events: Sequence[Event], wanted: Wanted) -> None:
    asked = [event for event in events if wanted(event.type)]
    if asked:
        await outbox.put(conn, asked)
