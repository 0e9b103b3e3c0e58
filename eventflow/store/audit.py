"""The books: everything that was ever taken in is still there, and has exactly one class.

    taken = matched + open + late + dead + resolved + unmatched + retired

`taken` is raised in the transaction that writes an event or a broken record, so a row that is lost
afterwards, in whatever way, leaves a gap that `missing` shows. Classes: dead > matched > open > late >
unmatched; an event with an open dead letter is dead whatever else it did. Once each of its letters is
replayed or discarded it counts as what matching said. A broken record never was matched: it is dead while
its letter is open, then resolved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString

from eventflow.event import JSON, Broken, Event, Record, decode_json, encode_json
from eventflow.store.intake import as_text
from eventflow.store.pool import Connection


@dataclass(frozen=True, slots=True)
class Balance:
    """One source, all its partitions together.

    `taken` is the counter; `matched` to `unmatched` are rows, each event or broken record in one of them;
    `retired` went with retention.
    `present` and `removed` are items of the ledger, None for a source that keeps none.
    """

    source: str
    taken: int
    matched: int
    open: int
    late: int
    dead: int
    resolved: int
    unmatched: int
    retired: int
    duplicates: int
    present: int | None
    removed: int | None
    last_event: datetime | None

    @property
    def missing(self) -> int:
        """Rows that are gone (below zero: rows that nothing took in). 0 where the books balance."""
        rows = self.matched + self.open + self.late + self.dead + self.resolved + self.unmatched
        return self.taken - self.retired - rows


# A broken record became a dead letter and never an event: its letter has no event_uid.
BALANCES: Final[LiteralString] = """
WITH dead_event AS (
    SELECT DISTINCT event_uid AS uid FROM dead_letter WHERE event_uid IS NOT NULL AND state = 'open'
), event_rows AS (
    SELECT e.source,
           count(*) FILTER (WHERE d.uid IS NULL AND e.class = 'm') AS matched,
           count(*) FILTER (WHERE d.uid IS NULL AND e.class = 'o') AS open,
           count(*) FILTER (WHERE d.uid IS NULL AND e.class = 'l') AS late,
           count(*) FILTER (WHERE d.uid IS NULL AND e.class = 'u') AS unmatched,
           count(d.uid) AS dead
    FROM event AS e
    LEFT JOIN dead_event AS d ON d.uid = e.uid
    GROUP BY e.source
), broken_rows AS (
    SELECT source, count(*) FILTER (WHERE state = 'open') AS dead,
           count(*) FILTER (WHERE state <> 'open') AS resolved
    FROM dead_letter
    WHERE stage = 'decode' AND event_uid IS NULL AND source IS NOT NULL
    GROUP BY source
), counters AS (
    SELECT source, sum(taken)::bigint AS taken, sum(retired)::bigint AS retired,
           sum(duplicates)::bigint AS duplicates, max(last_event) AS last_event
    FROM source_partition
    GROUP BY source
), ledger AS (
    SELECT source, count(*) FILTER (WHERE present) AS present, count(*) FILTER (WHERE NOT present) AS removed
    FROM mark
    GROUP BY source
)
SELECT source,
       coalesce(c.taken, 0) AS taken, coalesce(e.matched, 0) AS matched, coalesce(e.open, 0) AS open,
       coalesce(e.late, 0) AS late, coalesce(e.dead, 0) + coalesce(b.dead, 0) AS dead,
       coalesce(b.resolved, 0) AS resolved,
       coalesce(e.unmatched, 0) AS unmatched, coalesce(c.retired, 0) AS retired,
       coalesce(c.duplicates, 0) AS duplicates, l.present, l.removed, c.last_event
FROM counters AS c
FULL JOIN event_rows AS e USING (source)
FULL JOIN broken_rows AS b USING (source)
FULL JOIN ledger AS l USING (source)
ORDER BY source
"""


async def balances(conn: Connection) -> list[Balance]:
    """The books of every source, by name, as of one moment: one statement sees one snapshot.

    Holds while events are taken in: a counter and its rows are committed together.
    """
    return [Balance(**dict(row.items())) for row in await conn.fetch(BALANCES)]


COUNT_GAPS: Final[LiteralString] = "SELECT source, count(*) AS n FROM gap GROUP BY source"


async def gaps(conn: Connection) -> dict[str, int]:
    """How many ranges a person has passed over, by source; sources without any are absent."""
    return {row["source"]: row["n"] for row in await conn.fetch(COUNT_GAPS)}


READ_POSITIONS: Final[LiteralString] = """
SELECT partition, cursor, retired FROM source_partition
WHERE source = $1 AND cursor IS NOT NULL
ORDER BY partition
"""


async def positions(conn: Connection, source: str) -> list[tuple[str, JSON, int]]:
    """The partitions of an ordered source that have a position, with it; how many of each are retired."""
    return [
        (row["partition"], decode_json(row["cursor"]), row["retired"])
        for row in await conn.fetch(READ_POSITIONS, source)
    ]


# A record that Postgres refused is a dead letter without an id: it is known by its bytes.
NOT_TAKEN: Final[LiteralString] = """
SELECT t.number
FROM unnest($2::text[], $3::bytea[], $4::bytea[]) WITH ORDINALITY AS t(id, position, raw, number)
WHERE NOT EXISTS (
    SELECT FROM event AS e
    WHERE hashtextextended(e.id, 0) = hashtextextended(t.id, 0) AND e.id = t.id AND e.source = $1
) AND NOT EXISTS (
    SELECT FROM dead_letter AS d
    WHERE d.stage = 'decode' AND d.source = $1 AND d.event_uid IS NULL AND d.position = t.position
) AND NOT EXISTS (
    SELECT FROM dead_letter AS d
    WHERE d.stage = 'decode' AND d.source = $1 AND d.event_uid IS NULL AND d.position IS NULL
      AND d.raw = t.raw
)
ORDER BY t.number
"""


async def not_taken(conn: Connection, source: str, records: Sequence[Record]) -> list[int]:
    """The indexes of records that neither an event nor a dead letter stands for."""
    rows = await conn.fetch(
        NOT_TAKEN, source,
        [as_text(record.id) if isinstance(record, Event) else None for record in records],
        [encode_json(record.position) if isinstance(record, Broken) else None for record in records],
        [record.raw for record in records],
    )  # fmt: skip
    return [row["number"] - 1 for row in rows]


FIRST_TAKEN_SINCE: Final[LiteralString] = """
WITH asked AS (
    SELECT * FROM unnest($2::text[], $3::bytea[]) WITH ORDINALITY AS t(id, position, number)
), taken AS (
    SELECT t.number
    FROM asked AS t JOIN event AS e
        ON hashtextextended(e.id, 0) = hashtextextended(t.id, 0) AND e.id = t.id AND e.source = $1
    WHERE e.ingested >= $4
    UNION ALL
    SELECT t.number
    FROM asked AS t JOIN dead_letter AS d ON d.position = t.position
    WHERE d.stage = 'decode' AND d.source = $1 AND d.event_uid IS NULL AND d.created >= $4
)
SELECT min(number) - 1 FROM taken
"""


async def first_taken_since(
    conn: Connection, source: str, records: Sequence[Record], since: datetime
) -> int | None:
    """The index of the first record that was taken in at `since` or later and is still here."""
    return await conn.fetchval(
        FIRST_TAKEN_SINCE, source,
        [as_text(record.id) if isinstance(record, Event) else None for record in records],
        [encode_json(record.position) if isinstance(record, Broken) else None for record in records], since,
    )  # fmt: skip


ORPHANS: Final[LiteralString] = """
SELECT (SELECT count(*) FROM firing AS f
        WHERE f.run_id IS NOT NULL AND NOT EXISTS (SELECT FROM run AS r WHERE r.id = f.run_id)) AS runs,
       (SELECT count(*) FROM run AS r
        WHERE r.firing_id IS NOT NULL
          AND NOT EXISTS (SELECT FROM firing AS f WHERE f.id = r.firing_id)) AS firings,
       (SELECT count(*) FROM run AS r
        WHERE NOT EXISTS (SELECT FROM task_run AS t WHERE t.run_id = r.id)) AS tasks,
       (SELECT count(*) FROM run AS r
        WHERE r.state = 'failed'
          AND NOT EXISTS (SELECT FROM dead_letter AS d WHERE d.run_id = r.id)) AS letters,
       (SELECT count(*) FROM event AS e
        WHERE e.class = 'm' AND e.ingested >= $1
          AND NOT EXISTS (SELECT FROM firing AS f WHERE f.event_uid = e.uid)
          AND NOT EXISTS (SELECT FROM dead_letter AS d WHERE d.event_uid = e.uid)) AS matches
"""


@dataclass(frozen=True, slots=True)
class Orphans:
    """Rows whose other half is gone: 0 each in a sound database.

    `runs`: firings whose run is missing; `firings`: runs whose firing is missing; `tasks`: runs without any
    task run; `letters`: failed runs without a dead letter; `matches`: events that count as matched but set
    off nothing.
    """

    runs: int
    firings: int
    tasks: int
    letters: int
    matches: int

    @property
    def sentences(self) -> list[str]:
        """What is wrong, a line for each kind; none where all is well."""
        found = (
            (self.runs, "firings have lost their run"),
            (self.firings, "runs have lost their firing"),
            (self.tasks, "runs have lost their tasks"),
            (self.letters, "failed runs have lost their dead letter"),
            (
                self.matches,
                "events count as matched, but neither a firing nor a dead letter of theirs is there",
            ),
        )
        return [f"{count} {what}" for count, what in found if count]


async def orphans(conn: Connection, kept_since: datetime) -> Orphans:
    """Look for lost firings and runs, which no counter counts.

    Of events from before `kept_since` retention may have removed runs and firings while their day stays.
    """
    row = await conn.fetchrow(ORPHANS, kept_since)
    assert row is not None
    return Orphans(**dict(row.items()))
