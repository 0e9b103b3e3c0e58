"""The path of a batch: what one transaction writes, and every way it can be interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from eventflow.errors import OwnershipLost, SourceStopped
from eventflow.event import JSON, Broken, Event, Lineage, Record, decode_json, encode_json, new_uid
from eventflow.ingest import Ingest, Work
from eventflow.revisions import Revisions
from eventflow.rulefile.connectors import find_connectors
from eventflow.source import Batch, Mark, Receipt
from eventflow.store import nodes, outbox, ownership, rulesets
from eventflow.store.ownership import Claim
from eventflow.store.pool import Connection, Pool, connect_once
from eventflow.store.signals import Signals

LEASE = timedelta(seconds=30)

RULES = """
workflows:
  load:
    params: {n: json}
    tasks: {first: {shell: ["true"]}, second: {shell: ["true"], after: first}}
rules:
  hits:
    match: {type: test.record, data.hit: true}
    run: load
    with: {n: "${event.data.n}"}
  chain:
    match: {type: test.emit}
    emit: test.emitted
    with: {n: "${event.data.n}"}
  loops:
    match: {type: test.loop}
    emit: test.loop
    reentry: 16
"""


def event(n: JSON, *, type_: str = "test.record", hit: bool = True, **more: Any) -> Event:
    data = {"n": n, "hit": hit}
    return Event(source="list", id=f"{n}", type=type_, data=data, raw=encode_json(data), **more)


@dataclass
class ListSource:
    """An ordered source over batches given beforehand; notes what was acknowledged."""

    pending: Sequence[Batch]
    acknowledged: list[Sequence[Receipt | None]] = field(default_factory=list)

    async def batches(self, partition: str, cursor: JSON) -> AsyncIterator[Batch]:
        for batch in self.pending:
            yield batch

    async def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None:
        self.acknowledged.append(receipts)


@dataclass
class Node:
    """One node's ingest over a pool, and what it has claimed."""

    pool: Pool
    id: UUID
    revisions: Revisions
    ingest: Ingest

    async def claim(self, source: str = "list", origin: str | None = None) -> Claim:
        async with self.pool.acquire() as conn:
            claim = await ownership.claim(conn, source, "0", self.id, LEASE, origin)
        assert claim is not None
        return claim

    async def take(self, claim: Claim, *records: Record, cursor: JSON = None) -> ListSource:
        source = ListSource([Batch(records, cursor=cursor)])
        await self.ingest.run_partition(source, claim)  # type: ignore[arg-type]
        return source

    async def push(self, *records: Record) -> list[Receipt | None]:
        return await self.ingest._commit(Work("list", "", Batch(records)))


async def apply_text(pool: Pool, text: str) -> int:
    async with pool.acquire() as conn:
        applied = await rulesets.apply(
            conn, {"r.yaml": text.encode()}, folder=Path("/"), origin="test", code_version="0", take_over=True
        )
    return applied.revision


async def make_node(pool: Pool, tmp_path: Path) -> Node:
    node = new_uid()
    revisions = Revisions(pool, find_connectors(), tmp_path / "code")
    await revisions.refresh()
    return Node(pool, node, revisions, Ingest(pool, LEASE, revisions, Signals(str(node))))


@pytest.fixture
async def node(pool: Pool, tmp_path: Path) -> Node:
    await apply_text(pool, RULES)
    return await make_node(pool, tmp_path)


async def count(pool: Pool, table: str) -> int:
    async with pool.acquire() as conn:
        return int(await conn.fetchval(f"SELECT count(*) FROM {table}"))  # type: ignore[arg-type]


async def fetch(pool: Pool, query: str, *args: Any) -> list[Any]:
    async with pool.acquire() as conn:
        return await conn.fetch(query, *args)  # type: ignore[arg-type]


async def test_a_batch_writes_events_firings_runs_root_tasks_and_its_cursor(node: Node) -> None:
    claim = await node.claim()
    source = await node.take(
        claim, event(1), event(2, hit=False), Broken("list", b"{", "no JSON"), cursor={"at": 3}
    )

    assert [r["class"] for r in await fetch(node.pool, "SELECT class FROM event ORDER BY id")] == [b"m", b"u"]
    (run,) = await fetch(node.pool, "SELECT * FROM run")
    assert decode_json(run["params"]) == {"n": 1}
    assert run["revision"] == node.revisions.current.revision
    assert [r["task"] for r in await fetch(node.pool, "SELECT task FROM task_run")] == ["first"]
    (firing,) = await fetch(node.pool, "SELECT * FROM firing")
    assert (firing["state"], firing["run_id"]) == ("admitted", run["id"])
    (letter,) = await fetch(node.pool, "SELECT * FROM dead_letter")
    assert (letter["stage"], bytes(letter["raw"]), letter["reason"]) == ("decode", b"{", "no JSON")
    (row,) = await fetch(node.pool, "SELECT * FROM source_partition WHERE partition = '0'")
    assert (decode_json(row["cursor"]), row["taken"], row["version"]) == ({"at": 3}, 3, 1)
    assert [r.id for r in source.acknowledged[0] if r][:2] == ["1", "2"]


async def test_nothing_is_acknowledged_when_the_transaction_fails(node: Node) -> None:
    claim = await node.claim()
    await node.claim()  # a second claim bumps the epoch: the first one is a zombie now
    source = ListSource([Batch([event(1)], cursor=1)])
    with pytest.raises(OwnershipLost):
        await node.ingest.run_partition(source, claim)  # type: ignore[arg-type]
    assert source.acknowledged == []
    assert await count(node.pool, "event") == 0
    assert await count(node.pool, "run") == 0


async def test_a_commit_whose_answer_was_lost_is_acknowledged_and_not_repeated(node: Node) -> None:
    claim = await node.claim()
    work = Work("list", "0", Batch([event(1)], cursor=1), replace(claim))
    first = await node.ingest._commit(work)
    again = await node.ingest._commit(work)  # the same batch, the version not moved on
    assert again == first
    assert await count(node.pool, "event") == 1
    assert await count(node.pool, "run") == 1


async def test_a_batch_survives_the_end_of_its_backend(node: Node) -> None:
    claim = await node.claim()
    batch = Batch([event(n) for n in range(10)], cursor=10)
    async with node.pool.acquire() as conn:
        blocker = conn.transaction()
        await blocker.start()
        await conn.execute("LOCK TABLE run IN ACCESS EXCLUSIVE MODE")
        running = asyncio.create_task(node.ingest._until_durable(batch, claim))
        victim = await blocked_backend(conn)
        await conn.execute("SELECT pg_terminate_backend($1)", victim)
        await blocker.rollback()
    receipts = await running
    assert len(receipts) == 10
    assert await count(node.pool, "run") == 10
    assert claim.epoch == 2


async def blocked_backend(conn: Connection) -> int:
    while True:
        pid = await conn.fetchval(
            "SELECT pid FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
        )
        if pid is not None:
            return int(pid)
        await asyncio.sleep(0.005)


async def test_a_stopped_owners_backend_is_ended_before_its_partition_is_taken(
    node: Node, tmp_path: Path, database: str
) -> None:
    stopped = new_uid()
    zombie = await connect_once(database, node=stopped)
    ended = asyncio.Event()
    zombie.add_termination_listener(lambda _: ended.set())
    assert await ownership.claim(zombie, "list", "0", stopped, timedelta(0), None)
    await zombie.execute("BEGIN")
    await zombie.execute("SELECT pg_advisory_xact_lock_shared(7310001)")
    await zombie.execute("UPDATE source_partition SET version = version + 1")

    claim = await asyncio.wait_for(node.claim(), 5)  # would wait for the row lock for ever
    assert claim.epoch == 2
    assert claim.version == 0
    await asyncio.wait_for(ended.wait(), 5)
    await apply_text(node.pool, RULES + "\n")  # and its shared lock on the rule set is gone


async def test_an_owner_whose_lease_runs_is_left_alone(node: Node, tmp_path: Path) -> None:
    await node.claim()
    other = await make_node(node.pool, tmp_path)
    async with node.pool.acquire() as conn:
        assert await ownership.claim(conn, "list", "0", other.id, LEASE, None) is None


async def test_a_position_of_another_origin_stops_the_source(node: Node) -> None:
    await node.claim(origin="cluster-a")
    with pytest.raises(SourceStopped, match=r"cluster-a.*cluster-b"):
        await node.claim(origin="cluster-b")


async def test_a_batch_is_matched_by_the_revision_it_commits_under(node: Node, database: str) -> None:
    claim = await node.claim()
    applier = await connect_once(database)
    await applier.execute("BEGIN")
    await applier.execute("SELECT pg_advisory_xact_lock(7310001)")
    running = asyncio.create_task(node.take(claim, event(1), cursor=1))
    await blocked_backend(applier)  # the batch waits for apply, with a rule set about to be replaced
    insert = "INSERT INTO ruleset (digest, origin, folder, code_version) VALUES ('d', 't', '/', '0')"
    revision = await applier.fetchval(insert + " RETURNING revision")
    await applier.execute("INSERT INTO ruleset_file VALUES ($1, 'r.yaml', $2)", revision, b"rules: {}")
    await applier.execute("COMMIT")
    await applier.close()
    await running
    assert node.revisions.current.revision == revision
    assert await count(node.pool, "event") == 1
    assert await count(node.pool, "run") == 0


async def test_a_refused_record_becomes_a_dead_letter_and_the_rest_commits(node: Node) -> None:
    claim = await node.claim()
    bad = Event(source="list", id="bad", type="test.record", subject="a\x00b", data=None, raw=b"null")
    worse = Event(source="list", id="worse", type="test.record", subject="\udc80", data=None, raw=b"null ")
    records = [event(n) for n in range(20)]
    source = await node.take(claim, *records[:7], bad, *records[7:15], worse, *records[15:], cursor=22)

    assert await count(node.pool, "event") == 20
    assert await count(node.pool, "run") == 20
    letters = await fetch(node.pool, "SELECT raw, reason FROM dead_letter ORDER BY raw")
    assert [bytes(row["raw"]) for row in letters] == [b"null", b"null "]
    assert all("Postgres refused" in row["reason"] for row in letters)
    assert len(source.acknowledged) == 1
    (row,) = await fetch(node.pool, "SELECT taken FROM source_partition WHERE partition = '0'")
    assert row["taken"] == 22


async def test_a_refused_outbox_event_is_neither_lost_nor_doubled(node: Node) -> None:
    bad = Event(source="list", id="bad", type="test.record", subject="a\x00b", data=None, raw=b"null")
    async with node.pool.acquire() as conn:
        await outbox.put(conn, [event(1), bad, event(2)])
    assert await node.ingest._take_outbox() == 3
    assert await node.ingest._take_outbox() == 0
    assert await count(node.pool, "event") == 2
    assert await count(node.pool, "dead_letter") == 1


@pytest.mark.parametrize("bad_id", ["a\x00b", "a\udc80b"])
async def test_an_id_that_is_no_text_for_postgres_harms_only_its_record(node: Node, bad_id: str) -> None:
    bad = Event(source="list", id=bad_id, type="test.record", data=None, raw=b"null", dedupe=b"bad")
    await node.push(event(1, dedupe=b"1"), bad, event(2, dedupe=b"2"))
    assert [r["id"] for r in await fetch(node.pool, "SELECT id FROM event ORDER BY id")] == ["1", "2"]
    assert await count(node.pool, "dead_letter") == 1
    (again,) = await node.push(bad)
    assert again
    assert again.duplicate


async def test_an_integer_of_any_size_passes_through_the_outbox(node: Node) -> None:
    async with node.pool.acquire() as conn:
        await outbox.put(conn, [event(10**99)])
    assert await node.ingest._take_outbox() == 1
    (run,) = await fetch(node.pool, "SELECT params FROM run")
    assert decode_json(run["params"]) == {"n": 10**99}
    await node.push(event(10**99, type_="test.emit"))
    assert await node.ingest._take_outbox() == 1
    (emitted,) = await fetch(node.pool, "SELECT data FROM event WHERE type = 'test.emitted'")
    assert decode_json(emitted["data"]) == {"n": 10**99}


async def test_marks_that_lost_their_compare_and_set_drop_their_records(node: Node) -> None:
    claim = await node.claim()

    def batch(generation: int, fingerprint: bytes, n: int) -> Batch:
        return Batch([event(n)], marks=[Mark(b"a.csv", fingerprint, generation, record=0)])

    await node.ingest.run_partition(ListSource([batch(1, b"x", 1), batch(2, b"y", 2)]), claim)  # type: ignore[arg-type]
    late = ListSource([batch(2, b"z", 3)])
    await node.ingest.run_partition(late, claim)  # type: ignore[arg-type]
    assert late.acknowledged == [[None]]
    assert [r["id"] for r in await fetch(node.pool, "SELECT id FROM event ORDER BY id")] == ["1", "2"]
    (mark,) = await fetch(node.pool, "SELECT * FROM mark")
    assert (mark["generation"], bytes(mark["fingerprint"])) == (2, b"y")


async def test_parallel_duplicates_are_one_event_and_all_hear_its_id(node: Node, tmp_path: Path) -> None:
    other = await make_node(node.pool, tmp_path)
    answers = await asyncio.gather(*(
        (node if n % 2 else other).push(event("x", dedupe=b"key")) for n in range(50)
    ))  # fmt: skip
    heard = [receipt for receipts in answers for receipt in receipts if receipt]
    assert len({receipt.uid for receipt in heard}) == 1
    assert sum(not receipt.duplicate for receipt in heard) == 1
    assert await count(node.pool, "event") == 1
    assert await count(node.pool, "run") == 1
    (row,) = await fetch(node.pool, "SELECT taken, duplicates FROM source_partition WHERE source = 'list'")
    assert (row["taken"], row["duplicates"]) == (1, 49)


async def test_two_nodes_with_the_same_keys_in_opposite_order_do_not_deadlock(
    node: Node, tmp_path: Path
) -> None:
    other = await make_node(node.pool, tmp_path)
    for n in range(20):
        records = [event(f"{n}-{i}", dedupe=f"{n}-{i}".encode()) for i in range(100)]
        await asyncio.gather(node.push(*records), other.push(*reversed(records)))
    assert await count(node.pool, "event") == 2000
    (row,) = await fetch(
        node.pool, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    assert row["deadlocks"] == 0


async def test_senders_hear_of_a_source_that_is_stopped_before_their_commit(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()
    refused: list[Batch] = []

    class Pushed(ListSource):
        async def refused(self, batch: Batch, error: Exception) -> None:
            refused.append(batch)

    async def hang(_work: Work) -> list[Receipt | None]:
        begun.set()
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(node.ingest, "_take_in", hang)
    batch = Batch([event(1)])
    serving = asyncio.create_task(node.ingest.run_pushed("list", Pushed([batch])))  # type: ignore[arg-type]
    await begun.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert refused == [batch]


async def test_a_key_counts_again_after_its_time(node: Node) -> None:
    await node.push(event("x", dedupe=b"key"))
    await fetch(node.pool, "UPDATE dedupe SET expires = now() RETURNING 1")
    (receipt,) = await node.push(event("x", dedupe=b"key"))
    assert receipt
    assert not receipt.duplicate
    assert await count(node.pool, "event") == 2


async def test_repeats_inside_one_batch_are_duplicates(node: Node) -> None:
    receipts = await node.push(event("x", dedupe=b"k"), event("x", dedupe=b"k"), event("y", dedupe=b"l"))
    assert [r.duplicate for r in receipts if r] == [False, True, False]
    assert len({receipt.uid for receipt in receipts[:2] if receipt}) == 1


async def test_an_emitted_event_comes_back_in_with_its_lineage(node: Node) -> None:
    claim = await node.claim()
    await node.take(claim, event(7, type_="test.emit"), cursor=1)
    assert await node.ingest._take_outbox() == 1
    (row,) = await fetch(node.pool, "SELECT * FROM event WHERE source = 'eventflow'")
    assert (row["type"], row["subject"], decode_json(row["data"])) == ("test.emitted", "chain", {"n": 7})
    lineage = decode_json(row["attributes"])["lineage"]
    assert lineage["rules"] == ["chain"]
    assert lineage["depth"] == 1


async def test_a_chain_ends_at_depth_16_as_a_dead_letter(node: Node) -> None:
    claim = await node.claim()
    await node.take(claim, event(1, type_="test.loop"), cursor=1)
    while await node.ingest._take_outbox():
        pass
    (letter,) = await fetch(node.pool, "SELECT * FROM dead_letter")
    assert (letter["stage"], letter["rule"]) == ("start", "loops")
    assert "16" in letter["reason"]
    assert await count(node.pool, "event") == 17


async def test_two_nodes_take_each_outbox_event_once(node: Node, tmp_path: Path) -> None:
    other = await make_node(node.pool, tmp_path)
    async with node.pool.acquire() as conn:
        await outbox.put(conn, [event(n) for n in range(3000)])

    async def drain(one: Node) -> int:
        total = 0
        while taken := await one.ingest._take_outbox():
            total += taken
        return total

    assert sum(await asyncio.gather(drain(node), drain(other))) == 3000
    assert await count(node.pool, "event") == 3000
    assert await count(node.pool, "run") == 3000


async def test_an_id_longer_than_an_index_row_is_taken_in(node: Node) -> None:
    claim = await node.claim()
    await node.take(claim, event("x" * 5000), cursor=1)
    (row,) = await fetch(node.pool, "SELECT id FROM event")
    assert len(row["id"]) == 5000


async def test_lineage_survives_the_outbox(node: Node) -> None:
    lineage = Lineage(root="r", rules=("a", "b"), depth=2, firing="f")
    async with node.pool.acquire() as conn:
        await outbox.put(conn, [event(1, lineage=lineage)])
    await node.ingest._take_outbox()
    (row,) = await fetch(node.pool, "SELECT attributes FROM event")
    assert decode_json(row["attributes"])["lineage"]["rules"] == ["a", "b"]


async def test_apply_refuses_a_set_from_elsewhere_unless_told_to_take_over(pool: Pool) -> None:
    files = {"r.yaml": b"rules: {}"}

    async def apply(origin: str, *, take_over: bool) -> rulesets.Applied:
        async with pool.acquire() as conn:
            return await rulesets.apply(
                conn, files, folder=Path("/"), origin=origin, code_version="0", take_over=take_over
            )

    first = await apply("here:/a", take_over=False)
    assert (await apply("here:/a", take_over=False)) == rulesets.Applied(first.revision, changed=False)
    with pytest.raises(Exception, match=r"here:/a.*there:/b"):
        await apply("there:/b", take_over=False)
    assert (await apply("there:/b", take_over=True)).revision > first.revision


async def test_a_dead_nodes_row_and_backends_are_removed(node: Node, database: str) -> None:
    dead = new_uid()
    left_over = await connect_once(database, node=dead)
    gone = asyncio.Event()
    left_over.add_termination_listener(lambda _: gone.set())
    await nodes.beat(left_over, dead, "dead", timedelta(0))
    async with node.pool.acquire() as conn:
        assert await nodes.forget_dead(conn, timedelta(0)) == 1
    assert await count(node.pool, "node") == 0
    await asyncio.wait_for(gone.wait(), 5)
