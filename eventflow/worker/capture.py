"""What tasks print and log goes to the task's log, and to nobody else's."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TextIO

Sink = Callable[[bytes], None]
"""Takes a piece of output, in UTF-8 as far as it is text. May be called from any thread."""

current_sink: Final[ContextVar[Sink | None]] = ContextVar("current_sink", default=None)
"""Where the output of the task that runs here goes; threads and tasks that it starts inherit the answer."""


class _Router(io.TextIOBase):
    """Stands in for stdout or stderr: a task's output to its sink, all other to the real stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        sink = current_sink.get()
        if sink is None:
            return self._stream.write(text)
        sink(text.encode("utf-8", "replace"))
        return len(text)

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_FORMAT: Final = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")


class _SinkHandler(logging.Handler):
    """Writes records to one sink, or to that of the task which logs."""

    def __init__(self, sink: Sink | None = None) -> None:
        super().__init__()
        self._sink = sink
        self.setFormatter(_FORMAT)

    def emit(self, record: logging.LogRecord) -> None:
        sink = self._sink or current_sink.get()
        if sink is not None:
            sink(f"{self.format(record)}\n".encode("utf-8", "replace"))


def task_logger(sink: Sink) -> logging.Logger:
    """The logger that a task finds as `ctx.log`: no relation of the root logger, so nothing is said twice."""
    logger = logging.Logger("task", logging.INFO)
    logger.addHandler(_SinkHandler(sink))
    return logger


class _NotOfTasks(logging.Filter):
    """Keeps what tasks log, and what is below the level that was in force, out of the program's own log."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self._level and current_sink.get() is None


@contextmanager
def captured_output() -> Generator[None]:
    """While open: what tasks of this process print, or log at `INFO` and above, goes to their sinks."""
    root, handler = logging.getLogger(), _SinkHandler()
    level, others = root.level, list(root.handlers)
    out, err, quiet = sys.stdout, sys.stderr, _NotOfTasks(level)
    routers = _Router(out), _Router(err)
    sys.stdout, sys.stderr = routers
    for other in others:
        other.addFilter(quiet)
    root.addHandler(handler)
    root.setLevel(min(level, logging.INFO))
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        for other in others:
            other.removeFilter(quiet)
        # Somebody may have put a stream of their own in place meanwhile.
        sys.stdout = out if sys.stdout is routers[0] else sys.stdout
        sys.stderr = err if sys.stderr is routers[1] else sys.stderr
