"""What a sender may be told. Every answer but 202 is a constant, so that it gives nothing away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import msgspec

Scope = MutableMapping[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LINGER = 2.0
"""Seconds for which the rest of a refused body is read and dropped: closed at once, the connection would be
reset and the sender would never see the answer."""

_JSON = (b"content-type", b"application/json")
_encode = msgspec.json.Encoder().encode


class Answer:
    """A response that never varies."""

    __slots__ = ("body", "start", "status")

    def __init__(self, status: int, error: str, *headers: tuple[bytes, bytes]) -> None:
        text = _encode({"error": error})
        length = (b"content-length", str(len(text)).encode())
        self.status = status
        self.start: Message = {
            "type": "http.response.start",
            "status": status,
            "headers": [_JSON, length, *headers],
        }
        self.body: Message = {"type": "http.response.body", "body": text}

    async def __call__(self, send: Send) -> None:
        await send(self.start)
        await send(self.body)


UNAUTHENTIC = Answer(401, "not authentic")
WRONG_METHOD = Answer(405, "only POST", (b"allow", b"POST"))
TOO_LARGE = Answer(413, "the body is too large", (b"connection", b"close"))
FULL = Answer(429, "too many requests are waiting", (b"retry-after", b"2"))
FULL_READING = Answer(
    429, "too many requests are being sent", (b"retry-after", b"2"), (b"connection", b"close")
)
UNKNOWN = Answer(503, "not stored, or nobody knows; send it again", (b"retry-after", b"1"))


async def accept(send: Send, event_id: str) -> None:
    """202: the event is durable."""
    text = _encode({"id": event_id})
    headers = (_JSON, (b"content-length", b"%d" % len(text)))
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": text})


async def refuse_rest(answer: Answer, receive: Receive, send: Send) -> None:
    """Send `answer` at once, then read and drop what still comes, for `LINGER` seconds at most."""
    await send(answer.start)
    await send({**answer.body, "more_body": True})
    try:
        async with asyncio.timeout(LINGER):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    break
    except TimeoutError:
        pass  # the connection is closed all the same
    await send({"type": "http.response.body", "body": b""})
