"""What the server says of itself, of our slot and publication, and of the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, LiteralString

import msgspec

from connectors.postgres_cdc.config import PostgresCdcConfig
from connectors.postgres_cdc.session import Session
from eventflow.errors import SourceUnavailable

OLDEST: Final = 150_000
"""Postgres 15 brought row filters, and the end of empty transactions in the stream."""

READ_SERVER: Final[LiteralString] = """
SELECT json_build_object(
    'system', (SELECT system_identifier::text FROM pg_control_system()),
    'database', current_database(),
    'role', current_user,
    'version', current_setting('server_version_num')::int,
    'encoding', current_setting('server_encoding'),
    'wal_level', current_setting('wal_level'),
    'keeps', (SELECT setting::bigint * 1024 * 1024 FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
    'wal', CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
    'free_slots', current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots),
    'superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
    'replication', (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user)
)
"""


class Server(msgspec.Struct, frozen=True):
    """`keeps` is `max_slot_wal_keep_size` in bytes, below 0 for no limit; `wal` the end of the WAL."""

    system: str
    database: str
    role: str
    version: int
    encoding: str
    wal_level: str
    keeps: int
    wal: str
    free_slots: int
    superuser: bool
    replication: bool


READ_SLOT: Final[LiteralString] = """
SELECT json_build_object(
    'plugin', s.plugin, 'database', s.database, 'pid', s.active_pid, 'lost', s.wal_status = 'lost',
    'confirmed', s.confirmed_flush_lsn, 'safe', s.safe_wal_size,
    'kept', pg_wal_lsn_diff(
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
        s.restart_lsn)::bigint,
    'application', (SELECT a.application_name FROM pg_stat_activity AS a WHERE a.pid = s.active_pid)
)
FROM pg_replication_slots AS s
WHERE s.slot_name = $1
"""


class Slot(msgspec.Struct, frozen=True):
    """`kept` bytes of WAL stay on the server for it; `safe` more may be written before it is lost."""

    plugin: str | None
    database: str | None
    pid: int | None
    lost: bool | None
    confirmed: str | None
    safe: int | None
    kept: int | None
    application: str | None


READ_PUBLICATION: Final[LiteralString] = """
SELECT json_build_object(
    'comment', obj_description(p.oid, 'pg_publication'),
    'tables', (SELECT coalesce(json_agg(t.schemaname || '.' || t.tablename), '[]')
               FROM pg_publication_tables AS t WHERE t.pubname = p.pubname),
    'filtered', (SELECT coalesce(json_object_agg(r.prrelid::bigint, (
                     SELECT json_agg(a.attname)
                     FROM pg_depend AS d
                     JOIN pg_attribute AS a ON a.attrelid = r.prrelid AND a.attnum = d.refobjsubid
                     WHERE d.classid = 'pg_publication_rel'::regclass AND d.objid = r.oid
                       AND d.refclassid = 'pg_class'::regclass AND d.refobjid = r.prrelid)), '{}')
                 FROM pg_publication_rel AS r WHERE r.prpubid = p.oid AND r.prqual IS NOT NULL)
)
FROM pg_publication AS p
WHERE p.pubname = $1
"""


class Publication(msgspec.Struct, frozen=True):
    """`tables` as `schema.table`; `filtered` names, by table OID, the columns its row filter reads."""

    comment: str | None
    tables: list[str]
    filtered: dict[str, list[str] | None]


READ_TABLES: Final[LiteralString] = """
SELECT json_object_agg(w.schema || '.' || w.name, json_build_object(
    'oid', c.oid::bigint,
    'identity', c.relreplident,
    'select', has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'),
    'file', coalesce(
        (SELECT string_agg(pg_relation_filenode(p.relid)::text, ',' ORDER BY p.relid::oid)
         FROM pg_partition_tree(c.oid) AS p WHERE p.isleaf),
        pg_relation_filenode(c.oid)::text),
    'key', (SELECT coalesce(json_agg(json_build_array(a.attname, a.atttypid::bigint) ORDER BY k.n), '[]')
            FROM pg_index AS i
            CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, n)
            JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum
            WHERE i.indrelid = c.oid AND k.n <= i.indnkeyatts
              AND CASE WHEN c.relreplident = 'i' THEN i.indisreplident ELSE i.indisprimary END),
    'columns', (SELECT json_agg(a.attname ORDER BY a.attnum)
                FROM pg_attribute AS a
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '')
))
FROM json_to_recordset($1::json) AS w(schema text, name text)
JOIN pg_namespace AS n ON n.nspname = w.schema
JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind IN ('r', 'p')
"""


class Table(msgspec.Struct, frozen=True):
    """A table that is there. `identity` is its replica identity: d, n, f or i.

    `key` tells its rows apart in the stream, name and type's OID of each column: the identity's index, or
    the primary key.
    """

    oid: int
    identity: str
    select: bool
    file: str | None
    key: list[tuple[str, int]]
    columns: list[str]

    @property
    def identifies(self) -> bool:
        """Whether Postgres lets published rows be updated and deleted."""
        return self.identity == "f" or (self.identity != "n" and bool(self.key))


async def server(session: Session) -> Server:
    """The server itself."""
    return msgspec.convert(await session.json(READ_SERVER), Server)


async def slot(session: Session, name: str) -> Slot | None:
    """None where there is no such slot."""
    return msgspec.convert(await session.json(READ_SLOT, name), Slot | None)


async def publication(session: Session, name: str) -> Publication | None:
    """None where there is no such publication."""
    return msgspec.convert(await session.json(READ_PUBLICATION, name), Publication | None)


async def tables(session: Session, config: PostgresCdcConfig) -> Mapping[str, Table]:
    """The configured tables that are there, by `schema.table`."""
    wanted = msgspec.json.encode([{"schema": t.schema_name, "name": t.name} for t in config.tables])
    found = await session.json(READ_TABLES, wanted.decode())
    return msgspec.convert(found or {}, dict[str, Table])


TERMINATE: Final[LiteralString] = """
SELECT to_json(pg_terminate_backend(pid))
FROM pg_stat_activity
WHERE pid = $1::int AND application_name = $2
"""


async def end_reader(session: Session, pid: int, application: str) -> None:
    """End the walsender `pid` where it is one of `application`."""
    await session.json(TERMINATE, str(pid), application)


@dataclass(frozen=True, slots=True)
class State:
    """All of it at one look."""

    server: Server
    slot: Slot | None
    publication: Publication | None
    tables: Mapping[str, Table]


async def look(session: Session, config: PostgresCdcConfig, slot_name: str, publication_name: str) -> State:
    """Raises `SourceUnavailable`."""
    itself = await server(session)
    if itself.version < OLDEST:
        raise SourceUnavailable(f"the server is Postgres {itself.version // 10_000}; 15 or newer is needed")
    return State(
        itself,
        await slot(session, slot_name),
        await publication(session, publication_name),
        await tables(session, config),
    )


def missing_tables(config: PostgresCdcConfig, there: Mapping[str, Table]) -> Sequence[str]:
    """The configured ones that are not there."""
    return [table.table for table in config.tables if table.table not in there]
