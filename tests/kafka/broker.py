"""Apache Kafka 4 for tests: plain Java processes in KRaft mode, killed and started again by hand.

    async with Cluster(tmp_path, brokers=3) as kafka:
        await kafka.create_topic("payments.v1", partitions=12)
        kafka.kill(2)
        await kafka.restart(2)

`Broker(bootstrap)` speaks with a cluster that runs already. Nothing here knows eventflow: the kill run, whose
judge may share no code with the judged, uses it too. Needs Java 17; Maven fetches the jars of pom.xml once
for each checkout.
"""

from __future__ import annotations

import asyncio
import base64
import ctypes
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

_POM: Final = Path(__file__).with_name("pom.xml")
_JARS: Final = Path(__file__).parents[2] / ".kafka"
# Below the ports that the system gives to outgoing connections: a client that keeps dialling the port of a
# killed broker would otherwise, one day, be given that very port and be connected with itself.
_PORTS: Final = range(15_000, 31_000)
_PR_SET_PDEATHSIG: Final = 1
_LOGGING: Final = """\
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c{1} %m%n
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = console
"""


class BrokerError(Exception):
    """No broker: Java or Maven are missing, or Kafka does not start. Says where to look."""


def jars() -> Path:
    """The folder of Kafka's jars, fetched by Maven when pom.xml is new to this checkout."""
    folder = _JARS / f"jars-{hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]}"
    if shutil.which("java") is None:
        raise BrokerError("Kafka's broker needs Java 17 or newer: there is no 'java' on the PATH")
    if folder.is_dir():
        return folder
    if shutil.which("mvn") is None:
        raise BrokerError("Kafka's jars are fetched with Maven: there is no 'mvn' on the PATH")
    _JARS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_JARS) as fetched:
        copy = ["dependency:copy-dependencies", f"-DoutputDirectory={fetched}/jars"]
        done = subprocess.run(
            ["mvn", "-q", "-B", "-f", _POM, *copy], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise BrokerError(f"Maven could not fetch Kafka's jars:\n{done.stdout}{done.stderr}")
        try:
            Path(fetched, "jars").rename(folder)  # whole or not at all
        except OSError:  # another process was faster
            if not folder.is_dir():
                raise
    return folder


class Broker:
    """A running cluster as its clients see it. `bootstrap`: `host:port,host:port`, no TLS, no passwords."""

    def __init__(self, bootstrap: str, *, replication: int = 1) -> None:
        self.bootstrap = bootstrap
        self._replication = replication

    @asynccontextmanager
    async def admin(self) -> AsyncGenerator[AIOKafkaAdminClient]:
        """aiokafka's admin client, started and closed."""
        client = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap, request_timeout_ms=10_000)
        await client.start()
        try:
            yield client
        finally:
            await client.close()

    async def create_topic(
        self,
        name: str,
        partitions: int = 1,
        *,
        replication: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Create a topic; returns when every partition has a leader. `settings`: `{"retention.ms": "9"}`."""
        topic = NewTopic(
            name, partitions, replication or self._replication, topic_configs=dict(settings or {})
        )
        async with self.admin() as admin:
            answer = await admin.create_topics([topic])
            _refused(answer, f"the topic {name} was not created")
            await self._until(lambda: _led(admin, name, partitions), f"{name} has no leaders")

    async def delete_topic(self, name: str) -> None:
        """Delete a topic; returns when the brokers no longer name it."""
        async with self.admin() as admin:
            answer = await admin.delete_topics([name])
            _refused(answer, f"the topic {name} was not deleted")
            await self._until(lambda: _gone(admin, name), f"{name} is still there")

    async def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        """Move the start of the log as retention does. `before`: the first offset to keep, by partition."""
        records = {TopicPartition(topic, partition): RecordsToDelete(to) for partition, to in before.items()}
        async with self.admin() as admin:
            await admin.delete_records(records)

    async def start_offsets(self, topic: str) -> dict[int, int]:
        """The first offset kept, by partition."""
        return await self._offsets(topic, first=True)

    async def end_offsets(self, topic: str) -> dict[int, int]:
        """The offset after the last one that `read_committed` may read (markers count), by partition."""
        return await self._offsets(topic, first=False)

    async def _offsets(self, topic: str, *, first: bool) -> dict[int, int]:
        async with self.admin() as admin:
            (described,) = await admin.describe_topics([topic])
        partitions = [TopicPartition(topic, each["partition"]) for each in described["partitions"]]
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap, enable_auto_commit=False, isolation_level="read_committed"
        )
        await consumer.start()
        try:
            found = await (
                consumer.beginning_offsets(partitions) if first else consumer.end_offsets(partitions)
            )
        finally:
            await consumer.stop()
        return {where.partition: offset for where, offset in sorted(found.items())}

    async def _until(self, holds, otherwise: str, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not await holds():
            if time.monotonic() > deadline:
                raise BrokerError(f"{otherwise} after {seconds:.0f} s")
            await asyncio.sleep(0.02)


async def _led(admin: AIOKafkaAdminClient, topic: str, partitions: int) -> bool:
    (described,) = await admin.describe_topics([topic])
    found = described["partitions"]
    return len(found) == partitions and all(not each["error_code"] and each["leader"] >= 0 for each in found)


async def _gone(admin: AIOKafkaAdminClient, topic: str) -> bool:
    return topic not in await admin.list_topics()


def _refused(answer: Any, message: str) -> None:
    """The admin client returns its errors: (topic, code, ...) under a name that differs by request."""
    for _, code, *reason in getattr(answer, "topic_errors", None) or getattr(answer, "topic_error_codes", ()):
        if code:
            raise BrokerError(f"{message}: error {code} {reason}")


class Cluster(Broker):
    """Kafka's processes in `folder`: each node broker and controller, numbered from 1. A context manager.

    Args:
        folder: new or empty; data, settings and logs (`node-1/log`).
        brokers: 1, or 3 for the tests that kill one.
        listeners: more beside PLAINTEXT, each on a port of its own: `{"SECURE": "SASL_SSL"}`; see `address`.
        settings: server properties that override: `{"log.retention.check.interval.ms": "500"}`.
        heap: of each process.
    """

    def __init__(
        self,
        folder: Path,
        *,
        brokers: int = 1,
        listeners: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
        heap: str = "256m",
    ) -> None:
        self._folder = folder
        self._heap = heap
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._protocols = {"PLAINTEXT": "PLAINTEXT", **(listeners or {}), "CONTROLLER": "PLAINTEXT"}
        chosen = iter(_free_ports(brokers * len(self._protocols)))
        self._ports = {
            node: {name: next(chosen) for name in self._protocols} for node in range(1, brokers + 1)
        }
        self._settings = dict(settings or {})
        super().__init__(self.address("PLAINTEXT"), replication=min(3, brokers))

    def address(self, listener: str) -> str:
        """The bootstrap list of one listener."""
        return ",".join(f"127.0.0.1:{ports[listener]}" for ports in self._ports.values())

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        for node in self._ports:
            self.kill(node)

    async def start(self) -> None:
        """Lay out the folders and start every node; returns when all answer."""
        classpath = jars()
        # Its first bits are 0: a name that begins with "-" would be read as an option.
        name = base64.urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        formatting = [asyncio.to_thread(self._format, node, name, classpath) for node in self._ports]
        await asyncio.gather(*formatting)
        for node in self._ports:
            self._launch(node)
        await asyncio.gather(*(self.ready(node) for node in self._ports))

    def kill(self, node: int = 1) -> None:
        """kill -9; nothing happens to one that is dead."""
        if process := self._processes.pop(node, None):
            process.kill()
            process.wait()

    async def stop(self, node: int = 1, seconds: float = 30) -> None:
        """An orderly shutdown, its partitions handed over first."""
        process = self._processes.pop(node)
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, seconds)
        finally:
            process.kill()

    def freeze(self, node: int = 1) -> None:
        """SIGSTOP: connections stay open and nothing answers; `thaw` lets it go on."""
        self._processes[node].send_signal(signal.SIGSTOP)

    def thaw(self, node: int = 1) -> None:
        """SIGCONT."""
        self._processes[node].send_signal(signal.SIGCONT)

    async def restart(self, node: int = 1) -> None:
        """Start a killed or stopped node on its data and its ports; returns when it answers (about 3 s)."""
        self._launch(node)
        await self.ready(node)

    async def ready(self, node: int = 1, seconds: float = 60) -> None:
        """Wait until the node's own metadata names it among the living."""

        async def answers() -> bool:
            if self._processes[node].poll() is not None:
                raise BrokerError(f"Kafka ended by itself; see {self._log(node)}")
            port = self._ports[node]["PLAINTEXT"]
            if not _listens(port):  # asked first, because aiokafka logs each failure
                return False
            client = AIOKafkaClient(bootstrap_servers=f"127.0.0.1:{port}")
            try:
                await client.bootstrap()
                return any(known.nodeId == node for known in client.cluster.brokers())
            except (KafkaError, OSError):
                return False
            finally:
                await client.close()

        await self._until(answers, f"node {node} does not answer (see {self._log(node)})", seconds)

    def _home(self, node: int) -> Path:
        return self._folder / f"node-{node}"

    def _log(self, node: int) -> Path:
        return self._home(node) / "log"

    def _format(self, node: int, cluster: str, classpath: Path) -> None:
        home = self._home(node)
        home.mkdir(parents=True)
        lines = [f"{name}={value}\n" for name, value in self._properties(node).items()]
        (home / "server.properties").write_text("".join(lines))
        (home / "log4j2.properties").write_text(_LOGGING)
        command = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{classpath}/*"]
        tool = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(home / "server.properties")]
        done = subprocess.run([*command, *tool], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BrokerError(f"Kafka's folder could not be laid out:\n{done.stdout}{done.stderr}")

    def _properties(self, node: int) -> dict[str, str]:
        ports, brokers = self._ports[node], len(self._ports)
        copies, in_sync = str(min(3, brokers)), str(min(2, brokers))
        addresses = {name: f"{name}://127.0.0.1:{port}" for name, port in ports.items()}
        voters = (f"{each}@127.0.0.1:{its['CONTROLLER']}" for each, its in self._ports.items())
        return {
            "process.roles": "broker,controller",
            "node.id": str(node),
            "controller.quorum.voters": ",".join(voters),
            "listeners": ",".join(addresses.values()),
            "advertised.listeners": ",".join(at for name, at in addresses.items() if name != "CONTROLLER"),
            "listener.security.protocol.map": ",".join(f"{k}:{v}" for k, v in self._protocols.items()),
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self._home(node) / "data"),
            "auto.create.topics.enable": "false",
            "min.insync.replicas": in_sync,
            "offsets.topic.num.partitions": "4",
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.num.partitions": "4",
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": in_sync,
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": in_sync,
            "group.initial.rebalance.delay.ms": "0",
            # After kill -9 the old registration must time out before the node may come back.
            "broker.session.timeout.ms": "1500",
            "broker.heartbeat.interval.ms": "300",
            **self._settings,
        }

    def _launch(self, node: int) -> None:
        home = self._home(node)
        options = [f"-Xmx{self._heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        options += [f"-Dlog4j2.configurationFile={home / 'log4j2.properties'}", "-cp", f"{jars()}/*"]
        with self._log(node).open("ab") as log:
            self._processes[node] = subprocess.Popen(
                ["java", *options, "kafka.Kafka", str(home / "server.properties")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,  # a Ctrl-C in the terminal is the tests' affair
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one call of the C library, nothing that takes a lock
            )  # fmt: skip


def _die_with_parent() -> None:
    """No broker outlives the tests, even when they are killed. Linux only; elsewhere it may."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _listens(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on, the same over restarts."""
    found: list[int] = []
    for port in random.Random(os.urandom(8)).sample(_PORTS, len(_PORTS)):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise BrokerError("no free ports")


if __name__ == "__main__":
    try:
        print(jars())
    except BrokerError as error:
        sys.exit(str(error))
