"""The HTTP front and the webhook source over real sockets; the test plays the transaction.

`Commits` takes batches as ingest does and commits when the test says so: that shows who hears what, when.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from connectors.webhook import WebhookSource, keys, waiting
from connectors.webhook.config import WebhookConfig
from eventflow.api.app import App
from eventflow.api.server import HttpServer, serve_http
from eventflow.context import machine_time
from eventflow.errors import SourceUnavailable
from eventflow.event import Broken, Event, new_uid
from eventflow.source import Batch, Receipt, SourceContext
from tests.http_sender import Answer, Sender, get, post, wire

SECRET = "s3cret"
SIGNED = {"scheme": "hmac", "header": "X-Signature", "prefix": "sha256=", "secrets": ["${secret.HOOK}"]}


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    return {"X-Signature": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


def context(secrets: dict[str, str] | None = None) -> SourceContext:
    def secret(name: str) -> str:
        if name not in (found := {"HOOK": SECRET} if secrets is None else secrets):
            raise SourceUnavailable(f"secret {name} is not set")
        return found[name]

    nothing: Any = None
    return SourceContext(Path("/"), nothing, nothing, secret, nothing, machine_time, nothing)


class Commits:
    """Stands where ingest stands. Every batch is committed at once, or waits for the test's verdict."""

    def __init__(self, source: WebhookSource) -> None:
        self._source = source
        self.batches: list[Batch] = []
        self.arrived = asyncio.Condition()
        self.verdict: asyncio.Queue[Callable[[Batch], Any]] = asyncio.Queue()
        self.automatic = True

    async def run(self) -> None:
        async with aclosing(self._source.batches("", None)) as batches:
            await self._each(batches)

    async def _each(self, batches: AsyncIterator[Batch]) -> None:
        async for batch in batches:
            async with self.arrived:
                self.batches.append(batch)
                self.arrived.notify_all()
            verdict = self.committed if self.automatic else await self.verdict.get()
            await verdict(batch)

    async def committed(self, batch: Batch) -> None:
        ids = [record.id if isinstance(record, Event) else "letter" for record in batch.records]
        await self._source.committed(batch, [Receipt(id_, new_uid()) for id_ in ids])

    async def refused(self, batch: Batch) -> None:
        await self._source.refused(batch, ConnectionError("Postgres is away"))

    async def taken(self, number: int) -> Batch:
        """The batch of that number, counted from 0, once ingest has it."""
        async with asyncio.timeout(10), self.arrived:
            await self.arrived.wait_for(lambda: len(self.batches) > number)
        return self.batches[number]


class Front:
    """A running front with one source, `hook`."""

    def __init__(self, server: HttpServer, app: App, source: WebhookSource, commits: Commits) -> None:
        self.port = server.port
        self.app = app
        self.source = source
        self.commits = commits
        self.reading = asyncio.create_task(commits.run())

    async def pause(self) -> None:
        """Stop reading, as `sources pause` does."""
        self.reading.cancel()
        await asyncio.gather(self.reading, return_exceptions=True)

    def resume(self) -> None:
        self.reading = asyncio.create_task(self.commits.run())


@asynccontextmanager
async def front(secrets: dict[str, str] | None = None, **words: Any) -> AsyncIterator[Front]:
    config = WebhookConfig.model_validate({"verify": "none", **words})
    source = WebhookSource("hook", config, context(secrets))
    app, commits = App(), Commits(source)
    app.mount("hook", source)
    async with serve_http(app, "127.0.0.1", 0, explicit=False) as server:
        running = Front(server, app, source, commits)
        try:
            yield running
        finally:
            await running.pause()


async def until(condition: Callable[[], bool]) -> None:
    """What happens inside the server has no signal to the outside: look until it has happened."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


# ---------------------------------------------------------------------- answers


async def test_a_request_is_answered_202_with_its_event_id_only_after_the_commit() -> None:
    async with front() as at:
        at.commits.automatic = False
        sending = asyncio.create_task(post(at.port, "/hooks/hook", {"a": 1}, {"Idempotency-Key": "k1"}))
        batch = await at.commits.taken(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not sending.done()
        await at.commits.verdict.put(at.commits.committed)
        answer = await sending
        assert (answer.status, answer.id) == (202, "k1")
        (event,) = batch.records
        assert isinstance(event, Event)
        assert (event.data, event.raw) == ({"a": 1}, b'{"a": 1}')


async def test_requests_that_come_while_one_commits_share_the_next_batch() -> None:
    async with front() as at:
        at.commits.automatic = False
        first = asyncio.create_task(post(at.port, "/hooks/hook", 0))
        await at.commits.taken(0)
        others = [asyncio.create_task(post(at.port, "/hooks/hook", n)) for n in range(1, 41)]
        await until(lambda: at.source._room._waiting == 41)
        at.commits.automatic = True
        await at.commits.verdict.put(at.commits.committed)
        answers = await asyncio.gather(first, *others)
        assert {answer.status for answer in answers} == {202}
        assert len({answer.id for answer in answers}) == 41
        assert [len(batch.records) for batch in at.commits.batches] == [1, 40]


async def test_every_forged_request_hears_the_same() -> None:
    body = b"{}"
    async with front(verify=SIGNED) as at:
        assert (await post(at.port, "/hooks/hook", body, signed(body))).status == 202
        forged = [
            {}, {"X-Signature": ""}, {"X-Signature": "sha256="}, {"X-Signature": "sha256=zz"},
            {"X-Signature": "sha256=" + "0" * 64}, signed(b"[]"), signed(body, "other"),
            {"X-Signature": signed(body)["X-Signature"].removeprefix("sha256=")}, {"X-Signature": "\xff\xfe"},
        ]  # fmt: skip
        answers = [await post(at.port, "/hooks/hook", body, headers) for headers in forged]
        answers.append(await post(at.port, "/hooks/hook", b"no JSON", {}))
        assert {(answer.status, answer.body) for answer in answers} == {(401, b'{"error":"not authentic"}')}
        assert len({tuple(sorted(set(answer.headers) - {"date"})) for answer in answers}) == 1
        assert len(at.commits.batches) == 1


async def test_a_missing_secret_lets_nobody_in_and_whoever_reads_hears_its_name() -> None:
    async with front(secrets={}, verify=SIGNED) as at:
        answer = await post(at.port, "/hooks/hook", b"{}", signed(b"{}"))
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        with pytest.raises(SourceUnavailable, match="HOOK"):
            await anext(at.source.batches("", None))


async def test_a_secret_that_is_taken_away_lets_nobody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "KEYS_AGE", 0.0)
    secrets = {"HOOK": SECRET}
    async with front(secrets=secrets, verify=SIGNED) as at:
        assert (await post(at.port, "/hooks/hook", b"{}", signed(b"{}"))).status == 202
        secrets.clear()
        answer = await post(at.port, "/hooks/hook", b"{}", signed(b"{}"))
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")


async def test_while_nobody_reads_a_sender_is_told_at_once_to_come_again() -> None:
    async with front() as at:
        assert (await post(at.port, "/hooks/hook", b"1")).status == 202
        await at.pause()
        began = asyncio.get_running_loop().time()
        answer = await post(at.port, "/hooks/hook", b"2")
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert asyncio.get_running_loop().time() - began < waiting.BEGINNING
        at.resume()
        assert (await post(at.port, "/hooks/hook", b"2")).status == 202
        assert [record.raw for batch in at.commits.batches for record in batch.records] == [b"1", b"2"]


async def test_requests_that_no_batch_has_taken_are_refused_when_reading_ends() -> None:
    async with front() as at:
        at.commits.automatic = False
        first = asyncio.create_task(post(at.port, "/hooks/hook", b"1"))
        await at.commits.taken(0)
        queued = asyncio.create_task(post(at.port, "/hooks/hook", b"2"))
        await until(lambda: at.source._room._waiting == 2)
        await at.pause()
        assert (await queued).status == 503
        await at.source.refused(at.commits.batches[0], ConnectionError("stopped"))  # as the core does
        assert (await first).status == 503


async def test_unknown_names_and_paths_are_404_and_other_methods_405() -> None:
    async with front() as at:
        for path in ("/hooks/other", "/hooks/", "/hooks", "/hooks/hook/", "/hooks/hook/more", "/", "/docs"):
            assert (await post(at.port, path, b"{}")).status == 404, path
        for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
            answer = await get(at.port, "/hooks/hook", method)
            assert (answer.status, answer.headers["allow"]) == (405, "POST"), method
        assert (await post(at.port, "/hooks/%68ook?a=1", b"{}")).status == 202
        at.app.unmount("hook")
        assert (await post(at.port, "/hooks/hook", b"{}")).status == 404


async def test_healthz_is_503_until_sources_run() -> None:
    async with front() as at:
        assert (await get(at.port, "/healthz")).status == 503
        at.app.ready = True
        assert (await get(at.port, "/healthz")).status == 200
        assert (await post(at.port, "/healthz")).status == 405


async def test_a_refused_batch_is_503_and_the_next_one_is_taken_in() -> None:
    async with front() as at:
        at.commits.automatic = False
        sending = asyncio.create_task(post(at.port, "/hooks/hook", b"{}"))
        await at.commits.taken(0)
        await at.commits.verdict.put(at.commits.refused)
        answer = await sending
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        await at.commits.verdict.put(at.commits.committed)
        assert (await post(at.port, "/hooks/hook", b"{}")).status == 202


async def test_a_commit_that_never_ends_is_503() -> None:
    async with front() as at:
        at.commits.automatic = False
        at.source._room._patience = 0.2
        assert (await post(at.port, "/hooks/hook", b"{}")).status == 503


async def test_beyond_the_places_it_is_429_and_there_is_room_again_later() -> None:
    async with front() as at:
        at.source._room._places = 3
        at.commits.automatic = False
        inside = [asyncio.create_task(post(at.port, "/hooks/hook", n)) for n in range(3)]
        await at.commits.taken(0)
        await until(lambda: at.source._room.full)
        answer = await post(at.port, "/hooks/hook", b"{}")
        assert answer.status == 429
        assert int(answer.headers["retry-after"]) > 0
        at.commits.automatic = True
        await at.commits.verdict.put(at.commits.committed)
        assert {got.status for got in await asyncio.gather(*inside)} == {202}
        assert (await post(at.port, "/hooks/hook", b"{}")).status == 202


def test_ten_thousand_may_wait() -> None:
    assert waiting.WaitingRoom()._places == 10_000


# ---------------------------------------------------------------------- bodies


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


async def send_chunked(port: int, body: bytes, size: int) -> Answer:
    async with Sender.connected(port) as sender:
        head = {"Transfer-Encoding": "chunked", "Content-Type": "application/json", "Host": "t"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        sender.write(f"POST /hooks/hook HTTP/1.1\r\n{lines}\r\n".encode() + chunked(body, size))
        return await sender.answer()


async def test_the_limit_is_1_mib_and_holds_for_chunked_bodies_too() -> None:
    fits = json.dumps("x" * ((1 << 20) - 2)).encode()
    async with front() as at:
        assert len(fits) == 1 << 20
        assert (await post(at.port, "/hooks/hook", fits)).status == 202
        assert (await post(at.port, "/hooks/hook", fits + b" ")).status == 413
        assert (await send_chunked(at.port, fits, 70_000)).status == 202
        assert (await send_chunked(at.port, fits + b" ", 70_000)).status == 413
        assert [len(batch.records) for batch in at.commits.batches] == [1, 1]


async def test_a_limit_of_ones_own_and_a_small_body_in_one_read() -> None:
    async with front(limit="1KiB") as at:
        assert (await post(at.port, "/hooks/hook", b"1" + b" " * 1023)).status == 202
        assert (await post(at.port, "/hooks/hook", b"1" + b" " * 1024)).status == 413
        assert (await send_chunked(at.port, b"1" + b" " * 1024, 2000)).status == 413
        assert (await send_chunked(at.port, b"[1, 2]", 1)).status == 202


async def test_an_announced_size_is_refused_before_the_body_is_sent() -> None:
    async with front(limit="1KiB") as at, Sender.connected(at.port) as sender:
        sender.write(
            wire("POST", "/hooks/hook", headers={"Content-Length": "5000", "Expect": "100-continue"})
        )
        assert (await sender.answer()).status == 413


async def test_a_body_is_asked_for_where_the_sender_waits_to_be() -> None:
    async with front() as at, Sender.connected(at.port) as sender:
        sender.write(wire("POST", "/hooks/hook", headers={"Content-Length": "2", "Expect": "100-continue"}))
        assert await sender._reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        sender.write(b"{}")
        assert (await sender.answer()).status == 202


async def test_a_compressed_body_is_kept_as_it_came() -> None:
    async with front() as at:
        body = gzip.compress(b"{}")
        assert (await post(at.port, "/hooks/hook", body, {"Content-Encoding": "gzip"})).status == 202
        (record,) = (await at.commits.taken(0)).records
        assert isinstance(record, Broken)
        assert (record.raw, record.reason) == (
            body, "Content-Encoding 'gzip' is not supported: send the body as it is",
        )  # fmt: skip
        assert (await post(at.port, "/hooks/hook", b"{}", {"Content-Encoding": "Identity"})).status == 202
        assert isinstance((await at.commits.taken(1)).records[0], Event)
        assert isinstance(at.source.reread(b'{"mended": 1}', record.meta), Event)


async def test_a_compressed_body_that_nobody_signed_is_not_kept() -> None:
    async with front({"HOOK": SECRET}, verify=SIGNED) as at:
        answer = await post(at.port, "/hooks/hook", gzip.compress(b"{}"), {"Content-Encoding": "gzip"})
        assert answer.status == 401


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: 2\r\nContent-Length: 3", "Content-Length: +2", "Content-Length: x",
        "Content-Length: 2\r\nTransfer-Encoding: chunked", "Content-Length: 99999999999999999999999",
    ],
)  # fmt: skip
async def test_a_length_in_doubt_is_no_request(head: str) -> None:
    async with front() as at, Sender.connected(at.port) as sender:
        sender.write(f"POST /hooks/hook HTTP/1.1\r\nHost: t\r\n{head}\r\n\r\n{{}}".encode())
        assert (await sender.answer()).status == 400
        assert at.commits.batches == []


async def test_a_sender_that_leaves_before_its_body_is_whole_has_sent_nothing() -> None:
    async with front() as at:
        async with Sender.connected(at.port) as sender:
            sender.write(wire("POST", "/hooks/hook", b'{"a": ', {"Content-Length": "9"}))
            await until(lambda: at.source._reading > 0)
            sender.abort()
        assert (await post(at.port, "/hooks/hook", {"b": 2})).status == 202
        assert [record.raw for batch in at.commits.batches for record in batch.records] == [b'{"b": 2}']
        assert at.source._reading == 0


async def test_a_sender_that_leaves_before_its_answer_has_sent_all_the_same() -> None:
    async with front() as at:
        at.commits.automatic = False
        async with Sender.connected(at.port) as sender:
            sender.write(wire("POST", "/hooks/hook", b"1"))
            await at.commits.taken(0)
            sender.abort()
        at.commits.automatic = True
        await at.commits.verdict.put(at.commits.committed)
        assert (await post(at.port, "/hooks/hook", b"2")).status == 202
        assert [len(batch.records) for batch in at.commits.batches] == [1, 1]
        assert at.source._room._waiting == 0


async def test_broken_bodies_are_taken_in_with_the_others() -> None:
    bad = [
        b'{"a": "\\u0000"}', b'{"a": NaN}', b'"\\ud800"', b"9" * 5_000, b"[" * 100_000 + b"]" * 100_000,
        "é".encode("latin-1"), "{}".encode("utf-16"), b"", b"{",
    ]  # fmt: skip
    async with front() as at:
        at.commits.automatic = False
        first = asyncio.create_task(post(at.port, "/hooks/hook", b"0"))
        await at.commits.taken(0)
        others = [asyncio.create_task(post(at.port, "/hooks/hook", body)) for body in [*bad, b"1"]]
        await until(lambda: at.source._room._waiting == len(bad) + 2)
        at.commits.automatic = True
        await at.commits.verdict.put(at.commits.committed)
        assert {got.status for got in await asyncio.gather(first, *others)} == {202}
        records = at.commits.batches[1].records
        assert sorted(record.raw for record in records if isinstance(record, Broken)) == sorted(bad)
        assert [record.raw for record in records if isinstance(record, Event)] == [b"1"]
