"""The main program of a task process: one call at a time, for one version of the code.

Requests come through stdin, replies leave through stdout; both are moved away before task code runs, so
that what it prints cannot damage a reply. The process ends, with everything that it started, when the
serving process does: a thread waits for the end of stdin, and the kernel is asked to see to it as well.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import inspect
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import reduce
from typing import Any, BinaryIO, Final

from eventflow.errors import TaskError
from eventflow.task import describe_error, encode_result
from eventflow.worker.call import Call
from eventflow.worker.capture import captured_output, current_sink, task_logger
from eventflow.worker.command import Command
from eventflow.worker.wire import Done, Group, Reply, Said, frame, read_call

_PR_SET_PDEATHSIG: Final = 1


def _signal_of_parents_death(number: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def _die_with(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent dies (Linux): for a task that never lets go of the GIL."""
    _signal_of_parents_death(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _private_streams() -> tuple[BinaryIO, BinaryIO]:
    """Requests and replies on descriptors that no child inherits; stdout becomes stderr, stdin is empty."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    return requests, replies


class TaskProcess:
    """Executes calls as they come."""

    def __init__(self, requests: BinaryIO, replies: BinaryIO) -> None:
        self._requests = requests
        self._replies = replies
        self._writing = threading.Lock()
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._command: Command | None = None
        # Task code may change os.environ; commands of later calls do not see that.
        self._environment = dict(os.environ)

    def run(self) -> None:
        """Never returns: the reading thread ends the process."""
        self._say(b"")  # we are up
        threading.Thread(target=self._read, daemon=True, name="eventflow-requests").start()
        current_sink.set(self._say)
        while True:
            self._execute(self._calls.get())

    def _read(self) -> None:
        while (call := read_call(self._requests)) is not None:
            self._calls.put(call)
        if self._command is not None:
            self._command.kill()
        # Our own group: whatever task code has started. It is ours alone, see `Slot.start`.
        os.killpg(os.getpgrp(), signal.SIGKILL)

    def _send(self, reply: Reply) -> None:
        data = memoryview(frame(reply))
        with self._writing:
            while data:
                data = data[self._replies.write(data) :]

    def _say(self, content: bytes) -> None:
        self._send(Said(content))

    def _execute(self, call: Call) -> None:
        try:
            done = Done(
                self._run_command(call) if call.argv else encode_result(_run_function(call, self._say))
            )
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            done = Done(error=describe_error(error, call.folder))
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # task code may have closed it
                stream.flush()
        self._send(done)

    def _run_command(self, call: Call) -> bytes:
        # This process holds no GIL while it waits, so its reading thread hears of the end of the serving
        # process: it must live to end the command as well.
        _signal_of_parents_death(0)
        self._command = Command(call, self._environment, self._say)
        try:
            self._send(Group(self._command.group))
            return self._command.wait()
        finally:
            self._command = None
            _signal_of_parents_death(signal.SIGKILL)


def _run_function(call: Call, say: Callable[[bytes], None]) -> Any:
    if call.folder not in sys.path:
        sys.path.insert(0, call.folder)
    module, _, path = call.target.partition(":")
    function: Any = reduce(getattr, path.split("."), importlib.import_module(module))
    arguments = call.keywords()
    if _takes_context(function):
        arguments["ctx"] = call.context(task_logger(say))
    result = function(**arguments)
    if inspect.iscoroutine(result):
        return asyncio.run(result)
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TaskError(f"{call.target} is a generator; a task returns one result")
    return result


def _takes_context(function: Any) -> bool:
    try:
        return "ctx" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C
        return False


def _ignore(_number: int, _frame: object) -> None:
    """A handler that does nothing."""


def main(parent: int) -> None:
    """The whole program, started with the serving process's id."""
    _die_with(parent)
    # Whoever stops a whole group of processes at once means the serving process: it decides what becomes of
    # us. A handler and not SIG_IGN, which the programs that a task starts would inherit.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ignore)
    requests, replies = _private_streams()
    with captured_output():
        TaskProcess(requests, replies).run()
