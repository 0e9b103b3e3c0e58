"""A shell task's command: an argument vector, never a text that a shell would read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Final

from eventflow.errors import TaskError, Undecodable
from eventflow.event import decode_json
from eventflow.task import RESULT_LIMIT
from eventflow.worker.call import Call

_READ: Final = 64 * 1024
_ERROR_TAIL: Final = 4096


class Command:
    """A running command in a process group of its own, so that it ends with all that it started.

    Its working directory is the code folder. `python` is the interpreter that runs eventflow, unless the
    command names another one. Raises `TaskError` where it cannot be started.
    """

    def __init__(self, call: Call, environment: Mapping[str, str], say: Callable[[bytes], None]) -> None:
        path = os.pathsep.join((os.path.dirname(sys.executable), environment.get("PATH", os.defpath)))
        try:
            self._process = subprocess.Popen(
                call.argv,
                cwd=call.folder,
                env={**environment, "PATH": path, **call.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,
            )
        except (OSError, ValueError) as error:
            raise TaskError(f"cannot start {call.argv[0]!r}: {error}") from error
        self._say = say
        self._out = b""
        self._err = b""
        self._readers = [
            threading.Thread(target=self._read_out, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_err, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def group(self) -> int:
        """Its process group."""
        return self._process.pid

    def kill(self) -> None:
        """End the whole group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, signal.SIGKILL)

    def wait(self) -> bytes:
        """The last line of its output if that is JSON, else null. `TaskError` for any other exit than 0."""
        # Not reaped before the group is killed: until then its number cannot go to somebody else.
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        self.kill()
        code = self._process.wait()
        for reader in self._readers:
            reader.join()
        if code != 0:
            raise TaskError(_failure(code, self._err.decode(errors="replace").strip()))
        return self._result()

    def _result(self) -> bytes:
        line = self._out.rstrip().rpartition(b"\n")[2].strip()
        try:
            decode_json(line)
        except Undecodable:
            return b"null"
        return line

    def _read_out(self, stream: IO[bytes]) -> None:
        while piece := os.read(stream.fileno(), _READ):
            self._say(piece)
            self._out = (self._out + piece)[-(RESULT_LIMIT + 1) :]

    def _read_err(self, stream: IO[bytes]) -> None:
        while piece := os.read(stream.fileno(), _READ):
            self._say(piece)
            self._err = (self._err + piece)[-_ERROR_TAIL:]


def _failure(code: int, errors: str) -> str:
    """How it ended and the last line of its errors, which says most; below that, what was kept of them."""
    last = errors.rpartition("\n")[2]
    if not last:
        return _exit(code)
    return f"{_exit(code)}: {last}" + (f"\n{errors}" if last != errors else "")


def _exit(code: int) -> str:
    if code > 0:
        return f"exit status {code}"
    return f"killed by signal {-code} ({signal.Signals(-code).name})"
