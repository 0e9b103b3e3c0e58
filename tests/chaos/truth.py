"""What was sent, written down before it is sent: the one input of the model.

Orders and changes are read back when nothing is sent any more: systems that die keep their own truth.

One JSON object a line, in the order of writing. `what` names the class.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Put:
    """A new version of a file: `path` is relative to the watched folder."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Touched:
    """The file's own bytes again, or only a new time: no event."""

    path: str


@dataclass(frozen=True, slots=True)
class Removed:
    """The file was deleted, after its last version had been seen to run."""

    path: str


@dataclass(frozen=True, slots=True)
class Stalled:
    """A slow write paused longer than the quiet time: a part of the file may rightly have been taken."""

    path: str


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook. `key` is its Idempotency-Key, `body` the exact text, `copies` go out at once."""

    key: str
    kind: str
    number: int
    body: str
    copies: int = 1


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a partition's file, without its newline; numbers count from 1 without a hole."""

    partition: str
    number: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Order:
    """A committed record of the topic, as the log holds it in the end; `partition` is topic/number."""

    partition: str
    offset: int
    key: str
    text: str
    broken: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A committed change of a captured row, as the history holds it in the end: op/table/id/version."""

    number: int
    key: str


Entry = Put | Touched | Removed | Stalled | Hook | Line | Order | Change

_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (Put, Touched, Removed, Stalled, Hook, Line, Order, Change)
}


class TruthFile:
    """The truth on disk, and in memory for the progress line."""

    def __init__(self, path: Path) -> None:
        self.entries: list[Entry] = []
        self._path = path

    def write(self, entry: Entry) -> None:
        """Returns once the entry is with the kernel; whoever sends waits for that."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"what": type(entry).__name__, **asdict(entry)}) + "\n")
        self.entries.append(entry)


def read(path: Path) -> Iterator[Entry]:
    """The entries of a truth file, in order."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            fields = json.loads(line)
            yield _KINDS[fields.pop("what")](**fields)
