"""A task process: spawned once, kept warm, killed with all it started when a task outstays its time.

Never forked from the serving process: a fork would inherit its locks, its connections and its flock.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio import StreamReader
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from typing import Final

import msgspec

from eventflow.worker.attempt import Attempt
from eventflow.worker.loops import timed_out
from eventflow.worker.wire import Done, Group, Said, frame, read_reply

_PROGRAM: Final = "from eventflow.worker.child import main; main({})"
_START_SECONDS: Final = 60
_LAST_WORDS_SECONDS: Final = 0.5
_READ: Final = 64 * 1024


class Crashed(msgspec.Struct, frozen=True):
    """The process ended before the task did."""

    error: str


class Slot:
    """Room for one task at a time, in a process of its own. A process runs one version of the code."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self._process: Process | None = None
        self._group: int | None = None
        self._attempt: Attempt | None = None
        self._errors: asyncio.Task[None] | None = None

    async def execute(self, attempt: Attempt) -> Done | Crashed:
        """Run one attempt to its end, which may be that of the process."""
        self._attempt = attempt
        try:
            process = await self._ready(attempt.call.folder)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.kill()
            await asyncio.sleep(1.0)  # whatever keeps processes from starting, do not spin on it
            return Crashed(f"no process for the task could be started: {error!r}")
        try:
            return await self._converse(process, attempt)
        except (asyncio.IncompleteReadError, ConnectionError):
            return Crashed(await self._bury(process))
        finally:
            self._attempt = None

    async def _converse(self, process: Process, attempt: Attempt) -> Done:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(attempt.call.timeout):
                process.stdin.write(frame(attempt.call))
                await process.stdin.drain()
                return await self._answer(process.stdout, attempt)
        except TimeoutError:
            await self._bury(process)
            assert attempt.call.timeout is not None
            return Done(error=timed_out(attempt.call.timeout))

    async def _answer(self, replies: StreamReader, attempt: Attempt) -> Done:
        while True:
            match await read_reply(replies):
                case Said(content):
                    attempt.log.write(content)
                case Group(group):
                    self._group = group
                case Done() as done:
                    self._group = None
                    # Output that came through the other pipe before this was read with it: hear it first.
                    await asyncio.sleep(0)
                    return done

    def stop(self, attempt: Attempt) -> None:
        """End it, if it runs here."""
        if self._attempt is attempt:
            self.kill()

    def kill(self) -> None:
        """End the process and everything that the task has started, at once."""
        if self._process is not None and self._process.returncode is None:
            self._end_group(self._process.pid)

    def _end_group(self, leader: int) -> None:
        for group in (leader, self._group):
            if group is not None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, signal.SIGKILL)

    async def _bury(self, process: Process) -> str:
        """Kill what is left of the process; how it ended."""
        self._end_group(process.pid)
        code = await process.wait()
        if self._errors is not None:
            # Something that has left the group may hold the pipe open for ever.
            await asyncio.wait([self._errors], timeout=_LAST_WORDS_SECONDS)
            self._errors.cancel()
        self._process = self._errors = self._group = None
        if code >= 0:
            return f"its process ended with exit status {code}"
        return f"its process was killed by signal {-code} ({signal.Signals(-code).name})"

    async def _ready(self, folder: str) -> Process:
        """A process that has run code of this folder only."""
        if self._process is not None and (self.folder != folder or self._process.returncode is not None):
            await self._bury(self._process)
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-c", _PROGRAM.format(os.getpid()),
                stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True,
            )  # fmt: skip
            self.folder = folder
            assert self._process.stdout is not None
            assert self._process.stderr is not None
            self._errors = asyncio.create_task(self._listen(self._process.stderr))
            async with asyncio.timeout(_START_SECONDS):
                await read_reply(self._process.stdout)
        return self._process

    async def _listen(self, errors: StreamReader) -> None:
        """What comes past Python's own streams: libraries in C, and programs that a task starts."""
        while piece := await errors.read(_READ):
            if self._attempt is not None:
                self._attempt.log.write(piece)

    async def close(self) -> None:
        """End the process."""
        if self._process is not None:
            await self._bury(self._process)
