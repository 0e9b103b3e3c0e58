"""The webhook source keeps the contract, as the ASGI application that it is."""

from __future__ import annotations

import base64
import dataclasses
import hmac
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from connectors.webhook import WebhookSource
from connectors.webhook.config import WebhookConfig
from eventflow.event import Event, encode_json
from eventflow.source import Source, SourceContext
from eventflow.testing.source_contract import PushedSourceContract


async def status_of(source: Source, body: bytes, headers: Mapping[bytes, bytes]) -> int:
    """POST to this very instance."""
    assert isinstance(source, WebhookSource)
    sent: list[Mapping[str, Any]] = []

    async def receive() -> Mapping[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/hooks/hook", "query_string": b"",
             "headers": list(headers.items()), "client": ("10.0.0.1", 5000)}  # fmt: skip
    await source(scope, receive, send)
    return sent[0]["status"]


class TestWebhookContract(PushedSourceContract):
    words: ClassVar[Mapping[str, Any]] = {"verify": "none"}

    def make(self, context: SourceContext) -> Source:
        known = dataclasses.replace(context, secret=lambda name: "a secret of ours")
        return WebhookSource("hook", WebhookConfig.model_validate(self.words), known)

    async def push(self, source: Source, key: str) -> bool:
        body = f'{{"key": "{key}"}}'.encode()
        return await status_of(source, body, {b"idempotency-key": key.encode()}) == 202

    async def push_broken(self, source: Source) -> bytes | None:
        assert await status_of(source, b'{"key": ', {}) == 202
        return b'{"key": '

    def key_of(self, event: Event) -> str:
        return event.data["key"]


class TestWebhookContractWithAnExpression(TestWebhookContract):
    words: ClassVar[Mapping[str, Any]] = {
        "verify": "none",
        "id": "data.key",
        "subject": 'headers["idempotency-key"]',
    }


class TestWebhookContractByBody(TestWebhookContract):
    words: ClassVar[Mapping[str, Any]] = {"verify": "none", "dedupe": {"by": "body", "within": "10m"}}

    async def push(self, source: Source, key: str) -> bool:
        return await status_of(source, f'{{"key": "{key}"}}'.encode(), {}) == 202


def digest(content: bytes, key: bytes = b"a secret of ours") -> bytes:
    return hmac.digest(key, content, "sha256")


class TestWebhookContractAsGithub(TestWebhookContract):
    words: ClassVar[Mapping[str, Any]] = {"verify": {"scheme": "github", "secrets": ["${secret.S}"]}}

    def signed(self, body: bytes, key: str) -> Mapping[bytes, bytes]:
        signature = b"sha256=" + digest(body).hex().encode()
        return {b"x-hub-signature-256": signature, b"x-github-delivery": key.encode()}

    async def push(self, source: Source, key: str) -> bool:
        body = f'{{"key": "{key}"}}'.encode()
        return await status_of(source, body, self.signed(body, key)) == 202

    async def push_broken(self, source: Source) -> bytes | None:
        assert await status_of(source, b'{"key": ', self.signed(b'{"key": ', "broken")) == 202
        return b'{"key": '


class TestWebhookContractAsStandard(TestWebhookContractAsGithub):
    words: ClassVar[Mapping[str, Any]] = {"verify": {"scheme": "standard", "secrets": ["whsec_AAAA"]}}

    def signed(self, body: bytes, key: str) -> Mapping[bytes, bytes]:
        id_, stamp = key.encode(), str(int(time.time())).encode()
        signature = b"v1," + base64.b64encode(digest(b".".join([id_, stamp, body]), b"\0\0\0"))
        return {b"webhook-id": id_, b"webhook-timestamp": stamp, b"webhook-signature": signature}


class TestWebhookContractOfBatches(TestWebhookContract):
    """Each request is a batch of one CloudEvent."""

    async def push(self, source: Source, key: str) -> bool:
        event = {"specversion": "1.0", "id": key, "source": "/s", "type": "t", "data": {"key": key}}
        return await status_of(source, encode_json([event]), BATCH) == 202

    async def push_broken(self, source: Source) -> bytes | None:
        assert await status_of(source, b'[{"key": 1}]', BATCH) == 202
        return b'{"key": 1}'


BATCH = {b"content-type": b"application/cloudevents-batch+json"}
