"""What a webhook bounds: rates, bodies without end, headers, slow senders; and who may begin to send."""

from __future__ import annotations

import asyncio
import json
import resource
from datetime import timedelta
from pathlib import Path

import pytest

from connectors.webhook import rate as rate_module
from connectors.webhook.rate import TokenBucket
from eventflow.api import protocol, server
from eventflow.api.protocol import MAX_HEADERS
from eventflow.event import Broken, Event
from tests.http_sender import Sender, post, wire
from tests.integration.test_webhook_http import SIGNED, front, signed, until


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# ---------------------------------------------------------------------- rate


def test_a_bucket_lets_its_limit_through_at_once_and_the_rest_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(rate_module.time, "monotonic", lambda: now)
    bucket = TokenBucket(10, timedelta(seconds=2))
    assert [bucket.take() for _ in range(10)] == [0.0] * 10
    assert bucket.take() == pytest.approx(0.2)
    now += 0.4
    assert [bucket.take() > 0 for _ in range(3)] == [False, False, True]
    now += 3_600
    assert [bucket.take() > 0 for _ in range(11)] == [False] * 10 + [True]
    assert (bucket.per_minute, TokenBucket(1, timedelta(hours=1)).per_minute) == (300, 1)


async def test_beyond_its_rate_a_sender_hears_429_and_when_to_come_again() -> None:
    async with front(rate={"limit": 2, "per": "1h"}) as at:
        answers = [await post(at.port, "/hooks/hook", b"{}") for _ in range(4)]
        assert [answer.status for answer in answers] == [202, 202, 429, 429]
        assert 1_700 < int(answers[2].headers["retry-after"]) <= 1_800
        assert sum(len(batch.records) for batch in at.commits.batches) == 2


async def test_requests_that_nobody_signed_use_up_nobodys_rate() -> None:
    async with front(verify=SIGNED, rate={"limit": 1, "per": "1h"}) as at:
        for _ in range(5):
            assert (await post(at.port, "/hooks/hook", b"{}")).status == 401
        assert (await post(at.port, "/hooks/hook", b"{}", signed(b"{}"))).status == 202
        assert (await post(at.port, "/hooks/hook", b"{}", signed(b"{}"))).status == 429


# ---------------------------------------------------------------------- who asks before it sends


async def test_a_cloudevents_sender_that_asks_may_begin() -> None:
    asks = {"WebHook-Request-Origin": "eventgrid.azure.net", "WebHook-Request-Rate": "120",
            "WebHook-Request-Callback": "http://127.0.0.1:9/never-called"}  # fmt: skip
    async with front() as at, Sender.connected(at.port) as sender:
        sender.write(wire("OPTIONS", "/hooks/hook", headers=asks))
        answer = await sender.answer()
        assert (answer.status, answer.headers["webhook-allowed-origin"]) == (200, "eventgrid.azure.net")
        assert (answer.headers["webhook-allowed-rate"], answer.headers["allow"]) == ("*", "POST")
        sender.write(wire("OPTIONS", "/hooks/hook", headers={"WebHook-Request-Origin": "a b\x01"}))
        assert (await sender.answer()).status in (400, 405)
    async with front(rate={"limit": 10, "per": "1s"}) as at, Sender.connected(at.port) as sender:
        sender.write(wire("OPTIONS", "/hooks/hook", headers=asks))
        assert (await sender.answer()).headers["webhook-allowed-rate"] == "600"


# ---------------------------------------------------------------------- batches


def cloudevent(number: int) -> bytes:
    return json.dumps(
        {"specversion": "1.0", "id": str(number), "source": "/s", "type": "t", "data": number}
    ).encode()


BATCH = {"Content-Type": "application/cloudevents-batch+json"}


async def test_a_batch_is_answered_once_all_of_it_is_committed_and_names_each_event() -> None:
    async with front() as at:
        at.commits.automatic = False
        body = b"[" + b",".join([cloudevent(1), b"5", cloudevent(2)]) + b"]"
        sending = asyncio.create_task(post(at.port, "/hooks/hook", body, BATCH))
        batch = await at.commits.taken(0)
        assert [type(record) for record in batch.records] == [Event, Broken, Event]
        assert not sending.done()
        await at.commits.verdict.put(at.commits.committed)
        answer = await sending
        assert (answer.status, json.loads(answer.body)) == (202, {"ids": ["1", "letter", "2"]})


async def test_a_refused_batch_is_refused_as_a_whole_and_an_empty_one_is_nothing() -> None:
    async with front() as at:
        empty = await post(at.port, "/hooks/hook", b"[]", BATCH)
        assert (empty.status, json.loads(empty.body)) == (202, {"ids": []})
        at.commits.automatic = False
        sending = asyncio.create_task(
            post(at.port, "/hooks/hook", b"[" + cloudevent(1) + b"," + cloudevent(2) + b"]", BATCH)
        )
        await at.commits.taken(0)
        await at.commits.verdict.put(at.commits.refused)
        assert (await sending).status == 503
        assert at.source._room._waiting == 0


async def test_a_batch_is_never_cut_in_two_and_one_beyond_all_bounds_is_413() -> None:
    async with front() as at:
        at.commits.automatic = False
        first = asyncio.create_task(post(at.port, "/hooks/hook", b"0"))
        await at.commits.taken(0)
        bodies = [b"[" + b",".join(cloudevent(n) for n in range(k, k + 700)) + b"]" for k in (0, 700, 1400)]
        others = [asyncio.create_task(post(at.port, "/hooks/hook", body, BATCH)) for body in bodies]
        await until(lambda: at.source._room._waiting == 2_101)
        at.commits.automatic = True
        await at.commits.verdict.put(at.commits.committed)
        answers = await asyncio.gather(first, *others)
        assert [len(json.loads(answer.body).get("ids", "1")) for answer in answers] == [1, 700, 700, 700]
        assert [len(batch.records) for batch in at.commits.batches] == [1, 1_400, 700]
        assert (await post(at.port, "/hooks/hook", b"[" + b"1," * 10_000 + b"1]", BATCH)).status == 413


# ---------------------------------------------------------------------- without end


async def test_a_body_that_never_ends_is_cut_while_it_is_read_and_memory_stays_flat() -> None:
    """W6: 413 comes after the limit, not after the body; what still comes is dropped."""
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    async with front() as at:
        before = resident_bytes()
        async with Sender.connected(at.port) as sender:
            sender.write(b"POST /hooks/hook HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
            answer = asyncio.create_task(sender.answer())
            sent = 0
            while not answer.done() and sent < 64 << 20:
                sender.write(chunk)
                sent += len(chunk)
                await asyncio.sleep(0)
                await sender._writer.drain()
            assert (await answer).status == 413
            assert sent < 16 << 20
        assert resident_bytes() - before < 32 << 20
        assert (await post(at.port, "/hooks/hook", b"{}")).status == 202
        assert at.source._reading == 0


async def test_headers_are_bounded_in_number_too() -> None:
    async with front() as at:
        many = {f"X-{n}": "1" for n in range(MAX_HEADERS)}
        async with Sender.connected(at.port) as sender:
            sender.write(wire("POST", "/hooks/hook", b"{}", many))
            assert await sender._reader.readline() == b"HTTP/1.1 400 Bad Request\r\n"
        assert (await post(at.port, "/hooks/hook", b"{}", dict(list(many.items())[:100]))).status == 202
        assert len(at.commits.batches) == 1


# ---------------------------------------------------------------------- slow


async def test_2_000_slow_senders_do_not_keep_a_good_one_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """W7: half of them idle in their headers, half in their bodies; all are cut, the good one is answered."""
    slow, within = 2_000, 3.0
    monkeypatch.setattr(protocol.GuardedProtocol, "headers_within", within)
    monkeypatch.setattr(protocol.GuardedProtocol, "body_within", within)
    protocol.connections_allowed()  # raises this process's limit of open files, for our side of them too
    loop = asyncio.get_running_loop()
    async with front() as at:
        idle = [await asyncio.open_connection("127.0.0.1", at.port) for _ in range(slow)]
        for number, (_, writer) in enumerate(idle):
            part = wire("POST", "/hooks/hook", b"{", {"Content-Length": "9"})
            writer.write(part if number % 2 else part[:30])
        waited: list[float] = []
        while len(waited) < 20:
            began = loop.time()
            assert (await post(at.port, "/hooks/hook", b"{}")).status == 202
            waited.append(loop.time() - began)
        assert sorted(waited)[-2] < 0.5
        async with asyncio.timeout(30):
            ends = await asyncio.gather(*(reader.read(1) for reader, _ in idle), return_exceptions=True)
        assert all(end == b"" or isinstance(end, ConnectionResetError) for end in ends)
        for _, writer in idle:
            writer.close()
        assert (await post(at.port, "/hooks/hook", b"{}")).status == 202


def test_the_deadlines_and_bounds_of_the_front() -> None:
    assert (protocol.HEADERS_WITHIN, protocol.BODY_WITHIN) == (10.0, 30.0)
    assert (protocol.MAX_FRAMING, protocol.MAX_CONNECTIONS, server.BACKLOG) == (65_536, 16_384, 2_048)
