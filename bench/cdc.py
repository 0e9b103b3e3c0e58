"""cdc_commit: changes of a table from the slot to COMMIT, beside the bare stream decoded the same way."""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from struct import unpack_from
from typing import Any, Final

import psycopg
from psycopg import pq

from bench.figure import Figure
from connectors.postgres_cdc import PostgresCdcSource
from connectors.postgres_cdc.config import PostgresCdcConfig, TableConfig
from eventflow.event import JSON, decode_json, new_uid
from eventflow.garbage import collect_rarely
from eventflow.ingest import Ingest
from eventflow.revisions import Revisions
from eventflow.rulefile.connectors import find_connectors
from eventflow.source import Batch, Receipt
from eventflow.store import ownership, rulesets
from eventflow.store.pool import Pool, connect, connect_once
from eventflow.store.signals import Signals
from eventflow.testing.reading import Core

ROWS: Final = 50_000
A_TRANSACTION: Final = 100
ROUNDS: Final = 3
LEASE: Final = timedelta(seconds=60)
TABLE: Final = """
CREATE TABLE public.orders (
    id bigint PRIMARY KEY, kind text, rows int, region text, price float8, flag boolean, at timestamptz,
    doc jsonb, note text)
"""
# Ten of a hundred rows are of a kind that a rule asks for.
INSERT: Final = """
INSERT INTO public.orders
SELECT n, CASE WHEN n % 10 = 0 THEN 'kind-' || (n / 10) % 100 ELSE 'other-' || n % 1000 END, n % 5000 + 1,
       (ARRAY['eu', 'us', 'apac'])[n % 3 + 1], n / 7.0, n % 2 = 0, now(),
       jsonb_build_object('a', n, 'b', 'x'), repeat('x', 200)
FROM generate_series($1::int, $2::int) AS n
"""


# ---------------------------------------------------------------------- the floor


def _value(oid: int, value: bytes) -> JSON:
    """The value that an event would have: the same work, in the plainest way."""
    match oid:
        case 20 | 23:
            return int(value)
        case 16:
            return value == b"t"
        case 701:
            number = float(value)
            return number if math.isfinite(number) else value.decode()
        case 1184:
            return value.decode().replace(" ", "T", 1).removesuffix("+00") + "Z"
        case 3802:
            return decode_json(value)
        case _:
            return value.decode()


def _columns(message: bytes) -> list[tuple[str, int]]:
    at = message.index(0, message.index(0, 5) + 1) + 2
    (number,) = unpack_from(">H", message, at)
    at, columns = at + 2, []
    for _ in range(number):
        end = message.index(0, at + 1)
        columns.append((message[at + 1 : end].decode(), unpack_from(">I", message, end + 1)[0]))
        at = end + 9
    return columns


def _row(message: bytes, columns: Sequence[tuple[str, int]]) -> dict[str, JSON]:
    row, at = {}, 8
    for name, oid in columns:
        if message[at] == 0x74:
            end = at + 5 + int.from_bytes(message[at + 1 : at + 5], "big")
            row[name] = _value(oid, message[at + 5 : end])
            at = end
        else:
            row[name] = None
            at += 1
    return row


async def _bare(url: str, slot: str) -> float:
    """Read as many rows from the slot and make values of them; nothing is kept or confirmed."""
    conn = await psycopg.AsyncConnection.connect(url, autocommit=True, replication="database")
    pgconn, loop, seen = conn.pgconn, asyncio.get_running_loop(), 0
    columns: list[tuple[str, int]] = []
    transaction: dict[str, JSON] = {}
    try:
        pgconn.send_query(
            f'START_REPLICATION SLOT "{slot}" LOGICAL 0/0 '
            "(proto_version '1', publication_names '\"eventflow_bench\"')".encode()
        )
        while pgconn.is_busy():
            await _readable(loop, pgconn)
        result = pgconn.get_result()
        assert result is not None
        assert result.status == pq.ExecStatus.COPY_BOTH, result.get_error_message()
        started = 0.0
        while seen < ROWS:
            size, view = pgconn.get_copy_data(1)
            if size == 0:
                await _readable(loop, pgconn)
                continue
            if view[0] != 0x77:
                continue
            message = bytes(view[25:])
            if message[0] == 0x49:
                started = started or time.perf_counter()
                change = {"op": "c", "before": None, "after": _row(message, columns), **transaction}
                assert change["after"]
                seen += 1
            elif message[0] == 0x42:
                lsn, committed, xid = unpack_from(">qqi", message, 1)
                transaction = {"lsn": lsn, "ts_ms": committed // 1000 + 946_684_800_000, "xid": xid}
            elif message[0] == 0x52:
                columns = _columns(message)
        return ROWS / (time.perf_counter() - started)
    finally:
        await conn.close()


async def _readable(loop: asyncio.AbstractEventLoop, pgconn: pq.abc.PGconn) -> None:
    arrived = loop.create_future()
    loop.add_reader(pgconn.socket, lambda: arrived.done() or arrived.set_result(None))
    try:
        await arrived
    finally:
        loop.remove_reader(pgconn.socket)
    pgconn.consume_input()


# ---------------------------------------------------------------------- ours


def _rules(number: int = 100) -> bytes:
    """`number` rules, of which one matches every tenth row."""
    blocks = [
        f"  r{n}: {{match: {{type: row.inserted, data.after.kind: kind-{n}, data.after.rows: {{gte: 1}}}}, "
        "run: noop}"
        for n in range(number)
    ]
    head = "workflows:\n  noop: {tasks: {task: {shell: ['true']}}}\nrules:\n"
    return (head + "\n".join(blocks) + "\n").encode()


class Backlog:
    """The real source, until the backlog is through. The clock starts once the first position is stored."""

    def __init__(self, source: PostgresCdcSource) -> None:
        self._source = source
        self.started = 0.0

    async def batches(self, partition: str, cursor: JSON) -> AsyncIterator[Batch]:
        taken = 0
        async with aclosing(self._source.batches(partition, cursor)) as reading:
            while taken < ROWS:
                batch = await anext(reading)
                taken += len(batch.records)
                yield batch
                self.started = self.started or time.perf_counter()

    async def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None:
        await self._source.committed(batch, receipts)


async def _ours(pool: Pool, ingest: Ingest, source: PostgresCdcSource, name: str) -> float:
    async with pool.acquire() as conn:
        claim = await ownership.claim(conn, name, "0", new_uid(), LEASE, None)
    assert claim is not None
    backlog: Any = Backlog(source)
    await ingest.run_partition(backlog, claim)
    return ROWS / (time.perf_counter() - backlog.started)


async def figures(url: str) -> list[Figure]:
    """Both read the same backlog, in turns, each of ours from a slot of its own."""
    with tempfile.TemporaryDirectory() as folder:
        context = Core(Path(folder)).context()
        names = [f"bench{n}" for n in range(ROUNDS + 1)]
        sources = [
            PostgresCdcSource(
                name, PostgresCdcConfig(url=url, tables=[TableConfig(table="public.orders")], slot=name,
                                        publication="eventflow_bench"), context)
            for name in names
        ]  # fmt: skip
        conn = await connect_once(url)
        await conn.execute(TABLE)
        for source in sources:
            await source.prepare()
        for first in range(1, ROWS, A_TRANSACTION):
            await conn.execute(INSERT, first, first + A_TRANSACTION - 1)
        bare, ours = list[float](), list[float]()
        async with await connect(url) as pool:
            revisions = Revisions(pool, find_connectors(), Path(folder))
            async with pool.acquire() as store:
                await rulesets.apply(
                    store, {"bench.yaml": _rules()}, folder=Path(folder), origin="bench", code_version="0",
                    take_over=True,
                )  # fmt: skip
            await revisions.refresh()
            ingest = Ingest(pool, LEASE, revisions, Signals("bench"))
            collect_rarely()  # as `serve` does
            for name, source in zip(names[1:], sources[1:], strict=True):
                bare.append(await _bare(url, names[0]))
                ours.append(await _ours(pool, ingest, source, name))
        for name in names:
            await _drop(conn, name)
        await conn.close()
    mine, floor = sorted(ours)[ROUNDS // 2], sorted(bare)[ROUNDS // 2]
    return [Figure("cdc_commit", mine, "rows/s", floor, mine / floor)]


async def _drop(conn: Any, slot: str) -> None:
    """Once the server has noticed that its reader is gone."""
    while await conn.fetchval("SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1", slot):
        await asyncio.sleep(0.01)
    await conn.execute("SELECT pg_drop_replication_slot($1)", slot)
