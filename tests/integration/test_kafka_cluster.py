"""What the Kafka source says of a cluster that is away or refuses something."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from connectors.kafka.access import Access
from connectors.kafka.cluster import LATEST, Cluster
from connectors.kafka.ends import Ends
from connectors.kafka.lane import Lane
from eventflow.context import machine_time
from eventflow.errors import SourceUnavailable
from tests.kafka_mock import MockCluster


@pytest.fixture
def mock() -> Iterator[MockCluster]:
    with MockCluster() as cluster:
        cluster.topic("orders")
        yield cluster


def cluster(bootstrap: str) -> Cluster:
    return Cluster("orders", Access([bootstrap], {"security_protocol": "PLAINTEXT"}), ["orders"])


async def test_the_source_is_named_once_where_brokers_are_away() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(SourceUnavailable, match=f"^source 'orders': broker 127.0.0.1:{port}: ") as away:
        await cluster(f"127.0.0.1:{port}").layout(0)
    assert str(away.value).count("source 'orders'") == 1


@pytest.mark.parametrize(("code", "reason"), [(29, "TOPIC_AUTHORIZATION_FAILED"), (6, None)])
async def test_offsets_that_are_refused_for_good_are_said_and_harm_no_other_partition(
    mock: MockCluster, monkeypatch: pytest.MonkeyPatch, code: int, reason: str | None
) -> None:
    """Leaders that have just moved are not said: the next answer may have them."""
    asked = Lane.ask

    async def ask(self: Lane, broker: Any, request: Any) -> Any:
        answer = await asked(self, broker, request)
        if type(request).__name__ == "OffsetRequest":  # the mock cluster fails whole answers only
            answer.topics = [
                (name, [(at, code, -1, -1) if at == 1 else (at, *rest) for at, *rest in partitions])
                for name, partitions in answer.topics
            ]
        return answer

    monkeypatch.setattr(Lane, "ask", ask)
    orders = cluster(mock.bootstrap)
    try:
        wanted = {("orders", number): LATEST for number in range(3)}
        found, refused = await orders.answers(0, wanted)
        assert found == {("orders", 0): 0, ("orders", 2): 0}
        ends = Ends(machine_time)
        note = (await ends.progress(orders, ("orders", 1), 0)).note or ""
        assert (await ends.progress(orders, ("orders", 2), 0)).lag == 0
        if reason is None:
            assert refused == {}
            assert note == "no broker leads it just now"
            assert await orders.offsets(0, wanted) == found
        else:
            assert reason in refused["orders", 1]
            assert reason in note
            with pytest.raises(SourceUnavailable, match=f"^source 'orders': orders/1: .*{reason}"):
                await orders.offsets(0, wanted)
    finally:
        await orders.close()
