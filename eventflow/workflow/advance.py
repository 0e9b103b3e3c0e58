"""What happens next in a run: which tasks become ready, and how the run ends. Pure.

Before it: the finish transaction has locked the run's row and read the states of its task runs. After it:
that transaction inserts the ready tasks or ends the run.

    task run   ready -> running -> succeeded | failed | cancelled
                 ^---------'       (a retry, a rescue or a hand-back)
    run        running -> succeeded | failed | cancelled
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from eventflow.workflow.definition import Workflow


class TaskState(StrEnum):
    """The states of a task run; equal to the table's CHECK."""

    ready = "ready"
    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"
    skipped = "skipped"


class RunState(StrEnum):
    """The states of a run; equal to the table's CHECK."""

    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"
    skipped = "skipped"


LIVE = frozenset({TaskState.ready, TaskState.running})
"""The states of a task run that has not ended."""


@dataclass(frozen=True, slots=True)
class Step:
    """`ready` are the tasks to insert, in the workflow's order; `end` is how the run ended, if it did."""

    ready: tuple[str, ...] = ()
    end: RunState | None = None


_SUCCEEDED = Step(end=RunState.succeeded)


def roots(workflow: Workflow) -> tuple[str, ...]:
    """The tasks a run begins with."""
    return tuple(name for name, task in workflow.tasks.items() if not task.after)


def advance(workflow: Workflow, states: Mapping[str, TaskState]) -> Step:
    """The next step of a run whose task runs have these states; a task without a row is not in `states`.

    A task is ready when all tasks it comes after have succeeded. Branches that do not depend on a failed
    task go on; the run ends when nothing is left that may still run: failed if any task failed.
    """
    ready = tuple(
        name
        for name, task in workflow.tasks.items()
        if name not in states and all(states.get(parent) is TaskState.succeeded for parent in task.after)
    )
    if ready or not LIVE.isdisjoint(states.values()):
        return Step(ready)
    return Step(end=_end_state(states))


def _end_state(states: Mapping[str, TaskState]) -> RunState:
    ended = set(states.values())
    if TaskState.failed in ended:
        return RunState.failed
    return RunState.cancelled if TaskState.cancelled in ended else RunState.succeeded


def step_of_only_task(state: TaskState) -> Step:
    """`advance` for a workflow of one task: its siblings need not be read."""
    if state is TaskState.succeeded:
        return _SUCCEEDED
    return Step() if state in LIVE else Step(end=_end_state({"": state}))
