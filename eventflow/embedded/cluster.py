"""One Postgres server and its files: make the data folder, start, find out whether it runs, stop.

Nothing here guards against two callers at once; `shared` does.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from eventflow.embedded.account import Account, account_for_new, account_of, give_to_owner
from eventflow.embedded.install import MAJOR, programs
from eventflow.embedded.process import command_line
from eventflow.errors import StoreError

_SETTINGS: Final = {
    # Said here and not left to the configuration file: eventflow's promises rest on them.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": "5432",
    "wal_level": "logical",
    "max_slot_wal_keep_size": "4GB",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "io_method": "sync",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}

_START_SECONDS: Final = 300.0  # crash recovery reads all WAL since the last checkpoint
_LEFT_OVER_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.01
_LOG_BYTES: Final = 10 * 2**20
_ADDRESS_BYTES: Final = 103  # of a socket's path on macOS; Linux takes 107

# What a server says that a killed one's backends, or a start of somebody else's, still hold up.
_PASSING: Final = ("pre-existing shared memory block", "lock file", "could not bind")


@dataclass(frozen=True, slots=True)
class _PidFile:
    pid: int
    ready: bool


@dataclass(frozen=True, slots=True)
class _Started:
    process: subprocess.Popen[bytes]
    begin: int  # where in the log its words begin


class Cluster:
    """The server whose data is `folder/postgres`; `folder` exists and is absolute, without symlinks."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "postgres"
        self.log = folder / "postgres.log"
        self._address_file = folder / "postgres.socket"
        # Stands in the command line and tells this server from any other process of the same pid.
        self._marker = f"eventflow.data={self.data}"

    @property
    def url(self) -> str:
        """The URL of its one database; good while the server runs and after it was started again."""
        return f"postgresql://eventflow@/postgres?host={quote(self._address_file.read_text(), safe='')}"

    def create(self) -> None:
        """Make the data folder unless it is there; killed half way, it is made again from the start."""
        version = self.data / "PG_VERSION"
        if version.exists():
            found = version.read_text().strip()
            if found != str(MAJOR):
                raise StoreError(
                    f"{self.data} was made by Postgres {found} and the installed one is {MAJOR}; dump it "
                    "with the old version and load it into a new folder"
                )
            return
        new = self.data.with_name("postgres.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        account = account_for_new(new)
        _initialise(new, account)
        new.rename(self.data)  # refuses a folder with contents: whatever that is, it is not ours

    def is_running(self) -> bool:
        """Whether the server's process is there; it may still be starting."""
        return self._running() is not None

    def start(self) -> None:
        """Start the server and wait until it takes connections; adopt one that is there.

        Backends of a killed server may still run: Postgres refuses to start beside them, so this tries
        again until they are gone. Raises `StoreError` with what Postgres said.
        """
        deadline = time.monotonic() + _LEFT_OVER_SECONDS
        while True:
            process = None if self.is_running() else self._launch()
            said = self._wait_until_ready(process)
            if said is None:
                return
            if time.monotonic() > deadline or not any(words in said for words in _PASSING):
                raise StoreError(
                    f"the embedded Postgres in {self.data} did not start (log: {self.log}):\n{said}"
                )
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop the server: open transactions are rolled back, what is committed is written."""
        for order in (signal.SIGINT, signal.SIGQUIT):
            running = self._running()
            if running is None:
                break
            os.kill(running.pid, order)
            deadline = time.monotonic() + _STOP_SECONDS
            while self._running() is not None and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
        if self.is_running():
            raise StoreError(f"the embedded Postgres in {self.data} does not stop (log: {self.log})")
        with contextlib.suppress(OSError):  # made again at the next start; a killed server's is not empty
            Path(self._address_file.read_text()).rmdir()

    def _running(self) -> _PidFile | None:
        found = self._read_pid_file()
        if found is None:
            return None
        line = command_line(found.pid)
        return found if line is not None and f"{self._marker} " in f"{line} " else None

    def _read_pid_file(self) -> _PidFile | None:
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return _PidFile(int(lines[0]), len(lines) > 7 and lines[7].strip() == "ready")
        except (FileNotFoundError, IndexError, ValueError):
            return None

    def _launch(self) -> _Started:
        account = account_of(self.data)
        address = self._address(account)
        # Postgres believes any living process of that pid to be the old server, or the socket's owner.
        for stale in (self.data / "postmaster.pid", *address.glob(".s.PGSQL.*")):
            stale.unlink(missing_ok=True)
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        own = [f"--unix_socket_directories={address}", f"--{self._marker}"]
        fresh = not self.log.exists() or self.log.stat().st_size > _LOG_BYTES
        with self.log.open("wb" if fresh else "ab") as log, account.reach(self.data) as (path, options):
            give_to_owner(log.fileno(), self.log.parent)
            begin = log.seek(0, os.SEEK_END)
            process: subprocess.Popen[bytes] = subprocess.Popen(
                [*account.prefix, str(programs(account) / "postgres"), "-D", path, *settings, *own],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # no signal to the starter's group or terminal reaches it
                **options,
            )
        # Reaps it should it end before we do; nothing else of it concerns us.
        threading.Thread(target=process.wait, name="embedded-postgres-reaper", daemon=True).start()
        return _Started(process, begin)

    def _wait_until_ready(self, started: _Started | None) -> str | None:
        """None once the server takes connections, else what it said before it ended."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            running = self._running()
            if running is not None and running.ready:
                return None
            if started is None and running is None:
                return "lock file: the server that was starting is gone"
            if started is not None and started.process.returncode is not None:
                return self._said_since(started.begin)
            time.sleep(_POLL_SECONDS)
        return f"not ready after {_START_SECONDS:.0f} s"

    def _said_since(self, begin: int) -> str:
        with self.log.open("rb") as log:
            log.seek(begin)
            return log.read()[-2000:].decode(errors="replace").strip()

    def _address(self, account: Account) -> Path:
        """The folder of the socket: short, the server's own, the same one after every restart.

        Recorded in the data folder, because processes differ in what they take for the temporary folder,
        and named after that folder, so that a copy of it does not take over the original's socket.
        """
        digest = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:16]
        if self._address_file.exists():
            recorded = Path(self._address_file.read_text())
            if recorded.name.startswith(f"eventflow-{digest}-") and _is_private(recorded, account):
                return recorded
        made = Path(tempfile.mkdtemp(prefix=f"eventflow-{digest}-", dir=_short_temporary_folder(account)))
        if not account.is_self:
            os.chown(made, account.uid, account.gid)
        written = self._address_file.with_suffix(".new")
        written.write_text(str(made))
        give_to_owner(written, written.parent)
        written.rename(self._address_file)
        return made


def _initialise(data: Path, account: Account) -> None:
    with account.reach(data) as (path, options):
        done = subprocess.run(
            [
                *account.prefix, str(programs(account) / "initdb"), "-D", path,
                "-U", "eventflow", "-A", "trust", "-E", "UTF8", "--locale=C",
            ],
            capture_output=True,
            text=True,
            check=False,
            **options,
        )  # fmt: skip
    if done.returncode != 0:
        raise StoreError(
            f"Postgres could not make its data folder {data}:\n{done.stdout}{done.stderr}".strip()
        )


def _is_private(folder: Path, account: Account) -> bool:
    """Whether `folder` is the account's and nobody else's; made again where a clean-up removed it."""
    try:
        folder.mkdir(mode=0o700)
        if not account.is_self:
            os.chown(folder, account.uid, account.gid)
    except FileExistsError:
        pass
    except OSError:
        return False
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == account.uid and status.st_mode & 0o077 == 0


def _short_temporary_folder(account: Account) -> str:
    chosen = tempfile.gettempdir()
    # Somebody else's server cannot use a temporary folder that only this user can enter.
    fits = (
        len(os.fsencode(chosen)) + len("/eventflow-0123456789abcdef-01234567/.s.PGSQL.5432") <= _ADDRESS_BYTES
    )
    return chosen if account.is_self and fits else "/tmp"  # noqa: S108
