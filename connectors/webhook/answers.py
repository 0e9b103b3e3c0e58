"""What a sender may be told. Every answer but 202 is a constant, so that it gives nothing away."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
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
TOO_MANY = Answer(413, "too many events in one batch")
FULL = Answer(429, "too many requests are waiting", (b"retry-after", b"2"))
FULL_READING = Answer(
    429, "too many requests are being sent", (b"retry-after", b"2"), (b"connection", b"close")
)
CLOSED = Answer(503, "not taken in at the moment; send it again", (b"retry-after", b"5"))
UNKNOWN = Answer(503, "not stored, or nobody knows; send it again", (b"retry-after", b"1"))


async def accept(send: Send, event_id: str | Sequence[str]) -> None:
    """202: the event is durable, or all events of a batch, whose ids are then in its order."""
    text = _encode({"id": event_id} if isinstance(event_id, str) else {"ids": event_id})
    headers = (_JSON, (b"content-length", b"%d" % len(text)))
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": text})


async def too_fast(send: Send, seconds: float) -> None:
    """429: beyond `rate:`; there is room in `seconds`."""
    await Answer(429, "more than is allowed in this time", (b"retry-after", b"%d" % math.ceil(seconds)))(send)


async def consent(send: Send, origin: bytes, per_minute: int | None) -> None:
    """200 to a sender that asks before it sends (CloudEvents, http-webhook.md, 4.2). None: no limit."""
    rate = b"*" if per_minute is None else b"%d" % per_minute
    headers = (
        (b"allow", b"POST"),
        (b"webhook-allowed-origin", origin),
        (b"webhook-allowed-rate", rate),
        (b"content-length", b"0"),
    )
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


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
