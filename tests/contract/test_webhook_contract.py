"""The webhook source keeps the contract, as the ASGI application that it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from connectors.webhook import WebhookSource
from connectors.webhook.config import WebhookConfig
from eventflow.event import Event
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
        return WebhookSource("hook", WebhookConfig.model_validate(self.words), context)

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
