"""ingest_commit: events from memory to COMMIT, beside a bare transaction that writes the same rows."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from bench import floors
from bench.figure import Figure
from eventflow.event import JSON, Event, decode_json, encode_json, new_uid
from eventflow.ingest import Ingest
from eventflow.revisions import Revisions
from eventflow.rulefile.connectors import find_connectors
from eventflow.source import Batch, Receipt
from eventflow.store import ownership, rulesets
from eventflow.store.pool import Pool, connect
from eventflow.store.signals import Signals

BATCH: Final = 1_000
BATCHES: Final = 30
ROUNDS: Final = 5
LEASE: Final = timedelta(seconds=30)


def rules(number: int = 100) -> str:
    """`number` rules of which one matches every tenth event."""
    blocks = [
        f"  r{n}: {{match: {{type: bench.event, data.kind: kind-{n}, data.rows: {{gte: 1}}}}, run: noop}}"
        for n in range(number)
    ]
    return "workflows:\n  noop: {tasks: {task: {shell: ['true']}}}\nrules:\n" + "\n".join(blocks) + "\n"


def payloads(batches: int, batch: int = BATCH) -> list[list[bytes]]:
    """Distinct 500-byte JSON payloads; every tenth is of a kind that a rule asks for."""
    return [[_payload(number * batch + n) for n in range(batch)] for number in range(batches)]


def _payload(n: int) -> bytes:
    kind = f"kind-{(n // 10) % 100}" if n % 10 == 0 else f"other-{n % 1000}"
    body = {
        "kind": kind, "rows": n % 5000 + 1, "region": ("eu", "us", "apac")[n % 3], "id": f"{n:012d}",
        "price": n / 7, "flag": n % 2 == 0, "path": f"landing/2026/11/{n % 28}/part-{n}.parquet",
        "tags": ["a", "b", str(n)], "owner": {"team": "data", "name": f"user-{n % 97}"},
    }  # fmt: skip
    short = encode_json(body)
    return encode_json(body | {"note": "x" * max(0, 500 - len(short) - 10)})


class MemorySource:
    """An ordered source over payloads in memory; decodes each record as a connector does."""

    def __init__(self, batches: Sequence[Sequence[bytes]]) -> None:
        self._batches = batches

    async def batches(self, partition: str, cursor: JSON) -> AsyncIterator[Batch]:
        """One batch for each list of payloads."""
        for number, raws in enumerate(self._batches):
            records = [
                Event(source="bench", id=f"{number}/{n}", type="bench.event", data=decode_json(raw), raw=raw)
                for n, raw in enumerate(raws)
            ]
            yield Batch(records, cursor=number + 1)

    async def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None:
        """Nobody waits."""


async def _ours(pool: Pool, ingest: Ingest, batches: Sequence[Sequence[bytes]]) -> float:
    node = new_uid()
    async with pool.acquire() as conn:
        claim = await ownership.claim(conn, "bench", str(node), node, LEASE, None)
    assert claim is not None
    source: Any = MemorySource(batches)
    started = time.perf_counter()
    await ingest.run_partition(source, claim)
    return sum(map(len, batches)) / (time.perf_counter() - started)


async def figures(url: str) -> list[Figure]:
    """Ours and both floors in turns, so that a neighbour on the machine disturbs all three alike."""
    async with await connect(url) as pool:
        with tempfile.TemporaryDirectory() as folder:
            revisions = Revisions(pool, find_connectors(), Path(folder))
            async with pool.acquire() as conn:
                await rulesets.apply(
                    conn, {"bench.yaml": rules().encode()}, folder=Path(folder), origin="bench",
                    code_version="0", take_over=True,
                )  # fmt: skip
            await revisions.refresh()
            ingest = Ingest(pool, LEASE, revisions, Signals("bench"))
            ours, floor, minimal = [], [], []
            now = datetime.now(UTC)
            await _ours(pool, ingest, payloads(3))
            for _ in range(ROUNDS):
                batches = payloads(BATCHES)
                async with pool.acquire() as conn:
                    floor.append(await floors.rate_of_batches(conn, batches, now, minimal=False))
                    minimal.append(await floors.rate_of_batches(conn, batches, now, minimal=True))
                ours.append(await _ours(pool, ingest, batches))
    mine, bare, least = (sorted(rates)[len(rates) // 2] for rates in (ours, floor, minimal))
    return [
        Figure("floor_over_minimal", bare, "events/s", least, bare / least),
        Figure("ingest_commit", mine, "events/s", bare, mine / bare),
    ]
