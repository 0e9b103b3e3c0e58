"""What of a batch is new: the first statements of THE transaction.

Ordered sources dedupe by cursor alone, ledgers by mark, and only keys of senders (webhooks, `id:`) go
through a table: a dedupe table under everything halves the rate.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final
from uuid import UUID

from eventflow.errors import OwnershipLost, RevisionChanged, SourceUnavailable
from eventflow.event import Record, encode_json
from eventflow.source import Batch, Known, Mark, Receipt
from eventflow.store.ownership import Claim
from eventflow.store.pool import Connection, is_alive

BEGIN: Final = "BEGIN; SELECT pg_advisory_xact_lock_shared(7310001)"
"""Lock and read of the revision are two statements: in one, the snapshot is older than the wait."""


@asynccontextmanager
async def batch_transaction(conn: Connection) -> AsyncGenerator[None]:
    """A transaction that holds the rule set's lock shared: `apply` waits for it, and it for `apply`."""
    await conn.execute(BEGIN)
    try:
        yield
    except BaseException:
        if is_alive(conn):
            await conn.execute("ROLLBACK")
        raise
    await conn.execute("COMMIT")


@asynccontextmanager
async def savepoint(conn: Connection) -> AsyncGenerator[None]:
    """Undo only this block when it raises; the transaction around it goes on."""
    await conn.execute("SAVEPOINT piece")
    try:
        yield
    except BaseException:
        if is_alive(conn):
            await conn.execute("ROLLBACK TO piece; RELEASE piece")
        raise
    await conn.execute("RELEASE piece")


ADVANCE: Final = """
UPDATE source_partition
SET cursor = coalesce($6, cursor), version = version + 1, batch_id = $7, unread = NULL,
    lease_until = clock_timestamp() + $8::interval
WHERE source = $1 AND partition = $2 AND owner = $3 AND epoch = $4 AND version = $5
  AND (SELECT coalesce(max(revision), 0) FROM ruleset) = $9
RETURNING clock_timestamp()
"""

WHY_NOT: Final = """
SELECT batch_id, (SELECT coalesce(max(revision), 0) FROM ruleset) AS revision
FROM source_partition WHERE source = $1 AND partition = $2 FOR NO KEY UPDATE
"""


class AlreadyCommitted(Exception):
    """The commit whose answer was lost did land: the batch is durable, acknowledge it."""


async def advance(conn: Connection, held: Claim, batch: Batch, lease: timedelta, revision: int) -> datetime:
    """Compare-and-set the position; the database's time of this batch.

    Raises `RevisionChanged`, `OwnershipLost`, or `AlreadyCommitted` where the row says that this very
    batch is the last one it took.
    """
    cursor = None if batch.cursor is None else encode_json(batch.cursor)
    now = await conn.fetchval(
        ADVANCE, held.source, held.partition, held.node, held.epoch, held.version,
        cursor, batch.id, lease, revision,
    )  # fmt: skip
    if now is not None:
        return now
    row = await conn.fetchrow(WHY_NOT, held.source, held.partition)
    if row is not None and row["batch_id"] == batch.id:
        raise AlreadyCommitted
    if row is not None and row["revision"] != revision:
        raise RevisionChanged(f"rule set revision {row['revision']} replaced {revision}")
    raise OwnershipLost(f"source '{held.source}' partition '{held.partition}': another node owns it now")


CHECK_REVISION: Final = """
SELECT clock_timestamp() AS now, (SELECT coalesce(max(revision), 0) FROM ruleset) AS revision
"""


async def check_revision(conn: Connection, revision: int) -> datetime:
    """The guard of eventflow's own batches: only the rule set must still be the one they match with."""
    row = await conn.fetchrow(CHECK_REVISION)
    assert row is not None
    if row["revision"] != revision:
        raise RevisionChanged(f"rule set revision {row['revision']} replaced {revision}")
    return row["now"]


CHECK_PUSHED: Final = """
SELECT clock_timestamp() AS now, (SELECT coalesce(max(revision), 0) FROM ruleset) AS revision,
       EXISTS (SELECT FROM source_partition WHERE source = $1 AND partition = '' AND state = 'paused')
           AS paused
"""


async def check_pushed(conn: Connection, source: str, revision: int) -> datetime:
    """The guard of what senders push: nor may a person have paused the source.

    Raises `RevisionChanged`, or `SourceUnavailable` where it is paused.
    """
    row = await conn.fetchrow(CHECK_PUSHED, source)
    assert row is not None
    if row["paused"]:
        raise SourceUnavailable(f"source '{source}' is paused")
    if row["revision"] != revision:
        raise RevisionChanged(f"rule set revision {row['revision']} replaced {revision}")
    return row["now"]


def item_key(item: bytes) -> bytes:
    """The ledger's key of an item: a 16-byte digest, because names may be longer than an index row."""
    return blake2b(item, digest_size=16).digest()


WRITE_MARKS: Final = """
INSERT INTO mark AS m (source, item_key, item, fingerprint, generation, present, seen)
SELECT $1, t.* , $7
FROM unnest($2::bytea[], $3::bytea[], $4::bytea[], $5::bigint[], $6::boolean[]) AS t
ORDER BY 2
ON CONFLICT (source, item_key) DO UPDATE
SET fingerprint = excluded.fingerprint, generation = excluded.generation,
    present = excluded.present, seen = excluded.seen
WHERE m.generation = excluded.generation - 1
RETURNING item_key
"""


async def write_marks(conn: Connection, source: str, marks: Sequence[Mark], now: datetime) -> set[int]:
    """Write the ledger's new rows; the indexes of records whose mark lost its compare-and-set.

    Items that lost are dropped: a stopped node would else make a phantom generation.
    """
    keys = [item_key(mark.item) for mark in marks]
    rows = await conn.fetch(
        WRITE_MARKS, source, keys,
        [mark.item for mark in marks], [mark.fingerprint for mark in marks],
        [mark.generation for mark in marks], [mark.present for mark in marks], now,
    )  # fmt: skip
    won = {row["item_key"] for row in rows}
    return {
        mark.record
        for key, mark in zip(keys, marks, strict=True)
        if key not in won and mark.record is not None
    }


READ_MARKS: Final = """
SELECT item, fingerprint, generation, present FROM mark WHERE source = $1 AND item_key = ANY($2::bytea[])
"""


async def known(conn: Connection, source: str, items: Sequence[bytes]) -> Mapping[bytes, Known]:
    """What the ledger holds of `items`; unknown ones are absent."""
    rows = await conn.fetch(READ_MARKS, source, [item_key(item) for item in items])
    return {r["item"]: Known(r["fingerprint"], r["generation"], r["present"]) for r in rows}


PAGE_MARKS: Final = """
SELECT item_key, item, fingerprint, generation, present FROM mark
WHERE source = $1 AND item_key > $2 ORDER BY item_key LIMIT 5000
"""


async def known_page(
    conn: Connection, source: str, after: bytes
) -> tuple[list[tuple[bytes, Known]], bytes | None]:
    """5,000 rows of the ledger after key `after` (b"": the start), and where to go on (None: the end)."""
    rows = await conn.fetch(PAGE_MARKS, source, after)
    page = [(r["item"], Known(r["fingerprint"], r["generation"], r["present"])) for r in rows]
    return page, rows[-1]["item_key"] if len(rows) == 5000 else None


REMEMBER: Final = """
INSERT INTO dedupe AS d (source, key, event_uid, event_id, expires)
SELECT $1, t.key, t.uid, t.id, clock_timestamp() + $5::interval
FROM unnest($2::bytea[], $3::uuid[], $4::text[]) AS t(key, uid, id)
ORDER BY t.key
ON CONFLICT (source, key) DO UPDATE
SET event_uid = excluded.event_uid, event_id = excluded.event_id, expires = excluded.expires
WHERE d.expires <= clock_timestamp()
RETURNING key
"""

FIRST_EVENTS: Final = (
    "SELECT key, event_uid, event_id FROM dedupe WHERE source = $1 AND key = ANY($2::bytea[])"
)


async def duplicates(
    conn: Connection, source: str, batch: Batch, receipts: Sequence[Receipt | None]
) -> dict[int, Receipt]:
    """Which records repeat an earlier one, with the receipt that names the first; remembers the others.

    Rows go in sorted by key, else two nodes deadlock; the first event is read by a second statement,
    because the first one's snapshot is older than the wait for the other node's commit.
    """
    first: dict[bytes, int] = {}
    repeats: dict[int, bytes] = {}
    for index, record in enumerate(batch.records):
        if record.dedupe is None or receipts[index] is None:
            continue
        if first.setdefault(record.dedupe, index) != index:
            repeats[index] = record.dedupe
    if not first:
        return {}
    mine = [receipts[index] for index in first.values()]
    rows = await conn.fetch(
        REMEMBER, source, list(first),
        [r.uid for r in mine if r], [as_text(r.id) for r in mine if r], batch.dedupe_for,
    )  # fmt: skip
    won = {row["key"] for row in rows}
    repeats.update({index: key for key, index in first.items() if key not in won})
    if not repeats:
        return {}
    earlier = {
        row["key"]: Receipt(row["event_id"], row["event_uid"], duplicate=True)
        for row in await conn.fetch(FIRST_EVENTS, source, list(set(repeats.values())))
    }
    return {index: earlier[key] for index, key in repeats.items()}


def as_text(id_: str) -> str:
    """An id that Postgres takes: the record of one that it refuses is found when it is written."""
    return id_.encode(errors="backslashreplace").decode().replace("\x00", "\\x00")


def receipt(record: Record, uid: UUID) -> Receipt:
    """What the sender of a new record hears: the event's id, or the dead letter's."""
    return Receipt(getattr(record, "id", None) or str(uid), uid)
