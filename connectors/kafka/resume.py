"""Where a stopped partition goes on, as a person decides."""

from __future__ import annotations

import time

from connectors.kafka.cluster import EARLIEST, LATEST, At, Cluster
from connectors.kafka.position import Position
from connectors.kafka.protocol import READ_COMMITTED, READ_UNCOMMITTED
from eventflow.errors import SourceUnavailable, UsageError
from eventflow.event import JSON
from eventflow.offers import Resumption


async def resume_at(cluster: Cluster, source: str, at: At, cursor: JSON, where: str) -> Resumption:
    """The position `where`, and what lies between: offsets of the old log where it is not the same any more.

    Raises `UsageError` where the log has no such offset, `SourceUnavailable` where nobody can tell.
    """
    topic, number = at
    layout = await cluster.layout(time.monotonic())
    begins = (await cluster.offsets(READ_UNCOMMITTED, {at: EARLIEST})).get(at)
    ends = (await cluster.offsets(READ_COMMITTED, {at: LATEST})).get(at)
    found = layout.topics.get(topic)
    if found is None or begins is None or ends is None:
        raise SourceUnavailable(f"source '{source}': {topic}/{number}: no broker leads it just now")
    offset = {"earliest": begins, "latest": ends}.get(where)
    if offset is None:
        if not (where.isascii() and where.isdigit() and begins <= int(where) <= ends):
            raise UsageError(
                f"source '{source}': {topic}/{number}: cannot go on at {where!r}: say earliest ({begins}), "
                f"latest ({ends}) or an offset from {begins} to {ends}"
            )
        offset = int(where)
    now = Position(offset, found.id, first=offset)
    return Resumption(now.cursor, _missing(at, None if cursor is None else Position.of(cursor), now, begins))


def _missing(at: At, old: Position | None, now: Position, begins: int) -> JSON:
    """What is passed over; None where nothing is. `to` None: nobody knows how far the old log went.

    Where the topic was made anew that is the rest of the old one, and what the new one has before `now`.
    """
    if old is None:
        return None
    missing: dict[str, JSON] = {"topic": at[0], "partition": at[1], "from": old.offset}
    if old.topic_id is not None and now.topic_id is not None and old.topic_id != now.topic_id:
        rest: JSON = {**missing, "to": None, "topic_id": str(old.topic_id)}
        if now.offset <= begins:
            return rest
        skipped = {"from": begins, "to": now.offset - 1, "topic_id": str(now.topic_id)}
        return [rest, {**missing, **skipped}]
    if now.offset > old.offset:
        return {**missing, "to": now.offset - 1}
    return None
