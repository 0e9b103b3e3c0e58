"""What tasks print and log goes to the task's log, and to nobody else's."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TextIO

from eventflow.store.task_logs import Chunk
from eventflow.store.task_runs import Claimed

Sink = Callable[[bytes], None]
"""Takes a piece of output, in UTF-8 as far as it is text. May be called from any thread."""

LOG_LIMIT: Final = 1024 * 1024
"""Bytes kept of one attempt's output; the rest is dropped, and the log says so."""

current_sink: Final[ContextVar[Sink | None]] = ContextVar("current_sink", default=None)
"""Where the output of the task that runs here goes; threads and tasks that it starts inherit the answer."""


class AttemptLog:
    """The output of one attempt on its way to the store."""

    def __init__(self, claimed: Claimed) -> None:
        self._claimed = claimed
        self._lock = threading.Lock()
        self._pieces: list[bytes] = []
        self._size = 0
        self._number = 0

    def write(self, content: bytes) -> None:
        """Keep `content`, up to the limit."""
        with self._lock:
            if self._size >= LOG_LIMIT:
                return
            kept = content[: LOG_LIMIT - self._size]
            self._size += len(kept)
            self._pieces.append(kept)
            if self._size >= LOG_LIMIT:
                self._pieces.append(b"\n[eventflow: the log of this attempt ends here, at 1 MiB]\n")

    def take(self) -> Chunk | None:
        """What came since the last call, as the next chunk."""
        with self._lock:
            if not self._pieces:
                return None
            content, self._pieces = b"".join(self._pieces), []
            self._number += 1
        c = self._claimed
        return Chunk(c.run_id, c.task, c.attempt, self._number - 1, content)


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


@contextmanager
def captured_output() -> Generator[None]:
    """While open: what tasks of this process print or log, at the levels in force, goes to their sinks."""
    out, err, handler = sys.stdout, sys.stderr, _SinkHandler()
    routers = _Router(out), _Router(err)
    sys.stdout, sys.stderr = routers
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        # Somebody may have put a stream of their own in place meanwhile.
        sys.stdout = out if sys.stdout is routers[0] else sys.stdout
        sys.stderr = err if sys.stderr is routers[1] else sys.stderr
