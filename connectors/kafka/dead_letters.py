"""`dead_letter_topic`: a copy of each dead letter of a Kafka source, as a record like the one that arrived.

value and key           the record's own, byte for byte
eventflow-id            the dead letter's id: `eventflow dlq show ID`
eventflow-stage         decode, match, start, task or run
eventflow-reason        one sentence or more, UTF-8
eventflow-source        the configured name
eventflow-position      {"topic": ..., "partition": ..., "offset": ...}
eventflow-rule          where it failed in one
"""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

from connectors.kafka.access import Access, access
from connectors.kafka.config import KafkaConfig
from connectors.kafka.publish import NotPublished, Outgoing, Publisher
from eventflow.errors import SourceUnavailable
from eventflow.event import JSON, encode_json
from eventflow.holes import fill
from eventflow.offers import DeadLetter
from eventflow.source import SourceContext

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_POSITION: Final = ("topic", "partition", "offset")


async def mirror(
    name: str, config: KafkaConfig, context: SourceContext, letters: Sequence[DeadLetter]
) -> Mapping[UUID, str]:
    """Write the copies; the letters that the topic will never take, with the reasons.

    All of them side by side first. Where that fails for one, a producer may not go on after it, so those that
    are not written go one by one. Raises `SourceUnavailable`.
    """
    topic = fill(config.dead_letter_topic or "", context.secret)
    reached = await asyncio.to_thread(access, name, config, context.folder, context.secret)
    try:
        async with _publisher(reached) as publisher:
            sent = await asyncio.gather(
                *(publisher.send(copy(topic, letter)) for letter in letters), return_exceptions=True
            )
        for outcome in sent:
            if isinstance(outcome, BaseException) and not isinstance(outcome, NotPublished):
                raise outcome
        unsent = [
            letter for letter, outcome in zip(letters, sent, strict=True) if isinstance(outcome, NotPublished)
        ]
        return await _one_by_one(reached, topic, unsent)
    except NotPublished as error:
        raise SourceUnavailable(f"source '{name}': dead_letter_topic: {error}") from error


async def _one_by_one(reached: Access, topic: str, letters: Sequence[DeadLetter]) -> dict[UUID, str]:
    """The letters that are refused, with the reasons; a new producer after each of them."""
    refused: dict[UUID, str] = {}
    rest = deque(letters)
    while rest:
        async with _publisher(reached) as publisher:
            while rest and not publisher.broken:
                if (reason := await _refusal(publisher, copy(topic, rest[0]))) is not None:
                    refused[rest[0].id] = reason
                rest.popleft()
    return refused


def copy(topic: str, letter: DeadLetter) -> Outgoing:
    """The record for one letter."""
    key = _key(letter.meta.get("key"))
    position = letter.position or {word: letter.meta.get(word) for word in _POSITION}
    headers: dict[str, bytes] = {
        "eventflow-id": str(letter.id).encode(),
        "eventflow-stage": letter.stage.encode(),
        "eventflow-reason": letter.reason.encode(),
        "eventflow-source": letter.source.encode(),
        "eventflow-position": encode_json(position),
    }
    if letter.rule is not None:
        headers["eventflow-rule"] = letter.rule.encode()
    # A tombstone without a key is nothing that a producer can write: its copy has an empty value.
    tombstone = not letter.raw and "tombstone" in letter.meta and key is not None
    return Outgoing(topic, key, None if tombstone else letter.raw, list(headers.items()))


def _key(shown: JSON) -> bytes | None:
    """The inverse of what stands in meta: text, or `{"base64": ...}`."""
    if isinstance(shown, dict):
        return base64.b64decode(cast("dict[str, Any]", shown)["base64"])
    return None if shown is None else str(shown).encode()


async def _refusal(publisher: Publisher, record: Outgoing) -> str | None:
    try:
        await publisher.send(record)
    except NotPublished as error:
        if not error.refused:
            raise
        return str(error)
    return None


@asynccontextmanager
async def _publisher(reached: Access) -> AsyncGenerator[Publisher]:
    """A producer for one lot: letters are rare, and nobody tells a source that it is no longer needed."""
    publisher = await Publisher.open(reached)
    try:
        yield publisher
    finally:
        await publisher.close()
