"""The oracle of the kill run can say no: histories with one thing wrong, each found under its own name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from tests.chaos import generator, model
from tests.chaos.faults import LASTING, Kind, Moment, faults
from tests.chaos.model import TASKS, expect
from tests.chaos.oracle import given_up, judge
from tests.chaos.seen import Hold, Observed, RecordSeen, RunSeen, SinkLine, TaskSeen
from tests.chaos.truth import (
    Change,
    Entry,
    Hook,
    Line,
    Order,
    Put,
    Removed,
    Stalled,
    Touched,
    TruthFile,
    read,
)

HISTORY: list[Entry] = [
    Put("eu/a.csv", "s1"),
    Touched("eu/a.csv"),
    Put("eu/a.csv", "s1"),
    Put("eu/a.csv", "s2"),
    Put("eu/a.csv", "s1"),
    Removed("eu/a.csv"),
    Put("eu/a.csv", "s1"),
    Hook("h1", "async", 1, "{}"),
    Hook("h2", "plain", 2, "{}"),
    Hook("h3", "broken", 3, '{"key'),
    Hook("h4", "forged", 10, "{}"),
    Hook("h5", "pair", 10, "{}"),
    Hook("h6", "relay", 6, "{}"),
    Hook("h7", "poison", 7, "{}"),
    Line("p0", 1, "record", "{}"),
    Line("p0", 2, "broken", "{"),
    Line("p0", 3, "record", "{}"),
    Order("orders/0", 0, "o1", "{}", broken=False),
    Order("orders/0", 2, "o2", '{"o2', broken=True),
    Order("orders/0", 4, "o3", "{}", broken=False),
    Change(1, "c/public.plain/1/1"),
    Change(2, "d/public.plain/1/gone"),
]


def perfect() -> Observed:
    """What a faultless eventflow shows after `HISTORY`."""
    expected = expect(HISTORY)
    seen = Observed(letters=expected.letters.copy(), taken=expected.taken.copy(), relays=expected.relays)
    runs: list[RunSeen] = []
    tasks: list[TaskSeen] = []
    sink: list[SinkLine] = []
    for (rule, key), count in expected.runs.items():
        for _ in range(count):
            run = f"run-{len(runs)}"
            failed = rule in model.FAILING
            runs.append(RunSeen(run, rule, key, "failed" if failed else "succeeded"))
            for task in TASKS[rule]:
                state, result = ("failed", None) if failed else ("succeeded", 1)
                attempts = 2 if failed else 1
                tasks.append(TaskSeen(run, task, state, attempts, 2 if failed else 0, 0, result))
                sink += [
                    SinkLine(rule, key, run, task, 1, f"{run}/{task}", phase) for phase in ("start", "end")
                ]
    seen.runs, seen.tasks, seen.sink = runs, tasks, sink
    seen.records = [
        RecordSeen("p0", 1, (1, 1)), RecordSeen("p0", 3, (1, 2)),
        RecordSeen("orders/0", 0, (1, 1)), RecordSeen("orders/0", 4, (1, 2)),
        RecordSeen("rows", 1, (1, 1)), RecordSeen("rows", 2, (1, 2)),
    ]  # fmt: skip
    seen.ticks = ["2026-01-01T00:00:00+00:00", "2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z"]
    seen.counted = seen.visits = 7
    seen.cursors, seen.ends = {"p0": 3}, {"p0": 3}
    seen.answers = {"h1": {"h1"}}
    return seen


def promises(seen: Observed) -> str:
    """The names of what is violated, in one text."""
    return "; ".join(violation.promise for violation in judge(expect(HISTORY, given_up(seen)), seen))


def test_a_faultless_history_has_no_violation() -> None:
    assert promises(perfect()) == ""


def test_each_version_of_a_file_counts_once_and_the_same_bytes_again_do_not() -> None:
    runs = expect(HISTORY).runs
    assert runs["file-landed", "eu/a.csv@s1"] == 3
    assert runs["file-landed", "eu/a.csv@s2"] == 1
    assert runs["file-changed", "eu/a.csv@s1"] == 1
    assert runs["file-changed", "eu/a.csv@s2"] == 1
    assert runs["file-removed", "eu/a.csv"] == 1
    assert expect(HISTORY).taken["landing"] == 5


def test_a_tenth_webhook_a_chain_and_an_outcome_lead_to_runs_of_their_own() -> None:
    runs = expect(HISTORY).runs
    assert {rule for rule, key in runs if key == "h5"} == {"hook-pair", "after-pair", "hook-tenth"}
    assert {rule for rule, key in runs if key == "h6"} == {"relayed"}
    assert not [key for _, key in runs if key in ("h2", "h3", "h4")]


def without_a_run(seen: Observed) -> None:
    gone = next(run for run in seen.runs if run.rule == "relayed")
    seen.runs = [run for run in seen.runs if run is not gone]
    seen.tasks = [task for task in seen.tasks if task.run != gone.id]
    seen.sink = [line for line in seen.sink if line.run != gone.id]


def with_a_run_twice(seen: Observed) -> None:
    seen.runs = [*seen.runs, *(replace(r, id="other") for r in seen.runs if r.rule == "hook-async")]


def with_a_run_nobody_asked_for(seen: Observed) -> None:
    seen.runs = [*seen.runs, RunSeen("strange", "hook-async", "h4", "succeeded")]


def with_a_stuck_run(seen: Observed) -> None:
    seen.runs = [replace(run, state="running") if run.rule == "record" else run for run in seen.runs]


def with_a_failed_run(seen: Observed) -> None:
    seen.runs = [replace(run, state="failed") if run.rule == "record" else run for run in seen.runs]


def with_a_stale_result(seen: Observed) -> None:
    first, *others = seen.tasks
    seen.tasks = [replace(first, attempt=2, result_attempt=1), *others]


def with_an_attempt_executed_twice(seen: Observed) -> None:
    seen.sink = [*seen.sink, seen.sink[0]]


def with_a_second_idempotency_key(seen: Observed) -> None:
    seen.sink = [*seen.sink, replace(seen.sink[0], attempt=1, phase="again", idempotency="new")]


def with_a_task_that_never_ran(seen: Observed) -> None:
    silent = next(run.id for run in seen.runs if run.rule == "hook-pair")
    seen.sink = [line for line in seen.sink if line.run != silent]


def with_a_task_missing(seen: Observed) -> None:
    run = next(run.id for run in seen.runs if run.rule == "hook-pair")
    seen.tasks = [task for task in seen.tasks if (task.run, task.task) != (run, "second")]


def with_a_ghost_in_the_sink(seen: Observed) -> None:
    seen.sink = [*seen.sink, SinkLine("record", "p0/9", "ghost", "note", 1, "ghost", "start")]


def without_a_dead_letter(seen: Observed) -> None:
    seen.letters.subtract([("decode", "{")])
    seen.letters = +seen.letters


def with_a_dead_letter_twice(seen: Observed) -> None:
    seen.letters.update([("decode", "{")])


def with_records_out_of_order(seen: Observed) -> None:
    seen.records = [RecordSeen("p0", 1, (2, 1)), RecordSeen("p0", 3, (1, 2))]


def with_a_change_out_of_order(seen: Observed) -> None:
    seen.records = [RecordSeen("rows", 1, (2, 1)), RecordSeen("rows", 2, (1, 2))]


def with_an_aborted_record(seen: Observed) -> None:
    seen.runs = [*seen.runs, RunSeen("aborted", "order", "o9", "succeeded")]


def without_a_tick(seen: Observed) -> None:
    seen.ticks = [seen.ticks[0], seen.ticks[2]]


def with_a_tick_twice(seen: Observed) -> None:
    seen.ticks = [*seen.ticks, "2026-01-01T01:00:01+01:00"]


def without_any_tick(seen: Observed) -> None:
    seen.ticks = []


def with_a_row_not_counted(seen: Observed) -> None:
    seen.counted -= 1


def with_a_cursor_behind(seen: Observed) -> None:
    seen.cursors = {"p0": 2}


def with_an_event_too_many(seen: Observed) -> None:
    seen.taken["hooks"] += 1


def with_an_audit_that_fails(seen: Observed) -> None:
    seen.audit_exit = 1


def with_two_answers(seen: Observed) -> None:
    seen.answers = {"h1": {"h1", "other"}}


def with_an_unanswered_webhook(seen: Observed) -> None:
    seen.unanswered = ["h1"]


def with_a_dead_owner(seen: Observed) -> None:
    seen.strangers = ["partition landing is owned by nobody alive"]


def with_a_task_before_the_one_it_comes_after(seen: Observed) -> None:
    run = next(run.id for run in seen.runs if run.rule == "hook-pair")
    seen.sink = sorted(seen.sink, key=lambda line: (line.run == run, line.task == "first"))


def with_half_a_file_read(seen: Observed) -> None:
    seen.sink = [replace(seen.sink[0], content="half", rule="file-landed", phase="read"), *seen.sink]


def with_a_lease_taken_from_a_node_that_is_well(seen: Observed) -> None:
    starts = [line for line in seen.sink if line.phase == "start"]
    seen.sink = [replace(line, at=10.0, process=7) for line in seen.sink]
    seen.sink = [*seen.sink, *(replace(line, attempt=2, at=5.0) for line in starts)]
    seen.holds = [Hold(7, 11.0, 12.0), Hold(8, 5.0, 6.0)]


def with_a_failure_counted_twice(seen: Observed) -> None:
    seen.tasks = [replace(task, failures=3) if task.task == "poison" else task for task in seen.tasks]


WRONG: dict[Callable[[Observed], None], str] = {
    without_a_run: "lost",
    with_a_run_twice: "doubled",
    with_a_run_nobody_asked_for: "unexpected",
    with_a_stuck_run: "stuck",
    with_a_failed_run: "wrong state",
    with_a_stale_result: "accepted from an attempt that had lost",
    with_an_attempt_executed_twice: "executed twice",
    with_a_second_idempotency_key: "not one idempotency key",
    with_a_task_that_never_ran: "never wrote to the sink",
    with_a_task_missing: "without all of its tasks",
    with_a_ghost_in_the_sink: "the sink has a run",
    without_a_dead_letter: "dead letters missing",
    with_a_dead_letter_twice: "dead letters too many",
    with_records_out_of_order: "overtook",
    with_a_change_out_of_order: "overtook",
    with_an_aborted_record: "unexpected",
    without_a_tick: "skipped a tick",
    with_a_tick_twice: "ticked twice",
    without_any_tick: "skipped a tick",
    with_a_row_not_counted: "did not count every row",
    with_a_cursor_behind: "not at the end",
    with_an_event_too_many: "do not balance",
    with_an_audit_that_fails: "audit does not balance",
    with_two_answers: "answered with different events",
    with_an_unanswered_webhook: "never answered",
    with_a_dead_owner: "left behind",
    with_a_task_before_the_one_it_comes_after: "before the one it comes after",
    with_half_a_file_read: "not whole",
    with_a_lease_taken_from_a_node_that_is_well: "taken from a node that was well",
    with_a_failure_counted_twice: "miscounted",
}


@pytest.mark.parametrize("harm", WRONG, ids=lambda harm: harm.__name__)
def test_the_oracle_notices_a_history(harm: Callable[[Observed], None]) -> None:
    seen = perfect()
    harm(seen)
    assert WRONG[harm] in promises(seen)


def test_a_run_given_up_after_three_crashes_is_the_drivers_own_doing() -> None:
    seen = perfect()
    victim = next(run for run in seen.runs if run.rule == "hook-async")
    seen.runs = [replace(run, state="failed") if run is victim else run for run in seen.runs]
    seen.tasks = [
        replace(task, state="failed", attempt=3, crashes=3, result_attempt=None)
        if task.run == victim.id
        else task
        for task in seen.tasks
    ]
    assert "dead letters missing" in promises(seen)
    seen.letters["task", "hook-async h1"] = 1
    assert promises(seen) == ""


def test_a_stalled_slow_write_allows_its_parts_but_not_a_lost_whole() -> None:
    history: list[Entry] = [Put("eu/s.csv", "whole"), Stalled("eu/s.csv")]
    part = RunSeen("1", "file-landed", "eu/s.csv@part", "succeeded")
    whole = RunSeen("2", "file-landed", "eu/s.csv@whole", "succeeded")
    assert "lost" in {v.promise.split(":")[0] for v in judge(expect(history), Observed(runs=[part]))}
    found = {v.promise for v in judge(expect(history), Observed(runs=[part, whole]))}
    assert not [promise for promise in found if promise.startswith(("lost", "doubled", "unexpected"))]


def test_a_seed_plans_the_same_run_again_and_another_seed_another() -> None:
    def plan(seed: int) -> list[object]:
        hooks, files, lines = generator.hooks(seed), generator.files(seed), generator.lines(seed)
        orders, changes = generator.orders(seed), generator.changes(seed)
        streams = (hooks, files, lines, orders, changes)
        planned: list[object] = [next(stream) for stream in streams for _ in range(50)]
        return [*planned, *faults(seed, 60, 3.0)]

    assert plan(7) == plan(7)
    assert plan(7) != plan(8)


def test_a_minute_holds_every_fault_and_moment_and_what_lasts_outlasts_a_lease() -> None:
    planned = list(faults(1, 60, 3.0))
    assert [fault.at for fault in planned] == sorted(fault.at for fault in planned)
    assert {fault.kind for fault in planned} == set(Kind)
    assert {fault.moment for fault in planned} == set(Moment)
    assert all(fault.seconds > 3.0 for fault in planned if fault.kind in LASTING)
    assert max(b.at - a.at for a, b in pairwise(planned)) >= 2


def test_the_truth_can_be_read_back_and_is_on_disk_before_anything_is_sent(tmp_path: Path) -> None:
    written = TruthFile(tmp_path / "truth.jsonl")
    for number, entry in enumerate(HISTORY, 1):
        written.write(entry)
        assert len(list(read(tmp_path / "truth.jsonl"))) == number
    assert list(read(tmp_path / "truth.jsonl")) == HISTORY


def test_the_model_stays_small() -> None:
    assert len(inspect.getsource(model).splitlines()) < 300
