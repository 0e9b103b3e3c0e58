"""A database with a past, made the way the product makes one: batches, the outbox, finished task runs."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from eventflow.event import JSON, Broken, Event, Record, encode_json, new_uid
from eventflow.ingest import Ingest, Work
from eventflow.replay import Replay, Replayed
from eventflow.revisions import Revisions
from eventflow.rulefile.connectors import find_connectors
from eventflow.source import Batch, Receipt
from eventflow.store import dead_letters, outcomes, rulesets
from eventflow.store.finish import finish
from eventflow.store.pool import Pool, Row
from eventflow.store.signals import Signals
from eventflow.store.task_runs import claim
from eventflow.workflow.definition import Retry

LEASE = timedelta(seconds=30)
RULES = """
sources:
  web: {connector: webhook, verify: none}
  landing: {connector: file, path: landing, pattern: "{dataset}.csv", initial: process}
workflows:
  load:
    params: {n: json}
    tasks: {first: {shell: ["true"]}, second: {shell: ["true"], after: first}}
rules:
  hits:
    from: web
    match: {type: webhook.received, data.hit: true}
    run: load
    with: {n: "${event.data.n}"}
  also-hits:
    from: web
    match: {type: webhook.received, data.hit: true}
    where: event.data.n >= 100
    emit: web.big
    with: {n: "${event.data.n}"}
  strict:
    from: web
    match: {type: webhook.received, data.strict: true}
    where: event.data.amount > 10
    on_error: dead-letter
    run: load
    with: {n: "${event.data.amount}"}
  needy:
    from: web
    match: {type: webhook.received, data.needy: true}
    run: load
    with: {n: "${event.data.must}"}
"""


def event(n: JSON, **data: JSON) -> Event:
    data = {"n": n, **data}
    meta: dict[str, JSON] = {"headers": {"content-type": "application/json"}, "query": {}, "remote": None}
    return Event(
        source="web", id=f"e{n}", type="webhook.received", data=data, raw=encode_json(data), meta=meta
    )


def broken(raw: bytes = b'{"n": 1, "hit": true') -> Broken:
    meta: dict[str, JSON] = {"headers": {"content-type": "application/json"}, "query": {}, "remote": None}
    return Broken(source="web", raw=raw, reason="the JSON ends too early", position={"at": 7}, meta=meta)


class Flow:
    """One node's hands on one database, without its loops: every step happens when the test says so."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool = pool
        self.folder = folder
        self.revisions = Revisions(pool, find_connectors(), folder / "code")
        self.ingest = Ingest(pool, LEASE, self.revisions, Signals("test"))

    async def apply(self, text: str = RULES) -> int:
        async with self.pool.acquire() as conn:
            applied = await rulesets.apply(
                conn, {"r.yaml": text.encode()}, folder=self.folder, origin="test", code_version="0",
                take_over=True,
            )  # fmt: skip
        await self.revisions.refresh()
        return applied.revision

    async def push(self, *records: Record, source: str = "web") -> list[Receipt]:
        receipts = await self.ingest._commit(Work(source, "", Batch(records)))
        return [receipt for receipt in receipts if receipt]

    async def drain(self) -> int:
        """Take the outbox in until it is empty; how many events."""
        total = 0
        while taken := await self.ingest._take_outbox():
            total += taken
        return total

    async def finish_all(self, *, fail: str | None = None) -> None:
        """Run every task to its end; the one named `fail` fails."""
        worker = new_uid()
        rules = self.revisions.current
        while True:
            async with self.pool.acquire() as conn:
                claimed = await claim(conn, 100, worker, LEASE)
                if not claimed:
                    return
                ends = [
                    outcomes.failed(one, "it broke", Retry(), 0.5) if one.task == fail
                    else outcomes.succeeded(one, b'{"rows": 3}')
                    for one in claimed
                ]  # fmt: skip
                definitions = {(one.revision, one.workflow): rules.workflows[one.workflow] for one in claimed}
                await finish(conn, ends, definitions, rules.wants)

    async def letter(self) -> UUID:
        """The one dead letter that is open."""
        async with self.pool.acquire() as conn:
            (only,) = await dead_letters.open_ids(conn)
        return only

    async def replay(self, letter: UUID, **how: Any) -> Replayed:
        return await Replay(self.pool, self.revisions, **how).send(letter)

    async def fetch(self, query: str, *values: Any) -> list[Row]:
        async with self.pool.acquire() as conn:
            return await conn.fetch(query, *values)  # type: ignore[arg-type]

    async def count(self, table: str) -> int:
        (row,) = await self.fetch(f"SELECT count(*) AS n FROM {table}")
        return int(row["n"])


@pytest.fixture
async def flow(pool: Pool, tmp_path: Path) -> Flow:
    made = Flow(pool, tmp_path)
    await made.apply()
    return made
