"""How each task of a workflow is called: worked out once per revision, used for every attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from eventflow.event import encode_json
from eventflow.expression import Template, activate
from eventflow.store.failures import is_disconnect
from eventflow.task import describe_error
from eventflow.worker.locate import Function, find_function
from eventflow.workflow.definition import OfKind, ParamType, Task, Workflow

_TYPED: Final = frozenset({ParamType.date, ParamType.datetime, ParamType.duration})

WorkflowOf = Callable[[int, str], Awaitable[Workflow]]
"""The definition that runs of a revision are pinned to. Raises where this node cannot load it."""

CodeFolder = Callable[[int], Awaitable[Path]]
"""A folder with exactly the Python files of a revision."""


@dataclass(frozen=True)
class TaskPlan:
    """One task of one revision. `folder` holds its code, `function` says how what it calls is called."""

    workflow: Workflow
    task: Task
    folder: str
    function: Function

    @cached_property
    def in_loop(self) -> bool:
        """Runs on the loop for tasks, not in a process."""
        return self.function.is_async

    @cached_property
    def wants_event(self) -> bool:
        """Has a `ctx`, in which the triggering event stands."""
        return self.function.wants_context

    @cached_property
    def templates(self) -> tuple[Template, ...]:
        """Everything in it that may have holes."""
        call = self.task.call
        return (*self.task.inputs.values(), *(call if isinstance(call, tuple) else ()))

    @cached_property
    def wants_results(self) -> bool:
        """Reads the results of tasks before it."""
        return any(
            reference[0] == "tasks"
            for template in self.templates
            for hole in template.holes
            for reference in (hole.expression.references if hole.expression else ())
        )

    @cached_property
    def fixed_arguments(self) -> bytes | None:
        """The arguments as JSON, where they are the same for every run."""
        if any(template.holes for template in self.templates):
            return None
        nothing = activate({})
        return encode_json({name: template.render(nothing) for name, template in self.task.inputs.items()})

    @cached_property
    def typed(self) -> dict[str, str]:
        """The arguments that are just one parameter of a type which JSON does not have, with that type.

        None of a connector's kind: its own model gives its words their types.
        """
        if isinstance(self.task.call, OfKind):
            return {}
        found = {name: self._type_of(template) for name, template in self.task.inputs.items()}
        return {name: kind for name, kind in found.items() if kind is not None}

    def _type_of(self, template: Template) -> str | None:
        if len(template.holes) != 1 or not template.holes[0].whole or template.holes[0].path:
            return None
        variable, _, name = template.holes[0].text.strip().partition(".")
        param = self.workflow.params.get(name) if variable == "params" else None
        return str(param.type) if param is not None and param.type in _TYPED else None


@dataclass(frozen=True, slots=True)
class Unusable:
    """A workflow that this node cannot load, or whose code it cannot unpack: its runs can only fail."""

    reason: str


Plans = Mapping[str, TaskPlan]
"""By the name of the task."""


MOST_KNOWN: Final = 256
"""Workflows kept beside those in use: more than one claim may bring."""


class PlanBook:
    """The plans of the workflows that this worker met last, by revision and name, and of all `in_use`."""

    def __init__(
        self,
        workflow_of: WorkflowOf,
        code_folder: CodeFolder,
        in_use: Callable[[], Container[tuple[int, str]]],
    ) -> None:
        self._in_use = in_use
        self._workflow_of = workflow_of
        self._code_folder = code_folder
        self._known: dict[tuple[int, str], Plans] = {}

    def known(self, revision: int, name: str) -> Plans | None:
        """What `get` has made before."""
        plans = self._known.pop((revision, name), None)
        if plans is not None:
            self._known[revision, name] = plans  # the last one is the one met last
        return plans

    async def get(self, revision: int, name: str) -> Plans | Unusable:
        """The plans of a workflow. Raises only what a lost connection raises."""
        known = self.known(revision, name)
        if known is not None:
            return known
        try:
            workflow = await self._workflow_of(revision, name)
            folder = await self._code_folder(revision)
        except KeyError:
            return Unusable(f"rule set revision {revision} has no workflow '{name}'")
        except Exception as error:
            if is_disconnect(error):
                raise
            return Unusable(
                f"rule set revision {revision} cannot be used on this node: {describe_error(error)}"
            )
        plans = self._known[revision, name] = await asyncio.to_thread(_plans, workflow, folder)
        if len(self._known) > MOST_KNOWN:
            self._forget_oldest()
        return plans

    def _forget_oldest(self) -> None:
        in_use = self._in_use()
        free = [key for key in self._known if key not in in_use]
        for key in free[:-MOST_KNOWN]:
            del self._known[key]

    def workflow(self, revision: int, name: str) -> Workflow | None:
        """The definition; None where `get` could not make plans of it."""
        plans = self._known.get((revision, name))
        return next(iter(plans.values())).workflow if plans else None

    def process_tasks(self) -> list[tuple[int, str, str]]:
        """Revision, workflow and name of every known task that needs a process."""
        return [
            (revision, name, task)
            for (revision, name), plans in self._known.items()
            for task, plan in plans.items()
            if not plan.in_loop
        ]


def _plans(workflow: Workflow, folder: Path) -> dict[str, TaskPlan]:
    return {
        name: TaskPlan(workflow, task, str(folder), _function(task, folder))
        for name, task in workflow.tasks.items()
    }


def _function(task: Task, folder: Path) -> Function:
    match task.call:
        case str(target):
            return find_function(folder, target)
        case OfKind():
            return Function(is_async=True)
        case _:
            return Function(wants_context=False)
