"""Migrations: numbered SQL files of this package, applied in order, each in a transaction of its own.

Forward only. What was applied stands in `eventflow.schema_migration` with a digest of its file, so that a
database made by other code is refused instead of half understood.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from importlib import resources
from typing import Any, Final, LiteralString, cast

from eventflow.errors import SchemaMismatch
from eventflow.store.partitions import DAYS_AHEAD, ensure_event_partitions
from eventflow.store.pool import Connection

_FOLDER: Final = "migrations"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file `NNNN_name.sql`; numbers begin at 1 and have no holes."""

    number: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        """SHA-256 of the file's text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.number:04}_{self.name}"


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """One migration and when the database took it (None: not yet)."""

    number: int
    name: str
    applied: datetime | None


def migrations() -> Sequence[Migration]:
    """The migrations that this version of eventflow ships, in order."""
    found: list[Migration] = []
    for file in resources.files("eventflow.store").joinpath(_FOLDER).iterdir():
        number, _, name = file.name.removesuffix(".sql").partition("_")
        if file.name.endswith(".sql") and number.isdigit():
            found.append(Migration(int(number), name, file.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.number)
    assert [migration.number for migration in found] == list(range(1, len(found) + 1))
    return found


_LOCK: Final[LiteralString] = "SELECT pg_advisory_xact_lock(hashtextextended('eventflow.migrate', 0))"

# In one transaction behind the lock: CREATE ... IF NOT EXISTS alone fails when two run it at the same time.
_PREPARE: Final[LiteralString] = """
CREATE SCHEMA IF NOT EXISTS eventflow;
CREATE TABLE IF NOT EXISTS eventflow.schema_migration (
    number  integer PRIMARY KEY,
    name    text NOT NULL,
    digest  text NOT NULL,
    applied timestamptz NOT NULL DEFAULT now()
)
"""

_RECORD: Final[LiteralString] = """
INSERT INTO eventflow.schema_migration (number, name, digest)
VALUES ($1, $2, $3)
"""


async def migrate(connection: Connection, shipped: Sequence[Migration] | None = None) -> list[str]:
    """Bring the database to this version's schema; returns the names of what was applied.

    Any number of processes may run it at once, and again. Afterwards the event partitions of today and
    the next days exist. Raises `SchemaMismatch` where the database holds migrations that this version
    does not ship, or ships with another text.
    """
    known = migrations() if shipped is None else shipped
    async with connection.transaction():
        await connection.execute(_LOCK)
        await connection.execute(_PREPARE)
    applied: list[str] = []
    for migration in known:
        if await _apply(connection, migration, known):
            applied.append(str(migration))
    today: date = await connection.fetchval(_TODAY)
    await ensure_event_partitions(connection, today, DAYS_AHEAD + 1)
    return applied


_TODAY: Final[LiteralString] = "SELECT (now() AT TIME ZONE 'UTC')::date"


async def _apply(connection: Connection, migration: Migration, known: Sequence[Migration]) -> bool:
    async with connection.transaction():
        await connection.execute(_LOCK)
        applied = await _applied(connection)
        _refuse_mismatch(known, applied)
        if migration.number in applied:
            return False
        # The file is eventflow's own text and holds no outside value.
        await connection.execute(cast("LiteralString", migration.sql))
        await connection.execute(_RECORD, migration.number, migration.name, migration.digest)
        return True


_APPLIED: Final[LiteralString] = """
SELECT number, name, digest, applied
FROM eventflow.schema_migration
ORDER BY number
"""

_IS_PREPARED: Final[LiteralString] = "SELECT to_regclass('eventflow.schema_migration') IS NOT NULL"


async def _applied(connection: Connection) -> Mapping[int, Mapping[str, Any]]:
    if not await connection.fetchval(_IS_PREPARED):
        return {}
    return {row["number"]: dict(row.items()) for row in await connection.fetch(_APPLIED)}


def _refuse_mismatch(known: Sequence[Migration], applied: Mapping[int, Mapping[str, Any]]) -> None:
    shipped = {migration.number: migration for migration in known}
    for number, row in applied.items():
        if number not in shipped:
            raise SchemaMismatch(
                f"the database has migration {number:04}_{row['name']}, which this version of eventflow does "
                "not know; run the newer version that applied it"
            )
        if shipped[number].digest != row["digest"]:
            raise SchemaMismatch(
                f"migration {shipped[number]} was applied to the database with another text than this "
                "version ships; use the version that applied it, or a new database"
            )


async def status(connection: Connection) -> list[MigrationStatus]:
    """Every migration of this version, with the time the database took it. Changes nothing.

    Raises `SchemaMismatch` as `migrate` does.
    """
    known = migrations()
    applied = await _applied(connection)
    _refuse_mismatch(known, applied)
    return [
        MigrationStatus(migration.number, migration.name, applied.get(migration.number, {}).get("applied"))
        for migration in known
    ]


async def check_schema(connection: Connection) -> None:
    """Raise `SchemaMismatch` unless the database has exactly this version's schema."""
    missing = [line.name for line in await status(connection) if line.applied is None]
    if missing:
        raise SchemaMismatch(
            f"the database lacks {len(missing)} migrations, first {missing[0]!r}; run `eventflow db migrate`"
        )
