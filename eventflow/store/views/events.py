"""What came in and what it set off: events, firings, rules. Read-only."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, LiteralString
from uuid import UUID

from eventflow.errors import UsageError
from eventflow.store.intake import item_key
from eventflow.store.pool import Connection
from eventflow.store.views import ids

View = list[dict[str, Any]]
"""Rows in the order that a person wants them; the keys are the columns of the statement, in its order."""


async def select(conn: Connection, statement: LiteralString, *values: Any) -> View:
    """A statement's rows as plain dicts."""
    return [dict(row.items()) for row in await conn.fetch(statement, *values)]


# Newest first by uid, which begins with the time: the primary key of each day's partition is read from its
# end, where an order by `ingested` would sort every event there is.
EVENTS: Final[LiteralString] = """
SELECT e.uid, e.ingested, e.source, e.partition, e.type, e.subject, e.id,
       CASE WHEN EXISTS (SELECT FROM dead_letter AS d WHERE d.event_uid = e.uid AND d.state = 'open')
            THEN 'dead'
            WHEN e.class = 'm' THEN 'matched'
            WHEN e.class = 'o' THEN 'open'
            WHEN e.class = 'l' THEN 'late'
            ELSE 'unmatched' END AS class,
       length(e.data) AS size
FROM event AS e
WHERE ($1::timestamptz IS NULL OR e.ingested >= $1)
  AND ($2::text IS NULL OR e.source = $2)
  AND ($3::text IS NULL OR e.type = $3)
ORDER BY e.uid DESC
LIMIT $4
"""


async def events(
    conn: Connection,
    *,
    since: datetime | None = None,
    source: str | None = None,
    type_: str | None = None,
    limit: int | None = None,
) -> View:
    """Events, newest first, each with its class as `audit` counts it and its size in bytes."""
    return await select(conn, EVENTS, since, source, type_, limit)


FIRINGS: Final[LiteralString] = """
SELECT f.id AS firing_id, f.at, f.rule, f.revision, f.state, f.reason, f.run_id, r.state AS run_state,
       f.event_uid, e.id AS event, f.replayof
FROM (
    SELECT * FROM firing
    WHERE ($1::timestamptz IS NULL OR at >= $1) AND ($2::text IS NULL OR rule = $2)
    ORDER BY at DESC, id
    LIMIT $3
) AS f
LEFT JOIN run AS r ON r.id = f.run_id
LEFT JOIN event AS e ON e.uid = f.event_uid
ORDER BY f.at DESC, f.id
"""


async def firings(
    conn: Connection, *, since: datetime | None = None, rule: str | None = None, limit: int | None = None
) -> View:
    """Firings, newest first, with the event and the run of each."""
    return await select(conn, FIRINGS, since, rule, limit)


RULES: Final[LiteralString] = """
SELECT coalesce(f.rule, c.rule, d.rule) AS rule,
       coalesce(f.firings, 0) AS firings, f.last_fired,
       coalesce(c.where_errors, 0) AS where_errors, coalesce(c.loop_skips, 0) AS loop_skips,
       coalesce(d.dead_letters, 0) AS dead_letters
FROM (
    SELECT rule, count(*) AS firings, max(at) AS last_fired
    FROM firing
    WHERE $1::timestamptz IS NULL OR at >= $1
    GROUP BY rule
) AS f
FULL JOIN (
    SELECT rule,
           sum(value) FILTER (WHERE name = 'where_error')::bigint AS where_errors,
           sum(value) FILTER (WHERE name = 'loop_skipped')::bigint AS loop_skips
    FROM rule_counter
    GROUP BY rule
) AS c ON c.rule = f.rule
FULL JOIN (
    SELECT rule, count(*) AS dead_letters
    FROM dead_letter
    WHERE rule IS NOT NULL AND state = 'open' AND ($1::timestamptz IS NULL OR created >= $1)
    GROUP BY rule
) AS d ON d.rule = coalesce(f.rule, c.rule)
ORDER BY 1
"""


async def rules(conn: Connection, *, since: datetime | None = None) -> View:
    """What the database knows of each rule that ever did something: counts, and open dead letters.

    `since` bounds firings and dead letters; the counters of errors and skips carry no time.
    """
    return await select(conn, RULES, since)


# Uids that begin alike are one range of the primary key, those that end alike are looked for; ids are
# indexed by hash. An id may stand behind its source's name and a slash, where two sources have the same one.
FIND_EVENT: Final[LiteralString] = """
SELECT uid, source, id FROM event WHERE uid BETWEEN $1 AND $2
UNION
SELECT uid, source, id FROM event WHERE $6::text IS NOT NULL AND replace(uid::text, '-', '') LIKE $6
UNION
SELECT uid, source, id FROM event WHERE hashtextextended(id, 0) = hashtextextended($3, 0) AND id = $3
UNION
SELECT uid, source, id FROM event
WHERE hashtextextended(id, 0) = hashtextextended($5, 0) AND id = $5 AND source = $4
ORDER BY uid
LIMIT 6
"""

# A path as a person names it ends in the item of a ledger; the longest such end is the file. Its last
# thousand generations are enough: an older event is named by its id.
FIND_FILE: Final[LiteralString] = """
SELECT e.uid
FROM (
    SELECT source, convert_from(item, 'UTF8') AS item, generation
    FROM mark
    WHERE item_key = ANY($1::bytea[])
    ORDER BY length(item) DESC
    LIMIT 1
) AS m
CROSS JOIN generate_series(m.generation, greatest(1, m.generation - 999), -1) AS g(generation)
JOIN event AS e ON hashtextextended(e.id, 0) = hashtextextended(m.item || '#' || g.generation, 0)
               AND e.id = m.item || '#' || g.generation AND e.source = m.source
ORDER BY e.uid DESC
LIMIT 1
"""


async def find_event(conn: Connection, name: str) -> UUID:
    """The uid of the event that `name` stands for.

    That is its uid, a beginning or end that only it has, its id, `SOURCE/ID`, or a file's path: then its
    newest event.
    Raises `UnknownName` where there is none, `UsageError` for several.
    """
    name = name.replace("\x00", "")
    low, high, ending = ids.span(name)
    source, _, id_ = name.partition("/")
    found = await conn.fetch(FIND_EVENT, low, high, name, source, id_, ending)
    if len(found) == 1:
        return found[0]["uid"]
    if found:
        some = ", ".join(f"{row['uid']} ({row['source']} {row['id']!r})" for row in found[: ids.SHOWN])
        more = ", ..." if len(found) > ids.SHOWN else ""
        raise UsageError(f"{name!r} stands for more than one event: {some}{more}; give the uid of one")
    of_file = await conn.fetchval(FIND_FILE, [item_key(end) for end in _ends(name)])
    if of_file is None:
        raise ids.UnknownName(
            f"no event {name!r}: give a uid, the beginning or end of one, an id, or a file's path; "
            "`eventflow events` lists them"
        )
    return of_file


def _ends(path: str) -> list[bytes]:
    """`a/b/c`, `b/c` and `c` for `/a/b/c`."""
    parts = [part for part in path.encode("utf-8", "surrogateescape").split(b"/") if part not in (b"", b".")]
    return [b"/".join(parts[start:]) for start in range(len(parts))]


EVENT: Final[LiteralString] = """
SELECT e.uid, e.ingested, e.source, e.partition, e.id, e.type, e.subject, e.attributes, e.data,
       CASE WHEN EXISTS (SELECT FROM dead_letter AS d WHERE d.event_uid = e.uid AND d.state = 'open')
            THEN 'dead'
            WHEN e.class = 'm' THEN 'matched'
            WHEN e.class = 'o' THEN 'open'
            WHEN e.class = 'l' THEN 'late'
            ELSE 'unmatched' END AS class,
       coalesce(
           (SELECT min(f.revision) FROM firing AS f WHERE f.event_uid = e.uid AND f.replayof IS NULL),
           (SELECT max(s.revision) FROM ruleset AS s WHERE s.applied <= e.ingested),
           0
       ) AS revision
FROM event AS e
WHERE e.uid = $1
"""


async def event(conn: Connection, uid: UUID) -> dict[str, Any]:
    """One event that exists, with the revision of the rule set that its batch was matched with.

    A firing says it for certain; without one it is the newest revision applied before the event came.
    """
    found = await select(conn, EVENT, uid)
    if not found:
        raise UsageError(f"event {uid} is not in this database (any more)")
    return found[0]


LETTERS_OF: Final[LiteralString] = """
SELECT id, stage, rule, state, reason, created
FROM dead_letter
WHERE event_uid = $1
ORDER BY created, id
"""


async def letters_of(conn: Connection, uid: UUID) -> View:
    """The dead letters of one event, oldest first."""
    return await select(conn, LETTERS_OF, uid)


SEEN: Final[LiteralString] = """
SELECT EXISTS (SELECT FROM source_partition WHERE source = $1) AS source,
       EXISTS (SELECT FROM firing WHERE rule = $2) OR EXISTS (SELECT FROM dead_letter WHERE rule = $2)
           OR EXISTS (SELECT FROM rule_counter WHERE rule = $2) AS rule,
       EXISTS (SELECT FROM run WHERE workflow = $3) AS workflow
"""


async def seen(
    conn: Connection, *, source: str | None, rule: str | None, workflow: str | None
) -> dict[str, Any]:
    """Whether each of these ever did something, by kind; reads whole tables where it did not."""
    (found,) = await select(conn, SEEN, source, rule, workflow)
    return found
