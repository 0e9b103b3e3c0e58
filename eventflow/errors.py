"""Every error eventflow raises on purpose.

    EventflowError
    ├── UsageError            wrong command, setting or argument; exit code 2
    │   └── RuleSetError      one or more `Problem`s in rule files, each with file:line:column
    ├── SourceError           a source cannot go on by itself
    │   ├── SourceUnavailable its system is away or refuses; retried with backoff
    │   └── SourceStopped     a gap or a foreign origin; waits for a person
    ├── Undecodable           bytes that are no event; becomes a dead letter of stage `decode`
    ├── StoreError            Postgres said no
    │   ├── OwnershipLost     another node owns the partition now; roll back, let go
    │   ├── RevisionChanged   the rule set moved on; run the batch again with the new one
    │   ├── UnsafeDurability  fsync, synchronous_commit or full_page_writes is off
    │   └── SchemaMismatch    the database's schema is newer or older than this code
    ├── ListenError           the HTTP address is taken or cannot be had; exit code 1
    └── TaskError             a task failed in a way that eventflow itself noticed

A message says what happened, to which object, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class EventflowError(Exception):
    """The root of the tree."""


class UsageError(EventflowError):
    """Wrong command, setting or argument; commands exit 2."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong (or doubtful) in a file. `line` and `column` count from 1."""

    file: str
    line: int
    column: int
    message: str
    warning: bool = False

    def __str__(self) -> str:
        kind = "warning: " if self.warning else ""
        return f"{self.file}:{self.line}:{self.column}: {kind}{self.message}"


class RuleSetError(UsageError):
    """A rule set does not load. `problems` is in file order and holds at least one error."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class SourceError(EventflowError):
    """A source cannot go on by itself."""


class SourceUnavailable(SourceError):
    """The source's system is away or refuses us; the partition is let go and tried again with backoff."""


class SourceStopped(SourceError):
    """A gap in the stream, or another origin behind the same address: stop rather than guess.

    `missing` is the range that is gone, as JSON in the connector's own words; the message says it too.
    """

    def __init__(self, message: str, missing: Any = None) -> None:
        self.missing = missing
        super().__init__(message)


class Undecodable(EventflowError):
    """Bytes that are no event. `reason` is one sentence for the dead letter."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class StoreError(EventflowError):
    """Postgres refused something eventflow needs."""


class OwnershipLost(StoreError):
    """The compare-and-set on the partition's row failed: somebody else owns it now."""


class RevisionChanged(StoreError):
    """The batch was matched with a rule set that is no longer the current one."""


class UnsafeDurability(StoreError):
    """The server may lose what it acknowledged."""


class SchemaMismatch(StoreError):
    """The database's schema and this version of eventflow do not fit together."""


class ListenError(EventflowError):
    """The HTTP address is taken or cannot be had; commands exit 1."""


class TaskError(EventflowError):
    """A task failed in a way that eventflow itself noticed: a crash, a timeout, a bad result."""
