"""One connection to the table's server, and the statements that read it.

Autocommit, so that a connection that waits holds no transaction open: others may wait for it. Statements
are not prepared, so a pooler may stand in between.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, LiteralString, Self

import psycopg
from psycopg import errors, sql
from psycopg.rows import DictRow, dict_row

from connectors.sql_watermark.address import address
from connectors.sql_watermark.column import KINDS, Kind, refusal
from connectors.sql_watermark.config import SqlWatermarkConfig
from connectors.sql_watermark.examine import may_not_read
from eventflow.errors import SourceUnavailable

SHORTEST_MARGIN: Final = timedelta(seconds=1)
"""A time counts when it is over for this long: columns may round to a second, up or down."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Look:
    """The table at one instant. Values are text as the column's kind writes it; None: no row.

    `above` and `below`: how `highest` compares with the value asked for. `table` and `sequence` are numbers
    that change when the table is created anew, and when its numbers are restarted. `last_number` is the
    last one that the sequence gave; None where there is none, or we may not know. `column` is the column's
    number in the table, `type` what its values are compared as.
    """

    highest: str | None
    above: bool
    below: bool
    table: int
    sequence: int | None
    last_number: int | None
    standby: bool
    column: int
    type: str
    is_time: bool


class Server:
    """Borrowed by one source; `connect` opens and closes it. Every method raises `SourceUnavailable`."""

    def __init__(self, name: str, config: SqlWatermarkConfig, conn: psycopg.AsyncConnection[DictRow]) -> None:
        self.name = name
        self.config = config
        self._conn = conn
        self._kind: Kind | None = None

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, name: str, config: SqlWatermarkConfig, secret: Callable[[str], str]
    ) -> AsyncGenerator[Self]:
        """A connection until the block ends."""
        url = address(name, config.url, secret)
        try:
            conn = await psycopg.AsyncConnection[DictRow].connect(
                url, autocommit=True, prepare_threshold=None, row_factory=dict_row, connect_timeout=10,
                application_name=f"eventflow {name}", keepalives_idle=10, keepalives_interval=5,
                keepalives_count=3,
            )  # fmt: skip
        except psycopg.Error as error:
            raise SourceUnavailable(f"source '{name}': {_first_line(error)}") from error
        async with conn:
            yield cls(name, config, conn)

    async def rows(self, query: LiteralString | sql.Composed, values: Row) -> list[DictRow]:
        """Run one statement in a transaction of its own."""
        try:
            return await (await self._conn.execute(query, values)).fetchall()
        except errors.InsufficientPrivilege as error:
            remedy = may_not_read(self.config.table)
            raise SourceUnavailable(f"source '{self.name}': {_first_line(error)}; {remedy}") from error
        except psycopg.Error as error:
            raise SourceUnavailable(f"source '{self.name}': {_first_line(error)}") from error

    async def one(self, query: LiteralString | sql.Composed, values: Row) -> DictRow:
        """The only row."""
        (row,) = await self.rows(query, values)
        return row

    async def origin(self) -> str:
        """System identifier and database; the database's number where this role may not know the former."""
        row = await self.one(DATABASE, {})
        if not row["may_ask"]:
            return f"database {row['oid']}/{row['name']}"
        return f"{(await self.one(SYSTEM, {}))['identifier']}/{row['name']}"

    async def kind(self) -> Kind:
        """The column's. Raises `SourceUnavailable` where there is no such column, or it cannot grow."""
        if self._kind is None:
            found = await self.column_type()
            if found not in KINDS:
                raise SourceUnavailable(
                    f"source '{self.name}': {self.config.table}.{self.config.column} {refusal(found)}"
                )
            self._kind = KINDS[found]
        return self._kind

    async def column_type(self) -> str:
        """The SQL name of the column's type, of a domain its base. Raises `SourceUnavailable` without one."""
        config = self.config
        schema, table = config.table_names
        rows = await self.rows(COLUMN, {"schema": schema, "table": table, "column": config.column_name})
        if not rows or rows[0]["kind"] not in ("r", "p", "v"):
            what = "is no table" if rows else "does not exist, or this role may not see it"
            raise SourceUnavailable(f"source '{self.name}': {config.table} {what}")
        if rows[0]["type"] is None:
            raise SourceUnavailable(f"source '{self.name}': {config.table} has no column {config.column}")
        return rows[0]["type"]

    async def look(self, value: str | None) -> Look:
        """What is there now, compared with `value`."""
        query = await self._filled(LOOK)
        row = await self.one(query, {"value": value, "margin": self.margin, "table": self.table})
        kind = await self.kind()
        return Look(**row, type=kind.type, is_time=kind.is_time)

    async def count(self, after: str | None, until: str) -> int:
        """Rows with values in (after, until]; `after` None: from the first."""
        row = await self.one(await self._filled(COUNT), {"after": after, "until": until})
        return row["rows"]

    async def behind(self, after: str | None, most: int) -> int:
        """Rows with values above `after`, counted up to `most`."""
        values = {"after": after, "most": most, "margin": self.margin}
        row = await self.one(await self._filled(BEHIND), values)
        return row["rows"]

    async def steps(self, until: str) -> dict[str, int]:
        """Rows with values up to `until`, by steps of their distance from it: each 1.65 times as far."""
        return {
            row["step"]: row["rows"] for row in await self.rows(await self._filled(STEPS), {"until": until})
        }

    async def beyond(self, step: int, until: str) -> str | None:
        """The highest value that is further below `until` than `step`."""
        row = await self.one(await self._filled(BEYOND), {"step": step, "until": until})
        return row["value"]

    async def not_above(self, value: str, other: str) -> bool:
        """Whether `value` is `other` or below it."""
        return (await self.one(await self._filled(NOT_ABOVE), {"value": value, "other": other}))["holds"]

    async def written(self, value: str) -> str:
        """`value` as the column's kind writes it. Raises `ValueError` where it is none that counts."""
        query = await self._filled(WRITTEN)
        try:
            found = (await (await self._conn.execute(query, {"value": value})).fetchall())[0]["value"]
            if found in (None, "NaN", "Infinity", "-Infinity"):
                raise ValueError("no row with such a value is counted")
            return found
        except psycopg.DataError as error:
            raise ValueError(_first_line(error)) from error
        except psycopg.Error as error:
            raise SourceUnavailable(f"source '{self.name}': {_first_line(error)}") from error

    @property
    def margin(self) -> timedelta:
        return max(self.config.lag or SHORTEST_MARGIN, SHORTEST_MARGIN)

    @property
    def table(self) -> str:
        """As SQL's own functions take a table's name: `format('%I.%I')`."""
        return ".".join(sql.Identifier(name).as_string(None) for name in self.config.table_names)

    async def _filled(self, query: LiteralString) -> sql.Composed:
        """`query` with the names of the table and its column, and the fragments of the column's kind."""
        kind = await self.kind()
        column = sql.Identifier(self.config.column_name)
        return sql.SQL(query).format(
            table=sql.Identifier(*self.config.table_names),
            column=column,
            type=sql.SQL(kind.type),
            shown=sql.SQL(kind.shown),
            column_text=sql.Literal(self.config.column_name),
            limit=sql.SQL(kind.limit).format(column=column),
            finite=sql.SQL(kind.finite).format(column=column),
            distance=sql.SQL(kind.distance).format(column=column),
        )


DATABASE: Final[LiteralString] = """
SELECT oid::bigint, datname AS name,
       has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE') AS may_ask
FROM pg_database
WHERE datname = current_database()
"""

SYSTEM: Final[LiteralString] = "SELECT system_identifier AS identifier FROM pg_catalog.pg_control_system()"

COLUMN: Final[LiteralString] = """
SELECT c.relkind::text AS kind,
       format_type(COALESCE(NULLIF(t.typbasetype, 0), t.oid), NULL) AS type
FROM pg_namespace AS n
JOIN pg_class AS c ON c.relnamespace = n.oid
LEFT JOIN pg_attribute AS a
    ON a.attrelid = c.oid AND a.attname = %(column)s AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_type AS t ON t.oid = a.atttypid
WHERE n.nspname = %(schema)s AND c.relname = %(table)s
"""


# One statement and so one lock: the table is not truncated between its rows and its numbers.
LOOK: Final[LiteralString] = """
SELECT {shown} AS highest,
       COALESCE(value > %(value)s::{type}, value IS NOT NULL) AS above,
       COALESCE(value < %(value)s::{type}, FALSE) AS below,
       c.oid::bigint AS table,
       s.relfilenode::bigint AS sequence,
       CASE WHEN has_sequence_privilege(s.oid, 'USAGE, SELECT') THEN pg_sequence_last_value(s.oid) END
           AS last_number,
       pg_is_in_recovery() AS standby,
       (SELECT attnum::integer FROM pg_attribute WHERE attrelid = c.oid AND attname = {column_text}) AS column
FROM (SELECT max({column}) AS value FROM {table} WHERE {limit}) AS m
CROSS JOIN (SELECT %(table)s::text::regclass AS oid) AS c
LEFT JOIN pg_class AS s ON s.oid = COALESCE(
    to_regclass(pg_get_serial_sequence(%(table)s::text, {column_text})), (
        SELECT d.refobjid
        FROM pg_attrdef AS e
        JOIN pg_attribute AS a ON a.attrelid = e.adrelid AND a.attnum = e.adnum
        JOIN pg_depend AS d ON d.classid = 'pg_attrdef'::regclass AND d.objid = e.oid
        JOIN pg_class AS q ON d.refclassid = 'pg_class'::regclass AND q.oid = d.refobjid AND q.relkind = 'S'
        WHERE e.adrelid = c.oid AND a.attname = {column_text}
        LIMIT 1
    )
)
"""

COUNT: Final[LiteralString] = """
SELECT count(*) AS rows
FROM {table}
WHERE {column} <= %(until)s::{type} AND (%(after)s::{type} IS NULL OR {column} > %(after)s::{type})
    AND {finite}
"""

BEHIND: Final[LiteralString] = """
SELECT count(*) AS rows
FROM (
    SELECT 1 FROM {table}
    WHERE {column} IS NOT NULL AND {limit} AND (%(after)s::{type} IS NULL OR {column} > %(after)s::{type})
    LIMIT %(most)s
) AS r
"""

STEPS: Final[LiteralString] = """
SELECT floor(2 * ln(GREATEST({distance}, 1)))::integer::text AS step, count(*) AS rows
FROM {table}
WHERE {column} <= %(until)s::{type} AND {finite}
GROUP BY 1
"""

BEYOND: Final[LiteralString] = """
SELECT {shown} AS value
FROM (
    SELECT max({column}) AS value
    FROM {table}
    WHERE {column} <= %(until)s::{type} AND {finite}
        AND floor(2 * ln(GREATEST({distance}, 1)))::integer > %(step)s
) AS m
"""

NOT_ABOVE: Final[LiteralString] = "SELECT %(value)s::{type} <= %(other)s::{type} AS holds"

WRITTEN: Final[LiteralString] = "SELECT {shown} AS value FROM (SELECT %(value)s::{type} AS value) AS m"


def _first_line(error: psycopg.Error) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
