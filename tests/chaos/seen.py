"""What was seen of eventflow, in values: `observe.py` fills them in, `oracle.py` judges them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RunSeen:
    """A row of the table `run`, with the source key from its parameters."""

    id: str
    rule: str
    key: str
    state: str


@dataclass(frozen=True, slots=True)
class TaskSeen:
    """A row of the table `task_run`; `result_attempt` is the attempt that wrote the accepted result."""

    run: str
    task: str
    state: str
    attempt: int
    failures: int
    crashes: int
    result_attempt: int | None


@dataclass(frozen=True, slots=True)
class SinkLine:
    """One line that a task wrote outside eventflow's database.

    `at` in seconds since the epoch, `process` the node's pid as the task sees it, `content` the SHA-256
    of the file that the task read.
    """

    rule: str
    key: str
    run: str
    task: str
    attempt: int
    idempotency: str
    phase: str
    at: float = 0.0
    process: int = 0
    content: str = ""


@dataclass(frozen=True, slots=True)
class RecordSeen:
    """An event of a source with an order: `order` grows as batches commit and within a batch.

    `number` is the line, the offset, or the number of the change in the history.
    """

    partition: str
    number: int
    order: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """A time in which a node could not renew its leases because of the driver, by the clock of `SinkLine.at`.

    `process` is the node's pid, 0 for Postgres.
    """

    process: int
    began: float
    ended: float


@dataclass(slots=True)
class Observed:
    """Everything that the oracle looks at, read after the last run has ended (or the time was up).

    `cursors` and `ends` are comparable positions per partition: what the cursor says, what the file
    holds. `ticks` are the scheduled times of the clock's events, `counted` is the sum of what the watermark
    said, `visits` how many rows there are. `answers` maps a webhook's key to every event id it was answered
    with. `strangers` are leases of processes that no longer live. `watched` are violations seen while it ran.
    """

    runs: Sequence[RunSeen] = ()
    tasks: Sequence[TaskSeen] = ()
    sink: Sequence[SinkLine] = ()
    letters: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    records: Sequence[RecordSeen] = ()
    ticks: Sequence[str] = ()
    counted: int = 0
    visits: int = 0
    cursors: Mapping[str, Any] = field(default_factory=dict[str, Any])
    ends: Mapping[str, Any] = field(default_factory=dict[str, Any])
    taken: Counter[str] = field(default_factory=Counter[str])
    relays: int = 0
    answers: Mapping[str, set[str]] = field(default_factory=dict[str, set[str]])
    unanswered: Sequence[str] = ()
    strangers: Sequence[str] = ()
    audit: Mapping[str, Any] = field(default_factory=dict[str, Any])
    audit_exit: int = 0
    watched: Sequence[str] = ()
    holds: Sequence[Hold] = ()
