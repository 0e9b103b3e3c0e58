"""How an attempt ended, and what becomes of its task run by that."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

import msgspec

from eventflow.store.task_runs import Claimed
from eventflow.workflow.advance import TaskState
from eventflow.workflow.definition import Retry
from eventflow.workflow.retry import MAX_CRASHES, wait_after

ERROR_LIMIT: Final = 8_192
_NOT_TEXT: Final = re.compile("[\x00\ud800-\udfff]")


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """The end of one attempt: the task run's new state, in effect only if the attempt still holds it.

    `result` is JSON. `wait` is how long a `ready` one is not due. `failed` and `crashed` raise the task
    run's counters. `expired`: valid only if the lease has run out.
    """

    claimed: Claimed
    state: TaskState
    result: bytes | None = None
    error: str | None = None
    wait: timedelta = timedelta(0)
    failed: bool = False
    crashed: bool = False
    expired: bool = False


def succeeded(claimed: Claimed, result: bytes) -> Outcome:
    """The attempt returned."""
    return Outcome(claimed, TaskState.succeeded, result=result)


def failed(claimed: Claimed, error: str, retry: Retry, chance: float) -> Outcome:
    """The attempt failed; another one follows if `retry` allows it."""
    wait = wait_after(retry, claimed.failures + 1, chance)
    if wait is None:
        return Outcome(claimed, TaskState.failed, error=as_text(error), failed=True)
    return Outcome(claimed, TaskState.ready, error=as_text(error), failed=True, wait=wait)


def crashed(claimed: Claimed, error: str, *, expired: bool = False) -> Outcome:
    """The process under the attempt died, or its lease ran out: no fault of the task until the third time."""
    last = claimed.crashes + 1 >= MAX_CRASHES
    state = TaskState.failed if last else TaskState.ready
    return Outcome(claimed, state, error=as_text(error), crashed=True, expired=expired)


def handed_back(claimed: Claimed) -> Outcome:
    """The worker stops before the attempt ended: somebody else tries, and nothing is used up."""
    return Outcome(claimed, TaskState.ready)


def as_text(error: str) -> str:
    """Text that Postgres takes: no NUL, no lone surrogate, and its last 8 KiB at most."""
    text = _NOT_TEXT.sub("\ufffd", error)
    return text if len(text) <= ERROR_LIMIT else "... " + text[-ERROR_LIMIT:]
