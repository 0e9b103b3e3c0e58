"""Rule sets live in Postgres as text: every node compiles the same bytes.

A batch holds a shared advisory lock on the revision it matched with (`intake.batch_transaction`); `apply`
takes it exclusively, so each committed batch was matched by exactly one revision on every node.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from eventflow.errors import UsageError
from eventflow.store.failures import is_lock_timeout
from eventflow.store.pool import Connection, Row


@dataclass(frozen=True, slots=True)
class StoredRuleSet:
    """A revision as applied: `files` maps paths under `folder` to their bytes, Python files included."""

    revision: int
    origin: str
    folder: Path
    code_version: str
    files: Mapping[str, bytes]


def origin_of(path: Path) -> str:
    """Where a set comes from: this host and the absolute path it is applied from."""
    return f"{socket.gethostname()}:{path}"


def digest_of(files: Mapping[str, bytes]) -> str:
    """A digest of names and contents; the same set has the same one on every machine."""
    total = sha256()
    for path in sorted(files):
        total.update(f"{len(path.encode())}:{path}:{len(files[path])}:".encode())
        total.update(files[path])
    return total.hexdigest()


CURRENT: Final = "SELECT coalesce(max(revision), 0) FROM ruleset"


async def current_revision(conn: Connection) -> int:
    """The revision that batches must match with; 0 where none was ever applied."""
    return int(await conn.fetchval(CURRENT))


READ_SET: Final = "SELECT origin, folder, code_version FROM ruleset WHERE revision = $1"
READ_FILES: Final = "SELECT path, content FROM ruleset_file WHERE revision = $1"


async def read(conn: Connection, revision: int) -> StoredRuleSet:
    """The text of a revision that exists."""
    row = await conn.fetchrow(READ_SET, revision)
    if row is None:
        raise UsageError(f"rule set revision {revision} is not in this database")
    files = {r["path"]: bytes(r["content"]) for r in await conn.fetch(READ_FILES, revision)}
    return StoredRuleSet(revision, row["origin"], Path(row["folder"]), row["code_version"], files)


LATEST: Final = "SELECT revision, digest, origin FROM ruleset ORDER BY revision DESC LIMIT 1"


async def replaceable(conn: Connection, origin: str, *, take_over: bool) -> Row | None:
    """Revision, digest and origin of the current set, which one from `origin` may replace; None: no set yet.

    Raises `UsageError` where it was applied from elsewhere and `take_over` is false.
    """
    latest = await conn.fetchrow(LATEST)
    if latest is not None and latest["origin"] != origin and not take_over:
        raise UsageError(
            f"this database holds the rule set of {latest['origin']} (revision {latest['revision']}), "
            f"not of {origin}; apply it from there, or replace it with --take-over"
        )
    return latest


LOCK_TIMEOUT: Final = "SET LOCAL lock_timeout = '200ms'"
LOCK: Final = "SELECT pg_advisory_xact_lock(7310001)"
INSERT_SET: Final = """
INSERT INTO ruleset (digest, origin, folder, code_version) VALUES ($1, $2, $3, $4) RETURNING revision
"""
INSERT_FILES: Final = """
INSERT INTO ruleset_file (revision, path, content) SELECT $1, * FROM unnest($2::text[], $3::bytea[])
"""


@dataclass(frozen=True, slots=True)
class Applied:
    """The revision that is current now; `changed` is false where it already was the same text."""

    revision: int
    changed: bool


async def apply(
    conn: Connection,
    files: Mapping[str, bytes],
    *,
    folder: Path,
    origin: str,
    code_version: str,
    take_over: bool,
) -> Applied:
    """Make these files the current rule set, all or nothing. They must have been loaded without error.

    Waits for running batches 200 ms at a time and lets others pass in between, so that batches never
    queue up behind it. Raises `UsageError` where the current set was applied from elsewhere and
    `take_over` is false.
    """
    while True:
        try:
            async with conn.transaction():
                await conn.execute(LOCK_TIMEOUT)
                await conn.execute(LOCK)
                return await _replace(conn, files, folder, origin, code_version, take_over)
        except Exception as error:
            if not is_lock_timeout(error):
                raise
            await asyncio.sleep(0.05)


async def _replace(
    conn: Connection,
    files: Mapping[str, bytes],
    folder: Path,
    origin: str,
    code_version: str,
    take_over: bool,
) -> Applied:
    latest = await replaceable(conn, origin, take_over=take_over)
    digest = digest_of(files)
    if latest is not None and latest["digest"] == digest and latest["origin"] == origin:
        return Applied(latest["revision"], changed=False)
    revision = await conn.fetchval(INSERT_SET, digest, origin, str(folder), code_version)
    await conn.execute(INSERT_FILES, revision, list(files), list(files.values()))
    return Applied(revision, changed=True)
