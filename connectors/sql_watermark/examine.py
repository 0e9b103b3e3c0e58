"""What the table cannot deliver, in sentences: for `check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, LiteralString

from connectors.sql_watermark.column import KINDS, refusal
from eventflow.errors import SourceUnavailable

if TYPE_CHECKING:
    from connectors.sql_watermark.server import Server

STANDBY: Final = (
    "the server is a standby, which does not know what is open on its primary; name the primary in `url`, "
    "or say `lag:`"
)

WRITTEN_OUT: Final = (
    "`url` has a password written out, which is stored with the rules and seen by who reads them; "
    "say ${secret.NAME}"
)


def may_not_read(table: str) -> str:
    """What to do about a role that may not read the table."""
    return f"GRANT SELECT ON {table} TO the role in `url`, and USAGE ON its SCHEMA"


FACTS: Final[LiteralString] = """
SELECT has_table_privilege(c.oid, 'SELECT') OR has_column_privilege(c.oid, a.attnum, 'SELECT') AS readable,
       c.relkind = 'v' OR EXISTS (
           SELECT FROM pg_index AS i
           WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum AND i.indisvalid AND i.indpred IS NULL
       ) AS indexed,
       (
           SELECT q.seqcache
           FROM pg_sequence AS q
           WHERE q.seqrelid = to_regclass(pg_get_serial_sequence(%(table)s::text, %(column)s::text))
       ) AS cache,
       (
           SELECT q.seqincrement < 0 OR q.seqcycle
           FROM pg_sequence AS q
           WHERE q.seqrelid = to_regclass(pg_get_serial_sequence(%(table)s::text, %(column)s::text))
       ) AS falls,
       a.atthasdef OR a.attidentity <> '' AS given_by_server,
       a.atttypid = 'timestamp'::regtype AND current_setting('TimeZone') NOT IN ('UTC', 'Etc/UTC', 'GMT')
           AS local_time,
       current_setting('TimeZone') AS zone,
       pg_is_in_recovery() AS standby
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = %(column)s::text
WHERE c.oid = %(table)s::text::regclass
"""


async def warnings(server: Server) -> list[str]:
    """A sentence each: which object, what it cannot deliver, what to do."""
    config = server.config
    table, column = config.table, f"{config.table}.{config.column}"
    try:
        found = await server.column_type()
    except SourceUnavailable as error:  # the server was reached, so this is about the table
        return [str(error).removeprefix(f"source '{server.name}': ")]
    if found not in KINDS:
        return [f"{column} {refusal(found)}"]
    facts = await server.one(FACTS, {"table": server.table, "column": config.column_name})
    waits = config.lag is None
    said = (
        (not facts["readable"], f"{table} may not be read by this role: {may_not_read(table)}"),
        (not facts["indexed"], f"{column} has no index that begins with it: each poll reads the whole table"),
        (
            (facts["cache"] or 1) > 1,
            f"the sequence of {column} gives numbers out in blocks of {facts['cache']}: a session may use a "
            f"low one long after a higher one was counted, and it is missed; ALTER SEQUENCE ... CACHE 1",
        ),
        (facts["falls"], f"the sequence of {column} counts down or cycles: its values do not grow"),
        (
            waits and not facts["given_by_server"],
            f"{column} has no default: a value that was made before its transaction began may be missed; "
            f"let the server give it, or say `lag:`",
        ),
        (
            facts["local_time"],
            f"{column} has no time zone, and sessions are in {facts['zone']}: where clocks are set back "
            f"for the winter, rows of an hour are missed; make it timestamptz, or keep sessions in UTC",
        ),
        (waits and facts["standby"], STANDBY),
    )
    return [sentence for holds, sentence in said if holds]
