"""Webhooks from the socket to the run: real HTTP, real ingest, real Postgres."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from eventflow.api.app import App
from eventflow.api.server import serve_http
from eventflow.event import decode_json, new_uid
from eventflow.ingest import Ingest
from eventflow.revisions import Revisions
from eventflow.rulefile.connectors import find_connectors
from eventflow.rulefile.ruleset import SourceSpec
from eventflow.sources import Sources
from eventflow.store import audit, pauses, rulesets
from eventflow.store.pool import Pool, connect_once
from eventflow.store.signals import Signals
from tests.http_sender import Answer, Sender, post, wire

LEASE = timedelta(seconds=30)
SECRET = "between us"

RULES = """
sources:
  orders:
    connector: webhook
    verify: {scheme: hmac, header: X-Signature, secrets: ["${secret.TEST_HOOK}"]}
  open: {connector: webhook, verify: none, dedupe: 1h}
  bodies: {connector: webhook, verify: none, dedupe: {by: body, within: 10m}}
  named:
    connector: webhook
    verify: none
    id: headers["x-delivery"]
    type: '"order." + data.action'
    subject: data.order.ref
    time: data.at
    limit: 1KiB
workflows:
  load: {params: {n: json}, tasks: {load: {shell: ["true"]}}}
rules:
  hits: {match: {type: webhook.received, data.hit: true}, run: load, with: {n: "${event.data.n}"}}
  created: {from: named, match: {type: order.created, subject: {prefix: A}}, run: load, with: {n: 0}}
"""


@dataclass
class Node:
    """One node's HTTP front and sources on the test's database."""

    port: int
    pool: Pool
    app: App
    sources: Sources
    specs: Mapping[str, SourceSpec]

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        async with self.pool.acquire() as conn:
            return await conn.fetch(query, *args)  # type: ignore[arg-type]

    async def count(self, table: str) -> int:
        return int((await self.fetch(f"SELECT count(*) AS n FROM {table}"))[0]["n"])

    async def post(self, name: str, body: Any, headers: dict[str, str] | None = None) -> Answer:
        return await post(self.port, f"/hooks/{name}", body, headers)


@asynccontextmanager
async def running(pool: Pool, folder: Path, text: str = RULES) -> AsyncIterator[Node]:
    """A node as `service` puts it together, with sources and HTTP only."""
    async with pool.acquire() as conn:
        await rulesets.apply(
            conn, {"r.yaml": text.encode()}, folder=folder, origin="test", code_version="0", take_over=True
        )
    id_, app = new_uid(), App()
    signals, revisions = Signals(str(id_)), Revisions(pool, find_connectors(), folder / "code")
    ingest = Ingest(pool, LEASE, revisions, signals)
    async with asyncio.TaskGroup() as tasks:
        sources = Sources(pool, id_, LEASE, ingest, signals, app, tasks)
        specs = (await revisions.refresh()).sources
        await sources.reconcile(specs)
        async with serve_http(app, "127.0.0.1", 0, explicit=False) as server:
            yield Node(server.port, pool, app, sources, specs)
        await sources.stop()


@pytest.fixture
async def node(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setenv("TEST_HOOK", SECRET)
    async with running(pool, tmp_path) as one:
        yield one


async def test_an_authentic_request_is_an_event_and_starts_its_run(node: Node) -> None:
    body = b'{"n": 7, "hit": true}'
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-Signature": signature, "Authorization": "Bearer x", "X-Shop": "a"}
    answer = await post(node.port, "/hooks/orders?shop=7", body, headers)

    (event,) = await node.fetch("SELECT * FROM event")
    assert (event["id"], event["source"], event["type"]) == (answer.id, "orders", "webhook.received")
    assert (event["class"], bytes(event["data"])) == (b"m", body)
    meta = decode_json(event["attributes"])["meta"]
    assert (meta["query"], meta["remote"], meta["headers"]["x-shop"]) == ({"shop": "7"}, "127.0.0.1", "a")
    assert not {"authorization", "x-signature"} & set(meta["headers"])
    (run,) = await node.fetch("SELECT * FROM run")
    assert decode_json(run["params"]) == {"n": 7}


async def test_a_forged_request_leaves_nothing_behind(node: Node) -> None:
    assert (await node.post("orders", {"n": 1, "hit": True}, {"X-Signature": "0" * 64})).status == 401
    assert (await node.post("orders", {"n": 1, "hit": True})).status == 401
    assert await node.count("event") + await node.count("dead_letter") == 0


async def test_fifty_duplicates_at_once_are_one_event_and_all_hear_its_id(node: Node) -> None:
    headers = {"Idempotency-Key": "k-1"}
    answers = await asyncio.gather(*(node.post("open", {"n": n, "hit": True}, headers) for n in range(50)))
    assert {answer.id for answer in answers} == {"k-1"}
    assert (await node.count("event"), await node.count("run")) == (1, 1)
    (row,) = await node.fetch("SELECT taken, duplicates FROM source_partition WHERE source = 'open'")
    assert (row["taken"], row["duplicates"]) == (1, 49)
    assert (await node.post("open", {"n": 0}, {"Idempotency-Key": "k-2"})).id == "k-2"


async def test_the_same_body_twice_names_the_first_event(node: Node) -> None:
    answers = await asyncio.gather(*(node.post("bodies", {"n": 1, "hit": True}) for _ in range(50)))
    answers.append(await node.post("bodies", {"n": 1, "hit": True}))
    assert len({answer.id for answer in answers}) == 1
    assert (await node.count("event"), await node.count("run")) == (1, 1)
    assert (await node.post("bodies", {"n": 2})).id != answers[0].id


async def test_duplicates_on_two_nodes_are_one_event(node: Node, pool: Pool, tmp_path: Path) -> None:
    async with running(pool, tmp_path) as other:
        ports = [node.port, other.port]
        keys = [f"k{n}" for n in range(20)]
        answers = await asyncio.gather(
            *(
                post(port, "/hooks/open", {"n": 1, "hit": True}, {"Idempotency-Key": key})
                for _ in range(3)
                for port, order in zip(ports, (keys, keys[::-1]), strict=True)
                for key in order
            )
        )
    assert {answer.id for answer in answers} == set(keys)
    assert (await node.count("event"), await node.count("run")) == (20, 20)


async def test_a_forgotten_key_is_a_new_event(node: Node) -> None:
    for _ in range(2):
        assert (await node.post("open", {"n": 1}, {"Idempotency-Key": "k"})).id == "k"
        await node.fetch("UPDATE dedupe SET expires = now() - interval '1 s' RETURNING 1")
    assert await node.count("event") == 2


async def test_a_burst_of_a_thousand_is_a_thousand_runs_in_few_transactions(node: Node) -> None:
    async def send(numbers: range) -> list[Answer]:
        async with Sender.connected(node.port) as sender:
            for n in numbers:
                sender.write(wire("POST", "/hooks/open", json.dumps({"n": n, "hit": True}).encode()))
            return [await sender.answer() for _ in numbers]

    # 100 connections, ten requests in flight on each: all are sent before any is answered.
    answers = await asyncio.gather(*(send(range(start, start + 10)) for start in range(0, 1_000, 10)))
    assert len({answer.id for group in answers for answer in group}) == 1_000
    runs = await node.fetch("SELECT params FROM run")
    assert sorted(decode_json(run["params"])["n"] for run in runs) == list(range(1_000))
    (batches,) = await node.fetch("SELECT count(DISTINCT ingested) AS n FROM event")
    assert batches["n"] < 100


async def test_a_burst_on_connections_of_their_own(node: Node) -> None:
    answers = await asyncio.gather(*(node.post("open", {"n": n, "hit": True}) for n in range(1_000)))
    assert len({answer.id for answer in answers}) == 1_000
    assert await node.count("run") == 1_000


BROKEN = {
    "NUL": b'{"a": "\\u0000"}', "raw": b'{"a": "\x00"}', "NaN": b'{"a": NaN}', "half": b'"\\ud800"',
    "5,000 digits": b"9" * 5_000, "100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "latin-1": "é".encode("latin-1"), "utf-16": "{}".encode("utf-16"), "empty": b"", "cut off": b'{"a": ',
}  # fmt: skip


async def test_broken_bodies_are_202_and_dead_letters_with_their_bytes_beside_good_ones(node: Node) -> None:
    good = [json.dumps({"n": n, "hit": True}).encode() for n in range(10)]
    answers = await asyncio.gather(*(node.post("open", body) for body in [*BROKEN.values(), *good]))
    assert {answer.status for answer in answers} == {202}
    letters = {str(row["id"]): row for row in await node.fetch("SELECT * FROM dead_letter")}
    for answer, body in zip(answers, BROKEN.values(), strict=False):
        letter = letters.pop(answer.id)
        assert (letter["stage"], letter["source"], bytes(letter["raw"])) == ("decode", "open", body)
        assert letter["reason"]
    assert not letters
    assert await node.count("run") == 10
    async with node.pool.acquire() as conn:
        balances = {balance.source: balance for balance in await audit.balances(conn)}
    assert (balances["open"].taken, balances["open"].dead, balances["open"].missing) == (20, 10, 0)


async def test_a_broken_request_that_repeats_itself_is_one_dead_letter(node: Node) -> None:
    answers = [await node.post("open", b"{", {"Idempotency-Key": "k"}) for _ in range(3)]
    assert len({answer.id for answer in answers}) == 1
    assert await node.count("dead_letter") == 1


async def test_attributes_come_from_cel_over_body_headers_and_query(node: Node) -> None:
    body = {"action": "created", "order": {"ref": "A-7"}, "at": "2026-02-03T04:05:06Z"}
    answer = await node.post("named", body, {"X-Delivery": "d9"})
    assert (answer.id, (await node.post("named", body, {"X-Delivery": "d9"})).id) == ("d9", "d9")
    (event,) = await node.fetch("SELECT id, type, subject, attributes FROM event")
    assert (event["id"], event["type"], event["subject"]) == ("d9", "order.created", "A-7")
    assert decode_json(event["attributes"])["time"] == "2026-02-03T04:05:06Z"
    assert await node.count("run") == 1


@pytest.mark.parametrize("body", [{"action": 5}, {}, {"action": "created", "order": {}}, [1]])
async def test_an_attribute_that_cannot_be_told_is_a_dead_letter(node: Node, body: Any) -> None:
    await node.post("named", body, {"X-Delivery": "d9"})
    (letter,) = await node.fetch("SELECT stage, raw FROM dead_letter")
    assert (letter["stage"], json.loads(letter["raw"])) == ("decode", body)
    assert await node.count("event") == 0


async def test_a_source_has_a_limit_of_its_own(node: Node) -> None:
    assert (await node.post("named", b"1" + b" " * 1024)).status == 413
    assert (await node.post("open", b"1" + b" " * 1024)).status == 202


async def test_a_sender_that_left_is_taken_in_once_the_commit_goes_on(node: Node, database: str) -> None:
    blocker = await connect_once(database)
    try:
        await blocker.execute("BEGIN; LOCK TABLE event IN ACCESS EXCLUSIVE MODE")
        async with Sender.connected(node.port) as sender:
            sender.write(wire("POST", "/hooks/open", b'{"n": 1, "hit": true}'))
            await until_blocked(blocker)
            sender.abort()
        await blocker.execute("COMMIT")
        assert (await node.post("open", {"n": 1, "hit": False})).status == 202
    finally:
        await blocker.close()
    assert (await node.count("event"), await node.count("run")) == (2, 1)


async def test_a_killed_backend_is_503_and_the_repeat_is_one_event(node: Node, database: str) -> None:
    """Nobody knows whether it landed: the sender hears so, sends again, and its key makes that harmless."""
    headers = {"Idempotency-Key": "k"}
    blocker = await connect_once(database)
    try:
        await blocker.execute("BEGIN; LOCK TABLE event IN ACCESS EXCLUSIVE MODE")
        sending = asyncio.create_task(node.post("open", {"n": 1, "hit": True}, headers))
        await blocker.execute("SELECT pg_terminate_backend($1)", await until_blocked(blocker))
        answer = await sending
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
    finally:
        await blocker.close()
    assert [(await node.post("open", {"n": 1, "hit": True}, headers)).status for _ in range(2)] == [202, 202]
    assert (await node.count("event"), await node.count("run")) == (1, 1)


async def until_blocked(blocker: Any) -> int:
    """The backend that waits for `blocker`."""
    async with asyncio.timeout(10):
        while True:
            pid = await blocker.fetchval(
                "SELECT pid FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
            )
            if pid is not None:
                return int(pid)
            await asyncio.sleep(0.005)


async def test_a_source_that_is_configured_no_more_is_404(pool: Pool, tmp_path: Path) -> None:
    async with running(pool, tmp_path, "sources: {a: {connector: webhook, verify: none}}") as one:
        assert (await one.post("a", {})).status == 202
        assert one.app.mounted == ["a"]
    assert one.app.mounted == []


async def states(node: Node) -> dict[str, tuple[str, str | None]]:
    rows = await node.fetch("SELECT source, state, message FROM source_partition WHERE partition = ''")
    return {row["source"]: (row["state"], row["message"]) for row in rows}


async def until_state(node: Node, source: str, state: str) -> str | None:
    async with asyncio.timeout(10):
        while (found := (await states(node)).get(source, ("", None)))[0] != state:
            await asyncio.sleep(0.01)
    return found[1]


async def test_a_secret_that_is_not_set_is_said_in_sources_and_senders_hear_503(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_HOOK", raising=False)
    body = b'{"n": 1}'
    headers = {"X-Signature": hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}
    async with running(pool, tmp_path) as node:
        message = await until_state(node, "orders", "waiting")
        assert "TEST_HOOK" in str(message)
        assert (await node.post("orders", body, headers)).status == 503
        assert (await node.post("open", body)).status == 202
        monkeypatch.setenv("TEST_HOOK", SECRET)
        assert await until_state(node, "orders", "running") is None
        assert (await node.post("orders", body, headers)).status == 202


async def test_a_paused_webhook_answers_503_at_once_and_loses_nothing(node: Node) -> None:
    await until_state(node, "open", "running")
    async with node.pool.acquire() as conn:
        assert await pauses.pause(conn, "open") == 1
    await node.sources.reconcile(node.specs)
    answers = await asyncio.gather(*(node.post("open", {"n": n, "hit": True}) for n in range(20)))
    assert {(answer.status, answer.headers["retry-after"]) for answer in answers} == {(503, "5")}
    assert (await node.post("bodies", {"n": 1})).status == 202
    async with node.pool.acquire() as conn:
        assert await pauses.resume(conn, "open") == 1
    await node.sources.reconcile(node.specs)
    async with asyncio.timeout(10):
        while (await node.post("open", {"n": 99})).status != 202:
            await asyncio.sleep(0.01)
    answers = await asyncio.gather(*(node.post("open", {"n": n, "hit": True}) for n in range(20)))
    assert {answer.status for answer in answers} == {202}
    assert await node.count("run") == 20


async def test_a_webhook_that_is_paused_when_a_node_starts_stays_so(
    node: Node, pool: Pool, tmp_path: Path
) -> None:
    await until_state(node, "open", "running")
    async with pool.acquire() as conn:
        await pauses.pause(conn, "open")
    async with running(pool, tmp_path) as other:
        assert [(await other.post("open", {"n": n})).status for n in range(2)] == [503, 503]
        assert (await other.post("bodies", {"n": 1})).status == 202
    assert await node.count("event") == 1


async def test_while_postgres_is_away_senders_hear_503_soon_and_nothing_is_held_for_later(
    node: Node, database: str
) -> None:
    """W10: what is only in memory is lost with the process: the sender keeps it and repeats."""
    parts = urlsplit(database)
    name = parts.path[1:]
    admin: Any = await connect_once(parts._replace(path="/postgres").geturl())
    try:
        assert (await node.post("open", {"n": 0, "hit": True})).status == 202
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        async with asyncio.timeout(8):  # well before a request runs out of patience
            answers = await asyncio.gather(
                *(node.post("open", {"n": n}, {"Idempotency-Key": f"k{n}"}) for n in range(50))
            )
        assert {(answer.status, int(answer.headers["retry-after"]) > 0) for answer in answers} == {
            (503, True)
        }
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    finally:
        await admin.close()
    async with asyncio.timeout(30):
        while (await node.post("open", {"n": 0}, {"Idempotency-Key": "k0"})).status != 202:
            await asyncio.sleep(0.05)
    assert await node.count("event") == 2


async def test_a_batch_is_one_transaction_and_its_broken_member_a_dead_letter(node: Node) -> None:
    def event(id_: str, source: str, n: int) -> dict[str, Any]:
        attributes = {"specversion": "1.0", "id": id_, "source": source, "type": "webhook.received"}
        return attributes | {"data": {"n": n, "hit": True}}

    body = [event("1", "/a", 1), event("1", "/b", 2), {"specversion": "1.0"}, event("2", "/a", 3)]
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    answers = [await node.post("open", body, headers) for _ in range(2)]
    assert [answer.status for answer in answers] == [202, 202]
    ids, again = (json.loads(answer.body)["ids"] for answer in answers)
    assert ids == ["1", "1", ids[2], "2"]
    assert (again[:2], again[3]) == (ids[:2], ids[3])
    rows = await node.fetch("SELECT id, ingested, attributes FROM event ORDER BY uid")
    senders = [(row["id"], decode_json(row["attributes"])["sender"]) for row in rows]
    assert senders == [("1", "/a"), ("1", "/b"), ("2", "/a")]
    assert len({row["ingested"] for row in rows}) == 1
    assert await node.count("run") == 3
    letters = await node.fetch("SELECT id, raw FROM dead_letter ORDER BY created")
    assert [str(row["id"]) for row in letters] == [ids[2], again[2]]
    assert json.loads(letters[0]["raw"]) == {"specversion": "1.0"}
