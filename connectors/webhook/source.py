"""The webhook source: an ASGI application on one side, batches on the other.

A request gets past, in this order: method (405), announced size (413), room (429), body (413 while reading),
signature (401). Then its record waits for the commit: 202, or 503.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import ClassVar

import structlog
from pydantic import BaseModel

from connectors.webhook import answers
from connectors.webhook.answers import Answer, Message, Receive, Scope, Send
from connectors.webhook.config import WebhookConfig
from connectors.webhook.record import Received, RecordMaker
from connectors.webhook.signature import HmacVerifier
from connectors.webhook.waiting import WaitingRoom
from eventflow.errors import EventflowError
from eventflow.event import JSON, Record
from eventflow.source import Batch, Delivery, Receipt, Sends, SourceContext

log = structlog.get_logger()

PARTITION = ""


class Refused(Exception):
    """The body is not read to its end; `answer` says why."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__(answer.status)


class Disconnected(Exception):
    """The sender left before its body was whole: there is no event."""


class WebhookSource:
    """One webhook. Nothing is acknowledged before `committed`."""

    Config: ClassVar[type[BaseModel]] = WebhookConfig
    delivery: ClassVar[Delivery] = Delivery.pushed

    def __init__(self, name: str, config: WebhookConfig, context: SourceContext) -> None:
        self._log = log.bind(source=name)
        self._limit = config.limit
        self._dedupe_for = config.dedupe.within
        self._verifier = HmacVerifier(config.verify, context.secret) if config.verify else None
        self._signature = self._verifier.header if self._verifier else None
        self._records = RecordMaker(name, config, self._signature, context.expression)
        self._room = WaitingRoom(largest=config.limit)
        self._reading = 0

    @classmethod
    def sends(cls, config: WebhookConfig) -> Sends:
        """For `check`: without `type:` there is one type; what is in a body nobody knows."""
        return Sends(frozenset({"webhook.received"}) if config.type is None else None)

    async def origin(self) -> str | None:
        """Nothing to compare: senders come to us."""
        return None

    async def partitions(self) -> Sequence[str]:
        """One; requests have no order."""
        return (PARTITION,)

    async def batches(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        """Whatever waits, up to 1,000 requests at a time. `cursor` is None and stays so."""
        try:
            while True:
                taken = await self._room.next_requests()
                batch = Batch([waiter.record for waiter in taken], dedupe_for=self._dedupe_for)
                self._room.hand_over(batch.id, taken)
                yield batch
        finally:
            self._room.refuse_queued()

    async def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None:
        """Answer 202 to each sender, naming the event that stands for its request."""
        self._room.answer(batch.id, receipts)

    async def refused(self, batch: Batch, error: Exception) -> None:
        """Answer 503 to each sender: it sends again, and ids make that harmless."""
        self._room.refuse(batch.id)

    def reread(self, raw: bytes, meta: Mapping[str, JSON]) -> Record:
        """The record of a body that was kept: not every body is JSON."""
        return self._records.reread(raw, meta)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request to `/hooks/NAME`."""
        if scope["method"] != "POST":
            return await answers.WRONG_METHOD(send)
        headers = _headers(scope["headers"])
        if int(headers.get(b"content-length", 0)) > self._limit:  # digits only: the server has parsed it
            return await answers.refuse_rest(answers.TOO_LARGE, receive, send)
        if self._room.full:
            return await answers.FULL(send)
        try:
            body = await self._body(receive)
        except Refused as refused:
            return await answers.refuse_rest(refused.answer, receive, send)
        except Disconnected:
            return None
        return await self._take_in(scope, headers, body, send)

    async def _body(self, receive: Receive) -> bytes:
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            body = message.get("body", b"")  # nearly always: it came with the headers
            if len(body) > self._limit:
                raise Refused(answers.TOO_LARGE)
            return body
        return await self._long_body(message, receive)

    async def _long_body(self, message: Message, receive: Receive) -> bytes:
        """The rest of a body. All bodies being read together are bounded, so slow senders cost no memory."""
        body = bytearray()
        try:
            while message["type"] != "http.disconnect":
                part = message.get("body", b"")
                body += part
                self._reading += len(part)
                if len(body) > self._limit:
                    raise Refused(answers.TOO_LARGE)
                if not message.get("more_body", False):
                    return bytes(body)
                if self._reading > self._room.bytes_allowed:
                    raise Refused(answers.FULL_READING)
                message = await receive()
        finally:
            self._reading -= len(body)
        raise Disconnected

    async def _take_in(self, scope: Scope, headers: Mapping[bytes, bytes], body: bytes, send: Send) -> None:
        if self._verifier is not None:
            try:
                authentic = self._verifier.authentic(headers.get(self._verifier.header), body)
            except (EventflowError, LookupError, OSError, ValueError) as error:
                self._log.error("secret_unavailable", error=str(error))
                return await answers.UNKNOWN(send)
            if not authentic:
                return await answers.UNAUTHENTIC(send)
        if self._room.full:
            return await answers.FULL(send)
        client = scope.get("client")
        record = self._records.record(
            Received(headers, scope["query_string"], client[0] if client else None, body)
        )
        receipt = await self._room.wait(record, len(body))
        if receipt is None:
            return await answers.UNKNOWN(send)
        return await answers.accept(send, receipt.id)


def _headers(pairs: Sequence[tuple[bytes, bytes]]) -> Mapping[bytes, bytes]:
    """By name, in lower case as ASGI says; values of a name that comes twice are joined (RFC 9110, 5.3)."""
    headers = dict(pairs)
    if len(headers) == len(pairs):
        return headers
    joined: dict[bytes, bytes] = {}
    for name, value in pairs:
        joined[name] = joined[name] + b", " + value if name in joined else value
    return joined
