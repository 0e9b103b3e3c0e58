"""The floor of event_to_task: INSERT + NOTIFY -> claimed, behind the same HTTP server.

`python -m bench.floor_app URL PORT`: POST inserts an event, a run and a task row and notifies, in one
statement; the listener claims the task row with SKIP LOCKED and stamps the moment.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import uvicorn
import uvloop

from bench.floors import CLAIM
from eventflow.event import new_uid
from eventflow.store.pool import Pool, connect, connect_once

INSERT = """
WITH taken AS (
    INSERT INTO event (uid, ingested, source, partition, id, type, class, data)
    VALUES ($1, $2, 'floor', '', $3, 'floor', 'u', $4)
), started AS (
    INSERT INTO run (id, workflow, revision, state, params, created)
    VALUES ($1, 'noop', 1, 'running', '{}', $2)
), readied AS (
    INSERT INTO task_run (run_id, task, state, due, priority) VALUES ($1, 'floor', 'ready', $2, 9)
)
SELECT pg_notify('floor', '')
"""
"""One statement, one commit, one round trip."""


class FloorApp:
    """The bare ASGI application."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool: Pool | None = None
        self._out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._news = asyncio.Event()
        self._sent: dict[UUID, bytes] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """GET is the health check; everything else is an event."""
        if scope["method"] == "GET":
            await self._answer(send, 200)
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body, more = body + message["body"], message.get("more_body", False)
        assert self._pool is not None
        uid, now = new_uid(), datetime.now(UTC)
        self._sent[uid] = body
        async with self._pool.acquire() as conn:
            await conn.execute(INSERT, uid, now, str(uid), body)
        await self._answer(send, 202)

    async def _answer(self, send: Any, status: int) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def claim_for_ever(self) -> None:
        """Claim on every notification; a claim that comes back is a task entered."""
        listener = await connect_once(self._url)
        await listener.add_listener("floor", lambda *_: self._news.set())
        claimer = await connect_once(self._url)
        while True:
            await self._news.wait()
            self._news.clear()
            rows = await claimer.fetch(CLAIM, 10)
            stamp = time.monotonic_ns()
            for row in rows:
                sent = json.loads(self._sent.pop(row["run_id"]))
                self._out.sendto(b"%d %d" % (sent["n"], stamp), ("127.0.0.1", sent["port"]))

    async def run(self, port: int) -> None:
        """Serve until SIGTERM."""
        self._pool = await connect(self._url)
        claiming = asyncio.create_task(self.claim_for_ever())
        await uvicorn.Server(uvicorn.Config(self, port=port, log_level="error", lifespan="off")).serve()
        claiming.cancel()


if __name__ == "__main__":
    uvloop.run(FloorApp(sys.argv[1]).run(int(sys.argv[2])))
