"""TLS with an authority of our own, client certificates, SASL/PLAIN and SCRAM, alone and together."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final

import aiokafka.conn
import pytest
import pytest_asyncio
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from connectors.kafka import KafkaSource
from connectors.kafka.config import KafkaConfig
from connectors.kafka.patience import Passing, Patience
from connectors.kafka.task import KafkaTask, PublishConfig
from eventflow.errors import SourceUnavailable, TaskError
from eventflow.task import Context
from eventflow.testing.reading import Core, Reading
from tests.kafka.broker import Cluster, jars
from tests.kafka.conftest import numbered, send

_JAAS: Final = "org.apache.kafka.common.security"
ALICE: Final = {"username": "alice", "password": "${secret.ALICE}"}


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def certificates(folder: Path) -> None:
    """An authority, and from it one certificate for the broker and one, locked, for us."""
    openssl(
        folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
        "-days", "2", "-subj", "/CN=our own authority", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
    )  # fmt: skip
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1")
    for name, extensions in (("broker", ["-extfile", "san"]), ("us", [])):
        openssl(
            folder, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
            "-subj", f"/CN={name}",
        )  # fmt: skip
        openssl(
            folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "2", "-out", f"{name}.crt", *extensions,
        )  # fmt: skip
    openssl(folder, "pkcs8", "-topk8", "-nocrypt", "-in", "broker.key", "-out", "broker.pk8")
    openssl(folder, "rsa", "-in", "us.key", "-aes256", "-passout", "pass:opens", "-out", "locked.key")
    (folder / "broker.pem").write_text(
        (folder / "broker.pk8").read_text() + (folder / "broker.crt").read_text()
    )


@pytest_asyncio.fixture(scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[tuple[Cluster, Path]]:
    """A broker with a listener of each kind, and the certificates; topic `orders` holds 0 to 9."""
    folder = tmp_path_factory.mktemp("certificates")
    await asyncio.to_thread(certificates, folder)
    settings: dict[str, str] = {}
    for listener in ("tls", "both"):
        settings |= {
            f"listener.name.{listener}.ssl.keystore.type": "PEM",
            f"listener.name.{listener}.ssl.keystore.location": str(folder / "broker.pem"),
        }
    settings |= {
        "listener.name.tls.ssl.client.auth": "required",
        "listener.name.tls.ssl.truststore.type": "PEM",
        "listener.name.tls.ssl.truststore.location": str(folder / "ca.pem"),
    }
    for listener in ("sasl", "both", "expires"):
        at = f"listener.name.{listener}"
        settings |= {
            f"{at}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            f"{at}.plain.sasl.jaas.config": f'{_JAAS}.plain.PlainLoginModule required user_alice="wonder" '
            'user_bob="slow";',
            f"{at}.scram-sha-256.sasl.jaas.config": f"{_JAAS}.scram.ScramLoginModule required;",
            f"{at}.scram-sha-512.sasl.jaas.config": f"{_JAAS}.scram.ScramLoginModule required;",
        }
    settings |= {"listener.name.expires.connections.max.reauth.ms": "1200", "quota.window.num": "4"}
    listeners = {"EXPIRES": "SASL_PLAINTEXT", "TLS": "SSL", "SASL": "SASL_PLAINTEXT", "BOTH": "SASL_SSL"}
    async with Cluster(tmp_path_factory.mktemp("guarded"), listeners=listeners, settings=settings) as cluster:
        await asyncio.to_thread(add_alice, cluster.bootstrap)
        await cluster.create_topic("orders")
        await send(cluster, "orders", numbered(0, 9))
        yield cluster, folder


def add_alice(bootstrap: str) -> None:
    """SCRAM passwords are kept by the cluster."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
        wanted = UserScramCredentialUpsertion("alice", ScramCredentialInfo(mechanism, 4096), b"wonder")
        for done in admin.alter_user_scram_credentials([wanted]).values():
            done.result(20)


def orders(core: Core, guarded: tuple[Cluster, Path], listener: str, **words: Any) -> KafkaSource:
    given = {
        "bootstrap": guarded[0].address(listener), "topics": ["orders"], "initial": "earliest", **words,
    }  # fmt: skip
    return KafkaSource("orders", KafkaConfig.model_validate(given), core.context())


async def taken(source: KafkaSource, core: Core) -> int:
    async with Reading(source, core, deadline=20) as reading:
        return len(await reading.take(10))


async def test_a_client_certificate_opens_what_asks_for_one(
    guarded: tuple[Cluster, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths are relative to the rule file; the key's password is a secret."""
    monkeypatch.setenv("OPENS", "opens")
    tls = {"ca": "ca.pem", "cert": "us.crt", "key": "locked.key", "password": "${secret.OPENS}"}
    core = Core(guarded[1])
    assert await taken(orders(core, guarded, "TLS", tls=tls), core) == 10


async def test_an_authority_that_is_not_known_is_refused(guarded: tuple[Cluster, Path]) -> None:
    core = Core(guarded[1])
    with pytest.raises(SourceUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await orders(core, guarded, "TLS", tls=True).partitions()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("listener", ["SASL", "BOTH"])
async def test_a_password_opens_what_asks_for_one(
    guarded: tuple[Cluster, Path], monkeypatch: pytest.MonkeyPatch, mechanism: str, listener: str
) -> None:
    monkeypatch.setenv("ALICE", "wonder")
    core = Core(guarded[1])
    tls = {"tls": {"ca": "ca.pem"}} if listener == "BOTH" else {}
    source = orders(core, guarded, listener, sasl={"mechanism": mechanism, **ALICE}, **tls)
    assert await taken(source, core) == 10


async def test_a_wrong_password_is_said_without_repeating_it(
    guarded: tuple[Cluster, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALICE", "wander")
    for mechanism in ("PLAIN", "SCRAM-SHA-512"):
        source = orders(Core(guarded[1]), guarded, "SASL", sasl={"mechanism": mechanism, **ALICE})
        with pytest.raises(SourceUnavailable, match=r"refuses us: .*Authentication failed") as refused:
            await source.partitions()
        assert "wander" not in str(refused.value)


async def test_sessions_that_expire_are_opened_anew_without_a_word(
    guarded: tuple[Cluster, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`connections.max.reauth.ms`: the broker ends every connection of ours, all at one time."""
    monkeypatch.setenv("ALICE", "wonder")
    monkeypatch.setattr("connectors.kafka.source.LISTING_SECONDS", 0.0)
    monkeypatch.setattr("connectors.kafka.ends.FRESH_SECONDS", 0.0)
    monkeypatch.setattr("connectors.kafka.partition.WAIT_MS", 200)
    monkeypatch.setattr(Patience, "wait", give_up)
    await guarded[0].create_topic("slowly")
    core = Core(guarded[1])
    source = orders(core, guarded, "EXPIRES", topics=["slowly"], sasl={"mechanism": "PLAIN", **ALICE})
    async with Reading(source, core, deadline=20) as reading:
        for number in range(10):
            await send(guarded[0], "slowly", numbered(number, number))
            await reading.take(1)
            assert await source.partitions() == ["slowly/0"]
            assert (await source.progress("slowly/0", core.cursor("slowly/0"))).lag == 0
            await asyncio.sleep(0.4)  # in all it lasts as long as three sessions


async def give_up(_: Patience, trouble: Passing) -> None:
    raise trouble


def slow_down(bootstrap: str, user: str, byte_rate: int) -> None:
    """The admin clients know no quotas."""
    words = ["--bootstrap-server", bootstrap, "--alter", "--entity-type", "users", "--entity-name", user]
    subprocess.run(
        ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{jars()}/*", "kafka.admin.ConfigCommand", *words,
         "--add-config", f"consumer_byte_rate={byte_rate}"],
        check=True, capture_output=True,
    )  # fmt: skip


async def test_a_quota_slows_us_down_and_is_no_trouble(
    guarded: tuple[Cluster, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 500 kB at 100 kB/s the broker gives 300 kB, then reads nothing from us for longer than we wait."""
    monkeypatch.setenv("BOB", "slow")
    monkeypatch.setattr("connectors.kafka.lane.ANSWER_SECONDS", 1.5)
    monkeypatch.setattr("connectors.kafka.partition.WAIT_MS", 300)
    opened: list[int] = []

    async def create_conn(*where: Any, **options: Any) -> Any:
        opened.append(1)
        return await aiokafka.conn.create_conn(*where, **options)

    monkeypatch.setattr("connectors.kafka.lane.create_conn", create_conn)
    await guarded[0].create_topic("plenty")
    for _ in range(10):  # a batch that is larger than what the quota leaves would never be given
        await send(guarded[0], "plenty", [b'"%s"' % (b"x" * 10_000)] * 5)
    await asyncio.to_thread(slow_down, guarded[0].bootstrap, "bob", 100_000)
    core = Core(guarded[1])
    bob = {"mechanism": "PLAIN", "username": "bob", "password": "${secret.BOB}"}
    source = orders(core, guarded, "SASL", topics=["plenty"], sasl=bob)
    async with Reading(source, core, deadline=20) as reading:
        started = time.monotonic()
        await reading.take(50)
        assert time.monotonic() - started > 1.5, "the quota was not felt, so nothing was tested"
    assert len(opened) == 3, "one to the address given, one to the broker, one for the partition"


async def published(guarded: tuple[Cluster, Path], listener: str, **words: Any) -> Any:
    """What a task gets for one record; its secrets have been filled in by then."""
    given = {"bootstrap": guarded[0].address(listener), "topic": "told", "value": 1, **words}
    kind = KafkaTask()
    try:
        context = Context("run", "flow", "tell", 1, {}, None, logging.getLogger("test"))
        return await kind.run(PublishConfig.model_validate(given), context)
    finally:
        await kind.close()


async def test_a_task_publishes_through_tls_with_a_certificate_and_with_a_password(
    guarded: tuple[Cluster, Path],
) -> None:
    await guarded[0].create_topic("told")
    files = {"ca": "ca.pem", "cert": "us.crt", "key": "locked.key"}
    tls = {name: str(guarded[1] / file) for name, file in files.items()}
    alice = {"mechanism": "SCRAM-SHA-512", "username": "alice", "password": "wonder"}
    assert (await published(guarded, "TLS", tls={**tls, "password": "opens"}))["offset"] == 0
    assert (await published(guarded, "BOTH", tls={"ca": tls["ca"]}, sasl=alice))["offset"] == 1


async def test_a_task_that_is_not_let_in_says_why_and_neither_password_nor_address(
    guarded: tuple[Cluster, Path],
) -> None:
    alice = {"mechanism": "PLAIN", "username": "alice", "password": "wander"}
    with pytest.raises(TaskError, match=r"^kafka: the brokers do not let us in: SaslAuthenticationFailed$"):
        await published(guarded, "SASL", sasl=alice)
    with pytest.raises(TaskError, match=r"^kafka: the brokers' TLS is not ours: unable to get local issuer"):
        await published(guarded, "TLS", tls=True)
