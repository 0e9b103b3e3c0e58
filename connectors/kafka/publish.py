"""Records on their way out: an idempotent producer whose every record is acknowledged, or known not to be.

aiokafka's own waits are without end where a producer is idempotent: it tries until a broker takes the record.
Here each has a limit, and a producer that has met it is not used again: what it still holds would be written
after what comes later.
"""

# aiokafka's producer has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextvars import Context, ContextVar
from dataclasses import dataclass
from ssl import SSLError
from typing import Any, Final, cast

from aiokafka import AIOKafkaProducer
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    BrokerResponseError,
    InvalidTimestampError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    UnknownTopicOrPartitionError,
)

from connectors.kafka.access import Access

CONNECT_SECONDS: Final = 10.0
DELIVERY_SECONDS: Final = 30.0
FLUSH_SECONDS: Final = 0.5
_REQUEST_MILLISECONDS: Final = 10_000
_LARGEST: Final = 128 << 20
"""Of our own; the brokers have limits that only they know."""
_ITS_OWN_FAULT: Final = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidTimestampError)


_ours: Final = ContextVar("ours", default=False)


class _NotOurs(logging.Filter):
    """Keeps what aiokafka logs of our producers out of every log: ten lines a second where a broker is away.

    They name addresses, which may be secrets; what they say is in the error that we raise.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return not _ours.get()


# A filter of one logger is not asked about what its children log.
for _name in ("", ".cluster", ".conn", ".producer.producer", ".producer.sender"):
    logging.getLogger(f"aiokafka{_name}").addFilter(_NotOurs())


def _apart() -> Context:
    """A context for a producer's own tasks, which outlive the one that opens it and are not of its log."""
    context = Context()
    context.run(_ours.set, True)
    return context


class NotPublished(Exception):
    """No broker has taken the record, or nobody knows whether one has. `refused`: none ever will."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        self.refused = refused
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to write. `value` None is a tombstone, which needs a key; `partition` None: by key, or any."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """Where the record stands. `timestamp` is in milliseconds since 1970, as the topic keeps it."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class Publisher:
    """One producer on the loop that opened it. `broken`: it must be closed, and another one opened."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self.broken = False

    @classmethod
    async def open(cls, access: Access) -> Publisher:
        """Connected, with a producer id. Raises `NotPublished`."""
        return await asyncio.create_task(cls._open(access), context=_apart())

    @classmethod
    async def _open(cls, access: Access) -> Publisher:
        options: dict[str, Any] = access.options
        producer = AIOKafkaProducer(
            bootstrap_servers=",".join(access.bootstrap), client_id="eventflow", acks="all",
            enable_idempotence=True, request_timeout_ms=_REQUEST_MILLISECONDS, max_request_size=_LARGEST,
            **options,
        )  # fmt: skip
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await producer.start()
        except BaseException as error:
            await producer.stop()
            if isinstance(error, KafkaConnectionError | TimeoutError | OSError):
                raise NotPublished(await _why_not(access)) from error
            if isinstance(error, KafkaError):
                raise NotPublished(f"the brokers do not let us in: {_said(error)}") from error
            raise
        return cls(producer)

    async def send(self, record: Outgoing) -> Written:
        """Write one record; returns when every replica in sync has it. Raises `NotPublished`."""
        try:
            async with asyncio.timeout(DELIVERY_SECONDS):
                return await self._send(record)
        except TimeoutError as error:
            self.broken = True
            reason = f"no broker has confirmed the record within {DELIVERY_SECONDS:g} s"
            raise NotPublished(f"{reason}; it may be written all the same") from error
        except UnknownTopicOrPartitionError as error:
            raise NotPublished(f"there is no topic '{record.topic}'") from error
        except KafkaError as error:
            # Its sequence numbers may have a hole now, which the brokers answer with refusals.
            self.broken = True
            reason = f"topic '{record.topic}': {_said(error)}"
            raise NotPublished(reason, refused=isinstance(error, _ITS_OWN_FAULT)) from error

    async def _send(self, record: Outgoing) -> Written:
        if record.value is None and record.key is None:
            raise NotPublished("a record without a value needs a key", refused=True)
        known = await self._producer.partitions_for(record.topic)
        if record.partition is not None and record.partition not in known:
            reason = f"topic '{record.topic}' has {len(known)} partitions, and none is {record.partition}"
            raise NotPublished(reason)
        delivery = await self._producer.send(
            record.topic, record.value, record.key, record.partition, headers=list(record.headers)
        )
        done = cast(Any, await delivery)
        return Written(done.topic, done.partition, done.offset, done.timestamp)

    async def close(self) -> None:
        """Give what is on its way a moment, then end it."""
        stopping = asyncio.create_task(self._producer.stop(), context=_apart())
        await asyncio.wait([stopping], timeout=FLUSH_SECONDS)
        if not stopping.done():
            # `stop` waits for ever for what no broker takes: there is no public way to give that up.
            unsent: Any = self._producer._message_accumulator  # pyright: ignore[reportPrivateUsage]
            unsent.fail_all(KafkaTimeoutError())
            await self._producer.client.close()
            await asyncio.wait([stopping], timeout=FLUSH_SECONDS)
        stopping.cancel()


async def _why_not(access: Access) -> str:
    """Why none of the addresses would do, which a producer logs and does not say. No address is named."""
    for host, port, _ in cast("list[tuple[str, int, object]]", collect_hosts(access.bootstrap)):
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await create_conn(
                    host, port, request_timeout_ms=_REQUEST_MILLISECONDS, **access.options
                )
        except SSLError as error:
            return f"the brokers' TLS is not ours: {getattr(error, 'verify_message', None) or error.reason}"
        except BrokerResponseError as error:
            return f"the brokers do not let us in: {_said(error)}"
        except (OSError, EOFError, KafkaError):  # TimeoutError is an OSError
            continue
        connection.close()
    return "no broker answers"


def _said(error: KafkaError) -> str:
    """Its name, which is Kafka's: what it says beside may name what nobody shall read."""
    return type(error).__name__.removesuffix("Error")
