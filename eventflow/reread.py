"""Events and dead letters read back from Postgres as the values they were when they arrived."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

from eventflow.errors import Undecodable
from eventflow.event import JSON, Broken, Event, Record, decode_json
from eventflow.matching.effects import Taken
from eventflow.rulefile.ruleset import RuleSet
from eventflow.source import Rereading, Source
from eventflow.sources import context_of
from eventflow.store.effects import Attributes, decode_attributes
from eventflow.store.pool import Connection, Pool
from eventflow.store.views import events as views


class Rereader:
    """Asks the sources of one rule set how stored bytes read; those that do not say are read as JSON."""

    def __init__(self, ruleset: RuleSet, pool: Pool) -> None:
        self._ruleset = ruleset
        self._pool = pool
        self._sources: dict[str, Source | None] = {}

    def record(self, source: str, raw: bytes, meta: Mapping[str, JSON]) -> Record | None:
        """The source's own record of these bytes; None where it does not say, or is configured no more."""
        if source not in self._sources:
            spec = self._ruleset.sources.get(source)
            made = spec and spec.factory(spec.name, spec.config, context_of(spec, self._pool))
            self._sources[source] = made or None
        found = self._sources[source]
        if not hasattr(found, "reread"):
            return None
        return cast("Rereading", found).reread(raw, meta)

    def data(self, source: str, raw: bytes, attributes: Attributes) -> JSON:
        """The decoded payload. Raises `Undecodable`."""
        record = self.record(source, raw, attributes.meta)
        if isinstance(record, Event):
            return record.data
        if isinstance(record, Broken) and raw:
            raise Undecodable(record.reason)
        return decode_json(raw)

    async def taken(self, conn: Connection, uid: UUID) -> Taken:
        """A stored event as the batch saw it. Raises `UsageError` where its row is gone."""
        row = await views.event(conn, uid)
        attributes = decode_attributes(row["attributes"])
        event = event_of(row["source"], row["id"], row["type"], row["subject"], attributes, row["data"],
                         self.data(row["source"], row["data"], attributes))  # fmt: skip
        return Taken(event, row["uid"], row["ingested"])


def event_of(
    source: str, id_: str, type_: str, subject: str | None, attributes: Attributes, raw: bytes, data: JSON
) -> Event:
    """Columns and attributes put together again."""
    fields: dict[str, Any] = {
        name: getattr(attributes, name)
        for name in (
            "time",
            "sender",
            "datacontenttype",
            "dataschema",
            "extensions",
            "meta",
            "lineage",
            "replayof",
        )
    }
    return Event(source=source, id=id_, type=type_, data=data, raw=raw, subject=subject, **fields)
