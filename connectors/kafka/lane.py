"""Connections to brokers, through aiokafka: its TLS, its SASL, its framing.

A broker works on one request of a connection at a time, and a fetch may wait there for seconds. So every
partition that is read has a `Lane` of its own, and short questions have another: nothing waits for what it
does not need, and nothing is read ahead of what is asked for.
"""

# aiokafka's connections have no types.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.conn import AIOKafkaConnection, collect_hosts, create_conn
from aiokafka.errors import BrokerResponseError, IncompatibleBrokerVersion, KafkaConnectionError, KafkaError

from connectors.kafka.access import Access
from connectors.kafka.patience import Passing
from eventflow.errors import SourceUnavailable

CONNECT_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 8.0
"""How long an answer may take; longer than any wait that is asked for."""
CLOSE_SECONDS: Final = 0.5

# Whatever goes wrong on a connection reaches us as the error of a request, and is said once, by us.
logging.getLogger("aiokafka.conn").setLevel(logging.CRITICAL)


class BrokerAway(Passing):
    """One broker does not answer; another may, or another may lead by now."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where a broker listens."""

    host: str
    port: int


class Lane:
    """Connections for one purpose, one to each broker that was asked."""

    def __init__(self, name: str, access: Access) -> None:
        self._name = name
        self._access = access
        self._connections: dict[Broker, AIOKafkaConnection] = {}
        self._opening: defaultdict[Broker, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def open(self) -> Collection[Broker]:
        """Brokers that a connection stands to."""
        return [broker for broker, connection in self._connections.items() if connection.connected()]

    async def ask(self, broker: Broker, request: Any) -> Any:
        """The answer. Raises `BrokerAway`, or `SourceUnavailable` where trying elsewhere is no use.

        A connection that stood already may be at its end without any trouble (`connections.max.reauth.ms`,
        idle for too long), perhaps all of them at one time: then the question is asked once more over a new
        one. Every request here may be repeated.
        """
        where = f"source '{self._name}': broker {broker.host}:{broker.port}"
        try:
            standing = self._connections.get(broker)
            if standing is not None and standing.connected():
                with suppress(KafkaConnectionError, ConnectionError, EOFError):
                    return await self._send(standing, request)
            return await self._send(await self._connection(broker), request)
        except (OSError, EOFError, KafkaError, NotImplementedError) as error:  # TimeoutError is an OSError
            reason = str(error) or type(error).__name__
            if isinstance(error, TimeoutError):
                reason = "no answer"
            if isinstance(error, IncompatibleBrokerVersion | NotImplementedError):
                raise SourceUnavailable(f"{where} is too old: Kafka 2.8 or later is needed") from error
            if isinstance(error, BrokerResponseError):  # authentication refused
                raise SourceUnavailable(f"{where} refuses us: {reason}") from error
            raise BrokerAway(f"{where}: {reason}") from error

    async def _send(self, connection: AIOKafkaConnection, request: Any) -> Any:
        """The answer, given once the broker listens again. After a failure the connection is closed.

        A broker that holds us to a quota answers at once, without records where it is bytes that are counted,
        and then reads nothing for `throttle_time_ms`: the next question would seem to have no answer.
        """
        try:
            answer = await connection.send(request)
        except BaseException:
            # Also when cancelled: what is still in the broker's hands would hold up the next question.
            connection.close()
            raise
        if throttled := getattr(answer, "throttle_time_ms", 0):
            await asyncio.sleep(throttled / 1000)
        return answer

    async def _connection(self, broker: Broker) -> AIOKafkaConnection:
        async with self._opening[broker]:
            connection = self._connections.get(broker)
            if connection is None or not connection.connected():
                async with asyncio.timeout(CONNECT_SECONDS):
                    connection = self._connections[broker] = await create_conn(
                        broker.host, broker.port, client_id="eventflow",
                        request_timeout_ms=int(ANSWER_SECONDS * 1000), **self._access.options,
                    )  # fmt: skip
            return connection

    async def close(self) -> None:
        """Close every connection, and wait a moment for the sockets."""
        closing = [closed for one in self._connections.values() if (closed := one.close()) is not None]
        self._connections.clear()
        if closing:
            await asyncio.wait(closing, timeout=CLOSE_SECONDS)


def given(access: Access) -> list[Broker]:
    """The addresses of the words, in any order; the port may be left out."""
    return [Broker(host, port) for host, port, _ in collect_hosts(access.bootstrap)]
