"""What a person prepares once on the server, and what the server cannot deliver."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from connectors.postgres_cdc.config import PostgresCdcConfig, TableConfig
from connectors.postgres_cdc.server import State, Table, missing_tables

_MARK: Final = "eventflow "


def quoted(table: TableConfig) -> str:
    """Its name in SQL."""
    return f'"{table.schema_name}"."{table.name}"'


def _clause(table: TableConfig) -> str:
    return f"{quoted(table)} WHERE ({table.where})" if table.where else quoted(table)


def _comment(config: PostgresCdcConfig) -> str:
    """What a publication was made for: Postgres shows filters in its own words only."""
    clauses = "\n".join(sorted(_clause(table) for table in config.tables))
    return _MARK + hashlib.sha256(clauses.encode()).hexdigest()[:16]


def publication_fits(config: PostgresCdcConfig, state: State) -> bool:
    """Whether it has the tables, and their filters where it is one of ours."""
    found = state.publication
    if found is None or not {table.table for table in config.tables} <= set(found.tables):
        return False
    if found.comment is not None and found.comment.startswith(_MARK):
        return found.comment == _comment(config)
    return all(
        bool(table.where) == (str(state.tables[table.table].oid) in found.filtered)
        for table in config.tables
        if table.table in state.tables
    )


def statements(config: PostgresCdcConfig, slot: str, publication: str, state: State) -> Sequence[str]:
    """What is still needed, in order. The publication first: the slot's first change needs it."""
    return [
        *_grants(config, state),
        *_identities(config, state),
        *_publication(config, publication, state),
        *_slot(slot, state),
    ]


def _grants(config: PostgresCdcConfig, state: State) -> list[str]:
    """Reading the stream needs REPLICATION alone; a snapshot reads the tables."""
    role = f'"{state.server.role}"'
    needed = [] if state.server.replication else [f"ALTER ROLE {role} REPLICATION"]
    if config.snapshot == "initial":
        unread = [table for table in config.tables
                  if (found := state.tables.get(table.table)) and not found.select]  # fmt: skip
        needed += [f'GRANT USAGE ON SCHEMA "{schema}" TO {role}'
                   for schema in sorted({table.schema_name for table in unread})]  # fmt: skip
        needed += [f"GRANT SELECT ON {quoted(table)} TO {role}" for table in unread]
    return needed


def _identities(config: PostgresCdcConfig, state: State) -> list[str]:
    """Without an identity, publishing a table makes the application's own UPDATE and DELETE fail."""
    return [
        f"ALTER TABLE {quoted(table)} REPLICA IDENTITY FULL"
        for table in config.tables
        if (found := state.tables.get(table.table)) and not found.identifies
    ]


def _publication(config: PostgresCdcConfig, name: str, state: State) -> list[str]:
    if publication_fits(config, state):
        return []
    clauses = ", ".join(_clause(table) for table in config.tables)
    first = (
        f'CREATE PUBLICATION "{name}" FOR TABLE {clauses} WITH (publish_via_partition_root = true)'
        if state.publication is None
        else f'ALTER PUBLICATION "{name}" SET TABLE {clauses}'
    )
    return [first, f"COMMENT ON PUBLICATION \"{name}\" IS '{_comment(config)}'"]


def _slot(name: str, state: State) -> list[str]:
    create = f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')"
    if state.slot is None:
        return [create]
    return [f"SELECT pg_drop_replication_slot('{name}')", create] if state.slot.lost else []


def warnings(config: PostgresCdcConfig, slot: str, publication: str, state: State) -> list[str]:
    """A sentence each."""
    return [
        *_of_server(config, slot, state),
        *(f"table {name}: it is not there" for name in missing_tables(config, state.tables)),
        *(line for table in config.tables if table.table in state.tables
          for line in _of_table(config, table, state.tables[table.table], state)),
        *_of_publication(config, publication, state),
    ]  # fmt: skip


def _of_server(config: PostgresCdcConfig, slot: str, state: State) -> list[str]:
    server, said = state.server, list[str]()
    if server.wal_level != "logical":
        said.append(f"wal_level is {server.wal_level}: set wal_level = logical and restart the server")
    if server.keeps < 0:
        said.append(
            "max_slot_wal_keep_size is -1: while eventflow is stopped the server keeps WAL without bound; "
            "set a limit that its disk can hold"
        )
    if state.slot is None and server.free_slots < 1 + (config.snapshot == "initial"):
        said.append("no replication slot is free: raise max_replication_slots")
    if state.slot is None or state.slot.lost:
        said.append(
            f"the slot '{slot}' is {'lost' if state.slot else 'not there'}: run `eventflow sources setup`"
        )
    if server.superuser:
        tables = ", ".join(quoted(table) for table in config.tables)
        said.append(
            f"the role '{server.role}' is a superuser; enough is: CREATE ROLE eventflow_cdc LOGIN "
            f"REPLICATION PASSWORD '...'; GRANT SELECT ON {tables} TO eventflow_cdc"
        )
    elif not server.replication:
        said.append(f"the role '{server.role}' may not replicate: ALTER ROLE \"{server.role}\" REPLICATION")
    if server.encoding == "SQL_ASCII":
        said.append("the database is SQL_ASCII: rows whose text is not UTF-8 become dead letters")
    return said


def _of_table(config: PostgresCdcConfig, table: TableConfig, found: Table, state: State) -> list[str]:
    name, said = table.table, list[str]()
    key = ", ".join(column for column, _ in found.key)
    if not found.identifies:
        said.append(
            f"table {name}: it has no replica identity, so that Postgres refuses UPDATE and DELETE while it "
            f"is published; give it a primary key, or ALTER TABLE {quoted(table)} REPLICA IDENTITY FULL"
        )
    elif found.identity != "f":
        said.append(
            f"table {name}: `before` of a deleted row has its key only ({key}), and of an updated row "
            f"nothing unless the key changed; for whole rows "
            f"ALTER TABLE {quoted(table)} REPLICA IDENTITY FULL"
        )
    if config.snapshot == "initial" and not found.select:
        said.append(f"table {name}: the role '{state.server.role}' may not read it, which the snapshot needs")
    read = (state.publication.filtered.get(str(found.oid)) if state.publication else None) or []
    beyond = sorted(set(read) - {column for column, _ in found.key})
    if beyond and found.identity != "f":
        said.append(
            f"table {name}: its filter reads {', '.join(beyond)}, which its replica identity does not have, "
            f"so that Postgres refuses UPDATE and DELETE; ALTER TABLE {quoted(table)} REPLICA IDENTITY FULL"
        )
    return said


def _of_publication(config: PostgresCdcConfig, name: str, state: State) -> list[str]:
    if state.publication is None:
        return [f"the publication '{name}' is not there: run `eventflow sources setup`"]
    if not publication_fits(config, state):
        return [f"the publication '{name}' does not fit `tables`: run `eventflow sources setup`"]
    own = [table for table in state.publication.tables if table.startswith("eventflow.")]
    return [f"the publication '{name}' has eventflow's own tables; name another one"] if own else []
