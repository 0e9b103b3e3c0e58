"""webhook_202: signed requests answered after their commit, beside a bare ASGI sink under the same load."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from typing import Final

from bench.figure import Figure
from bench.load import drive, running_sink
from bench.serving import serve
from eventflow.event import encode_json

SECRET: Final = "bench"
REQUESTS: Final = 2_000
HIT_EVERY: Final = 10
SIZE: Final = 500
ROUNDS: Final = 5
SECONDS: Final = 3.0
WARM_UP_SECONDS: Final = 2.0

RULES: Final = """
sources:
  bench:
    connector: webhook
    verify: {scheme: hmac, header: X-Signature, prefix: "sha256=", secrets: ["${secret.BENCH_SECRET}"]}
workflows:
  noop: {params: {number: int}, tasks: {task: {python: "noop:noop"}}}
rules:
  hits:
    from: bench
    match: {type: webhook.received, data.kind: hit}
    run: noop
    with: {number: "${event.data.number}"}
"""
NOOP: Final = "async def noop():\n    pass\n"


def payload(number: int, size: int = SIZE) -> bytes:
    """A JSON body of `size` bytes; `kind` is "hit" in every tenth, else "miss"."""
    kind = "miss" if number % HIT_EVERY else "hit"
    body = {"number": number, "kind": kind, "customer": {"id": number % 977, "vip": False}}
    short = len(encode_json(body | {"note": ""}))
    return encode_json(body | {"note": "x" * (size - short)})


def signed_request(path: str, body: bytes) -> bytes:
    """One request as it goes over the wire, signed with hex HMAC-SHA256."""
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"X-Signature: sha256={signature}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _rate(port: int, requests: list[bytes], seconds: float) -> float:
    load = await asyncio.to_thread(drive, "127.0.0.1", port, requests, seconds=seconds)
    if load.failed:
        raise RuntimeError(f"{load.failed} of {load.answered} requests were not answered 2xx")
    return load.rate


async def figures(url: str) -> list[Figure]:
    """Ours and the sink in turns; medians. Raises `ClientLimited` where the client was the limit."""
    requests = [signed_request("/hooks/bench", payload(number)) for number in range(REQUESTS)]
    ours, floor = [], []
    files = {"webhook.yaml": RULES, "noop.py": NOOP}
    with running_sink() as (_, sink):
        async with serve(url, files, {"BENCH_SECRET": SECRET}) as served:
            for port in (served.port, sink):
                await _rate(port, requests, WARM_UP_SECONDS)
            for _ in range(ROUNDS):
                floor.append(await _rate(sink, requests, SECONDS))
                ours.append(await _rate(served.port, requests, SECONDS))
    mine, bare = sorted(ours)[ROUNDS // 2], sorted(floor)[ROUNDS // 2]
    return [Figure("webhook_202", mine, "requests/s", bare, mine / bare)]
