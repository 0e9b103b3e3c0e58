"""eventflow's own events on their way back in: emits of rules, outcomes of runs, replays.

Put by the transaction that causes them; taken with SKIP LOCKED and deleted by the batch transaction that
takes them in. Never read by a cursor over ids, because commits arrive out of id order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from eventflow.event import Event
from eventflow.store.pool import Connection

# JSON and not msgpack, whose integers end at 64 bits: data may hold any that JSON can write.
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Event).decode


def encode_event(event: Event) -> bytes:
    """An event as one value, `raw` and `data` included; `decode_event` gives it back equal."""
    return _encode(event)


def decode_event(encoded: bytes) -> Event:
    """The inverse of `encode_event`."""
    return _decode(encoded)


PUT: Final = "INSERT INTO outbox (event) SELECT * FROM unnest($1::bytea[])"


async def put(conn: Connection, events: Sequence[Event]) -> None:
    """Hand events to whichever node takes them in; in the caller's transaction."""
    await conn.execute(PUT, [encode_event(event) for event in events])


BYTES_AT_ONCE: Final = 8 * 1024 * 1024

TAKE: Final = """
WITH locked AS MATERIALIZED (
    SELECT id, octet_length(event) AS size FROM outbox ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
), summed AS (
    SELECT id, sum(size) OVER (ORDER BY id) - size AS before FROM locked
), taken AS (
    DELETE FROM outbox
    WHERE id = ANY(ARRAY(SELECT id FROM summed WHERE before < $2))
    RETURNING id, event
)
SELECT event FROM taken ORDER BY id
"""


async def take(conn: Connection, limit: int) -> list[Event]:
    """Up to `limit` events that nobody else is taking, oldest first; gone when the transaction commits.

    No more once they come to 8 MiB.
    """
    return [decode_event(row["event"]) for row in await conn.fetch(TAKE, limit, BYTES_AT_ONCE)]
