"""The webhook source: an ASGI application on one side, batches on the other.

A request gets past, in this order: method (405), is anybody reading (503), announced size (413), room (429),
body (413 while reading), signature (401), rate (429). Then its records wait for the commit: 202, or 503.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import ClassVar

import structlog
from pydantic import BaseModel

from connectors.webhook import answers
from connectors.webhook.answers import Answer, Message, Receive, Scope, Send
from connectors.webhook.cloudevents import TooManyMembers
from connectors.webhook.config import WebhookConfig
from connectors.webhook.rate import TokenBucket
from connectors.webhook.record import DEFAULT_TYPE, NAMING, OWN_BODIES, Received, RecordMaker
from connectors.webhook.signature import make_verifier
from connectors.webhook.waiting import WaitingRoom
from eventflow.errors import SourceUnavailable
from eventflow.event import JSON, Broken, Event, Record
from eventflow.offers import Sends
from eventflow.source import Batch, Delivery, Receipt, SourceContext

log = structlog.get_logger()

PARTITION = ""

_ORIGIN = re.compile(rb"[A-Za-z0-9._:/-]{1,255}")


class Refused(Exception):
    """The body is not read to its end; `answer` says why."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__(answer.status)


class Disconnected(Exception):
    """The sender left before its body was whole: there is no event."""


class WebhookSource:
    """One webhook. Nothing is acknowledged before `committed`.

    Guarantee: a sender that repeats what was not answered 2xx, with an id, is taken in exactly once for as
    long as `dedupe:` says; without an id at least once. Every node serves every webhook: there is one
    partition, without an owner and without order, and nodes are the unit of parallelism.
    """

    Config: ClassVar[type[BaseModel]] = WebhookConfig
    delivery: ClassVar[Delivery] = Delivery.pushed

    def __init__(self, name: str, config: WebhookConfig, context: SourceContext) -> None:
        self._log = log.bind(source=name)
        self._limit = config.limit
        self._dedupe_for = config.dedupe.within
        self._verifier = make_verifier(config.verify, context.secret, context.now) if config.verify else None
        self._signature = self._verifier.header if self._verifier else None
        self._records = RecordMaker(name, config, self._signature, context.expression)
        self._room = WaitingRoom(largest=config.limit)
        self._bucket = TokenBucket(config.rate.limit, config.rate.per) if config.rate else None
        self._reading = 0

    @classmethod
    def sends(cls, config: WebhookConfig) -> Sends:
        """For `check`: without `type:` GitHub and Stripe send one type; CloudEvents bring their own."""
        scheme = config.verify.scheme if config.verify else None
        one_type = config.type is None and scheme in OWN_BODIES
        return Sends(frozenset({DEFAULT_TYPE}) if one_type else None, named=scheme in NAMING)

    async def origin(self) -> str | None:
        """Nothing to compare: senders come to us."""
        return None

    async def partitions(self) -> Sequence[str]:
        """One; requests have no order. Raises `SourceUnavailable` where a secret is not set."""
        if self._verifier is not None:
            self._verifier.keys.current()
        return (PARTITION,)

    async def batches(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        """Whatever waits, some 1,000 records at a time. `cursor` is None and stays so.

        Senders are answered 503 while nobody reads. Raises `SourceUnavailable` where a secret is not set.
        """
        try:
            if self._verifier is not None:
                self._verifier.keys.current()
            self._room.open()
            while True:
                taken = await self._room.next_requests()
                records = [record for waiter in taken for record in waiter.records]
                batch = Batch(records, dedupe_for=self._dedupe_for)
                self._room.hand_over(batch.id, taken)
                yield batch
        finally:
            self._room.close()

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
        headers = _headers(scope["headers"])
        if scope["method"] != "POST":
            return await self._other_method(scope["method"], headers, send)
        if not (self._room.is_open or await self._room.opens()):
            return await answers.CLOSED(send)
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
        if not await self._is_let_in(headers, body, send):
            return None
        client = scope.get("client")
        remote = client[0] if client else None
        return await self._take_in(Received(headers, scope["query_string"], remote, body), send)

    async def _other_method(self, method: str, headers: Mapping[bytes, bytes], send: Send) -> None:
        """Let a CloudEvents sender begin: it is the signature that counts, so any may.

        `WebHook-Request-Callback` is not called: nobody here decides later.
        """
        origin = headers.get(b"webhook-request-origin", b"")
        if method == "OPTIONS" and _ORIGIN.fullmatch(origin):
            return await answers.consent(send, origin, self._bucket.per_minute if self._bucket else None)
        return await answers.WRONG_METHOD(send)

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

    async def _is_let_in(self, headers: Mapping[bytes, bytes], body: bytes, send: Send) -> bool:
        """Whether it is authentic and not too much; if not, it has been answered."""
        if self._verifier is not None:
            try:
                authentic = self._verifier.authentic(headers, body)
            except SourceUnavailable as error:
                self._log.error("secret_unavailable", error=str(error))
                await answers.UNKNOWN(send)
                return False
            if not authentic:
                await (answers.UNKNOWN if self._verifier.keys.incomplete else answers.UNAUTHENTIC)(send)
                return False
        if self._bucket is not None and (seconds := self._bucket.take()):
            await answers.too_fast(send, seconds)
            return False
        if self._room.full:
            await answers.FULL(send)
            return False
        return True

    async def _take_in(self, received: Received, send: Send) -> None:
        try:
            made = self._records.records(received)
        except TooManyMembers:
            return await answers.TOO_MANY(send)
        if isinstance(made, Event | Broken):
            receipts = await self._room.wait((made,), len(received.body) + received.around())
            if receipts is None or receipts[0] is None:
                return await answers.UNKNOWN(send)
            return await answers.accept(send, receipts[0].id)
        return await self._take_in_batch(made, len(received.body) + len(made) * received.around(), send)

    async def _take_in_batch(self, records: Sequence[Record], size: int, send: Send) -> None:
        receipts = await self._room.wait(records, size) if records else ()
        if receipts is None:
            return await answers.UNKNOWN(send)
        return await answers.accept(send, [receipt.id for receipt in receipts if receipt])


def _headers(pairs: Sequence[tuple[bytes, bytes]]) -> Mapping[bytes, bytes]:
    """By name, in lower case as ASGI says; values of a name that comes twice are joined (RFC 9110, 5.3)."""
    headers = dict(pairs)
    if len(headers) == len(pairs):
        return headers
    joined: dict[bytes, bytes] = {}
    for name, value in pairs:
        joined[name] = joined[name] + b", " + value if name in joined else value
    return joined
