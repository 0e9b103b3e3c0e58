"""The `kafka` kind of task: publish one record.

    announce: {kafka: {bootstrap: "${secret.KAFKA}", topic: orders.v1, key: "${params.id}", value: {...}}}

At least once: an attempt whose answer was lost is followed by another. Both records bear the same header
`eventflow-idempotency-key`, by which consumers tell them from two.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)

from connectors.kafka.access import access
from connectors.kafka.config import Sasl, Text, Tls
from eventflow.errors import SourceUnavailable, TaskError
from eventflow.event import encode_json
from eventflow.task import Context

if TYPE_CHECKING:
    from connectors.kafka.publish import Publisher

IDEMPOTENCY_KEY: Final = "eventflow-idempotency-key"
MOST_KEPT: Final = 16
"""Producers kept open beside those that are sending."""

Scalar = StrictStr | StrictInt | StrictFloat | StrictBool


class PublishConfig(BaseModel):
    """A record, and the cluster that it is written to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bootstrap: Text | Annotated[list[Text], Field(min_length=1)]
    topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
    key: StrictStr | StrictInt | None = None
    value: Any
    format: Literal["json", "text", "bytes"] = "json"
    headers: dict[Annotated[str, Field(min_length=1)], Scalar] = Field(
        default_factory=dict[str, Scalar], examples=[{"kind": "order"}]
    )
    partition: Annotated[StrictInt, Field(ge=0)] | None = None
    sasl: Sasl | None = None
    tls: Annotated[bool, Field(strict=True)] | Tls = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.value is None and self.key is None:
            raise ValueError("`value: null` deletes what has its key, so it needs a `key`")
        if self.format != "json" and not isinstance(self.value, str | None):
            raise ValueError(f"`format: {self.format}` takes a `value` that is text")
        if IDEMPOTENCY_KEY in self.headers:
            raise ValueError(f"the header {IDEMPOTENCY_KEY} is written by itself")
        if isinstance(self.tls, Tls):
            for path in filter(None, (self.tls.ca, self.tls.cert, self.tls.key)):
                if not Path(path).is_absolute():
                    raise ValueError("paths below a task's `tls` are absolute: it may run on any node")
        self.content()
        return self

    def content(self) -> bytes | None:
        """The record's value; None for a tombstone. Raises `ValueError` where it is no base64."""
        if self.value is None:
            return None
        if self.format == "bytes":
            try:
                return base64.b64decode(self.value, validate=True)
            except (binascii.Error, ValueError):
                raise ValueError("`format: bytes` takes a `value` in base64") from None
        return _as_bytes(self.value) if self.format == "text" else encode_json(self.value)


@dataclass(slots=True)
class _Kept:
    """A producer, from when it begins to connect."""

    opening: asyncio.Task[Publisher]
    sending: int = 0


class KafkaTask:
    """Publishes; one producer for each cluster and login, kept for the next task.

    Guarantee: at least once. Written means that all replicas in sync have it (`acks=all`). Retries within one
    attempt write nothing twice (the producer is idempotent), another attempt may. Unit of parallelism: the
    task; records of one producer go out side by side.
    """

    Config: ClassVar[type[BaseModel]] = PublishConfig

    def __init__(self) -> None:
        self._kept: dict[object, _Kept] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def run(self, config: PublishConfig, ctx: Context, /) -> object:
        """Topic, partition, offset and timestamp of the record, the last in milliseconds since 1970."""
        try:
            from connectors.kafka.publish import NotPublished, Outgoing  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise TaskError(
                f"the kafka kind of task cannot be used: {error}; install eventflow[kafka]"
            ) from error
        headers = [(name, _as_bytes(value)) for name, value in config.headers.items()]
        record = Outgoing(
            topic=config.topic,
            key=None if config.key is None else _as_bytes(config.key),
            value=config.content(),
            headers=[*headers, (IDEMPOTENCY_KEY, ctx.idempotency_key.encode())],
            partition=config.partition,
        )
        cluster = self._cluster(config)
        kept = self._kept[cluster]
        kept.sending += 1
        try:
            # Shielded: others may be waiting for the same connection.
            publisher = await asyncio.shield(kept.opening)
            return asdict(await publisher.send(record))
        except (NotPublished, SourceUnavailable) as error:
            raise TaskError(f"kafka: {error}") from error
        finally:
            kept.sending -= 1
            self._tidy(cluster, kept)

    async def close(self) -> None:
        """End every producer, side by side."""
        for cluster, kept in list(self._kept.items()):
            self._drop(cluster, kept)
        if self._closing:
            await asyncio.wait(self._closing)

    def _cluster(self, config: PublishConfig) -> object:
        """The key of the producer for this cluster and login, which is there or on its way."""
        addresses = config.bootstrap if isinstance(config.bootstrap, str) else tuple(config.bootstrap)
        cluster = addresses, config.sasl, config.tls
        kept = self._kept.pop(cluster, None)
        if kept is None:
            opening = asyncio.create_task(_connected(config))
            opening.add_done_callback(lambda task: task.cancelled() or task.exception())
            kept = _Kept(opening)
        self._kept[cluster] = kept  # the last one is the one used last
        return cluster

    def _tidy(self, cluster: object, kept: _Kept) -> None:
        """Drop a producer that is of no more use, and the oldest idle ones of too many."""
        if kept.opening.done() and (_failed(kept.opening) or kept.opening.result().broken):
            self._drop(cluster, kept)
        idle = [(key, one) for key, one in self._kept.items() if not one.sending]
        for key, one in idle[: max(0, len(self._kept) - MOST_KEPT)]:
            self._drop(key, one)

    def _drop(self, cluster: object, kept: _Kept) -> None:
        if self._kept.get(cluster) is kept:
            del self._kept[cluster]
            closing = asyncio.create_task(_closed(kept.opening))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


async def _connected(config: PublishConfig) -> Publisher:
    from connectors.kafka.publish import Publisher  # noqa: PLC0415 - an extra

    try:
        reached = await asyncio.to_thread(access, "", config, Path("/"), _as_it_stands)
    except SourceUnavailable as error:
        raise SourceUnavailable(str(error).partition(": ")[2]) from error
    return await Publisher.open(reached)


def _as_it_stands(name: str) -> str:
    """Secrets have been filled in: what looks like one now is part of a value."""
    return f"${{secret.{name}}}"


async def _closed(opening: asyncio.Task[Publisher]) -> None:
    opening.cancel()
    await asyncio.wait([opening])
    if not _failed(opening):
        await opening.result().close()


def _failed(opening: asyncio.Task[Publisher]) -> bool:
    return opening.cancelled() or opening.exception() is not None


def _as_bytes(value: Scalar) -> bytes:
    """Text as it is, anything else as JSON."""
    return value.encode() if isinstance(value, str) else encode_json(value)
