"""Events and dead letters read back from Postgres as the values they were when they arrived."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

import msgspec

from eventflow.context import context_of
from eventflow.errors import Undecodable
from eventflow.event import JSON, Broken, Event, Record, decode_json, encode_json
from eventflow.matching.effects import Taken
from eventflow.revisions import Revisions
from eventflow.rulefile.ruleset import RuleSet
from eventflow.source import Rereading, Source
from eventflow.store.effects import Attributes, decode_attributes
from eventflow.store.pool import Connection, Pool
from eventflow.store.views import causes
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

    def as_json(self, source: str, raw: bytes, attributes: Attributes) -> bytes:
        """The decoded payload as JSON again; the bytes themselves where nobody can read them any more."""
        record = self.record(source, raw, attributes.meta)
        return encode_json(record.data) if isinstance(record, Event) else raw

    async def taken(self, conn: Connection, uid: UUID) -> Taken:
        """A stored event as the batch saw it. Raises `UsageError` where its row is gone."""
        row = await views.event(conn, uid)
        attributes = decode_attributes(row["attributes"])
        event = event_of(row["source"], row["id"], row["type"], row["subject"], attributes, row["data"],
                         self.data(row["source"], row["data"], attributes))  # fmt: skip
        return Taken(event, row["uid"], row["ingested"])


class CurrentData:
    """The data of stored events as JSON, as the sources of the current rule set read it: for tasks."""

    def __init__(self, revisions: Revisions, pool: Pool) -> None:
        self._revisions = revisions
        self._pool = pool
        self._read_with: RuleSet | None = None
        self._rereader = Rereader(revisions.current, pool)

    def __call__(self, source: str, raw: bytes, attributes: Attributes) -> bytes:
        """The bytes themselves where the source says nothing, or cannot read them any more."""
        if self._read_with is not self._revisions.current:
            self._read_with = self._revisions.current
            self._rereader = Rereader(self._read_with, self._pool)
        return self._rereader.as_json(source, raw, attributes)


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


async def shown(pool: Pool, known: Revisions, uid: UUID) -> dict[str, Any]:
    """Everything about one event: attributes, `data` decoded, `raw`, its `cause`, `set_off`, `dead_letters`.

    `raw_is` says how `raw` reads: `json` where it decodes, by the source that the event was matched with;
    else `text` or `hex`, and `data` is null. Raises `UsageError` where the event is gone.
    """
    async with pool.acquire() as conn:
        row = await views.event(conn, uid)
        attributes = decode_attributes(row["attributes"])
        cause = await causes.cause(conn, row["source"], row["type"], row["data"], attributes)
        set_off = await causes.set_off(conn, uid)
        letters = await views.letters_of(conn, uid)
    ruleset = await known.get(row["revision"]) if row["revision"] else known.current
    raw: bytes = row.pop("data")
    try:
        data, raw_is = Rereader(ruleset, pool).data(row["source"], raw, attributes), "json"
    except Undecodable:
        data, raw_is = None, "text" if _is_text(raw) else "hex"
    more = msgspec.to_builtins(attributes)
    kept = ("time", "sender", "datacontenttype", "dataschema", "extensions", "meta", "lineage", "replayof")
    return {
        **{name: value for name, value in row.items() if name != "attributes"},
        **{name: more.get(name) for name in kept},
        "data": data, "raw": raw, "raw_is": raw_is,
        "cause": cause, "set_off": set_off, "dead_letters": letters,
    }  # fmt: skip


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
