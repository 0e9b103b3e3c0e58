"""Which tasks become ready, and how a run ends."""

from __future__ import annotations

import random

import pytest

from eventflow.workflow.advance import RunState, Step, TaskState, advance, roots, step_of_only_task
from eventflow.workflow.definition import Task, Workflow

READY, RUNNING = TaskState.ready, TaskState.running
OK, FAILED, CANCELLED = TaskState.succeeded, TaskState.failed, TaskState.cancelled


def workflow(**after: str) -> Workflow:
    """Each task with the names it comes after, separated by blanks."""
    tasks = {name: Task(name, "m:f", after=tuple(names.split())) for name, names in after.items()}
    return Workflow("w", {}, tasks)


DIAMOND = workflow(a="", b="a", c="a", d="b c")


def test_a_run_begins_with_the_tasks_that_come_after_nothing() -> None:
    assert roots(DIAMOND) == ("a",)
    assert roots(workflow(a="", b="", c="a b")) == ("a", "b")


@pytest.mark.parametrize(
    ("states", "step"),
    [
        ({"a": RUNNING}, Step()),
        ({"a": OK}, Step(("b", "c"))),
        ({"a": OK, "b": OK, "c": RUNNING}, Step()),
        ({"a": OK, "b": OK, "c": OK}, Step(("d",))),
        ({"a": OK, "b": OK, "c": OK, "d": OK}, Step(end=RunState.succeeded)),
        ({"a": FAILED}, Step(end=RunState.failed)),
        ({"a": READY}, Step()),
        ({"a": OK, "b": FAILED, "c": RUNNING}, Step()),
        ({"a": OK, "b": FAILED, "c": OK}, Step(end=RunState.failed)),
        ({"a": OK, "b": CANCELLED, "c": OK}, Step(end=RunState.cancelled)),
        ({"a": OK, "b": CANCELLED, "c": FAILED}, Step(end=RunState.failed)),
    ],
)
def test_what_follows_from_the_states_of_a_diamond(states: dict[str, TaskState], step: Step) -> None:
    assert advance(DIAMOND, states) == step


def test_branches_beside_a_failed_one_go_on() -> None:
    branches = workflow(a="", b="", after_a="a", after_b="b")
    assert advance(branches, {"a": FAILED, "b": OK}) == Step(("after_b",))
    assert advance(branches, {"a": FAILED, "b": OK, "after_b": OK}) == Step(end=RunState.failed)


@pytest.mark.parametrize("state", list(TaskState))
def test_a_workflow_of_one_task_takes_the_same_step_by_the_short_way(state: TaskState) -> None:
    assert step_of_only_task(state) == advance(workflow(a=""), {"a": state})


@pytest.mark.parametrize("seed", range(50))
def test_every_run_ends_and_no_task_is_ready_before_its_parents(seed: int) -> None:
    chance = random.Random(seed)
    names = [f"t{n}" for n in range(chance.randint(1, 12))]
    graph = workflow(
        **{name: " ".join(one for one in names[:n] if chance.random() < 0.3) for n, name in enumerate(names)}
    )
    states = dict.fromkeys(roots(graph), READY)
    while not (step := advance(graph, states)).end:
        for name in step.ready:
            assert name not in states
            assert all(states[parent] is OK for parent in graph.tasks[name].after)
            states[name] = READY
        live = [name for name, state in states.items() if state is READY]
        assert live, "nothing may run, and the run has not ended"
        states[chance.choice(live)] = chance.choices([OK, FAILED], [9, 1])[0]
    assert (step.end is RunState.succeeded) == (len(states) == len(names) and set(states.values()) == {OK})
