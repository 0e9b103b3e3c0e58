"""What was seen against what had to be: every promise is one function that returns its violations.

Pure. `observe.py` reads the database, the sink and `eventflow audit`; `model.py` says what must exist.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.chaos.model import AFTER, FAILING, POISON_ATTEMPTS, SLOW, SOURCES, TASKS, Expected, RunKey
from tests.chaos.seen import Hold, Observed, RecordSeen, RunSeen, SinkLine, TaskSeen

ENDED = frozenset({"succeeded", "failed", "cancelled", "skipped"})
LEASE_PASSES = 4.0
"""Seconds after a hold in which a lease that ran out during it may still be acted upon."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise and the keys it was broken for."""

    promise: str
    keys: Sequence[str]

    def __str__(self) -> str:
        shown = "".join(f"\n    {key}" for key in self.keys[:10])
        more = f"\n    ... and {len(self.keys) - 10} more" if len(self.keys) > 10 else ""
        return f"{self.promise} ({len(self.keys)}){shown}{more}"


def judge(expected: Expected, seen: Observed) -> list[Violation]:
    """Every violation, the plainest first."""
    found = [
        *_runs(expected, seen),
        *_states(seen),
        *_sink(seen),
        *_results(seen),
        *_leases(seen),
        *_steps(seen),
        *_contents(expected, seen),
        *_letters(expected, seen),
        *_order(seen),
        *_positions(expected, seen),
        *_ticks(seen),
        *_counted_rows(seen),
        *_intake(expected, seen),
        *_answers(seen),
        *_said("left behind by a dead process", seen.strangers),
        *_said("seen while it ran", seen.watched),
    ]
    return [violation for violation in found if violation.keys]


def given_up(seen: Observed) -> set[RunKey]:
    """Runs that ended because one of their tasks crashed three times: the kills did that."""
    crashed = {task.run for task in seen.tasks if task.crashes >= 3 and task.state == "failed"}
    return {(run.rule, run.key) for run in seen.runs if run.id in crashed and run.state == "failed"}


def _said(promise: str, keys: Iterable[str]) -> list[Violation]:
    return [Violation(promise, sorted(keys))]


def _sure(expected: Expected, key: RunKey) -> bool:
    """False for a run of a file of which a part may rightly have been taken for the whole."""
    return not (key[0].startswith("file-") and key[1].partition("@")[0] in expected.unsure)


def _runs(expected: Expected, seen: Observed) -> list[Violation]:
    runs = Counter((run.rule, run.key) for run in seen.runs)
    lost = [key for key, count in expected.runs.items() if runs[key] < count and _counted(expected, key)]
    more = [key for key, count in runs.items() if count > max(expected.runs[key], 1)]
    strange = [key for key in runs if key not in expected.runs and _sure(expected, key)]
    return [
        *_said("lost: no run for", (f"{rule} {key}" for rule, key in lost)),
        *_said("doubled: more than one run for", (f"{rule} {key} x{runs[rule, key]}" for rule, key in more)),
        *_said("unexpected: a run that nothing asked for", (f"{rule} {key}" for rule, key in strange)),
    ]


def _counted(expected: Expected, key: RunKey) -> bool:
    return _sure(expected, key) or key[0] == "file-landed"


def _states(seen: Observed) -> list[Violation]:
    excused = given_up(seen)
    stuck = [f"{run.rule} {run.key} is {run.state}" for run in seen.runs if run.state not in ENDED]
    wrong = [
        f"{run.rule} {run.key} is {run.state}"
        for run in seen.runs
        if run.state in ENDED
        and (run.rule, run.key) not in excused
        and run.state != ("failed" if run.rule in FAILING else "succeeded")
    ]
    quick = [f"{rule} {key}" for rule, key in excused if rule not in SLOW]
    return [
        *_said("stuck: runs that have not ended", stuck),
        *_said("ended in the wrong state", wrong),
        *_said(
            "crashed three times, more often than the kills explain",
            _beyond(quick, max(3, len(seen.runs) // 50)),
        ),
    ]


def _beyond(keys: Sequence[str], tolerated: int) -> Sequence[str]:
    """Nothing where there are few enough of them."""
    return keys if len(keys) > tolerated else ()


def _sink(seen: Observed) -> list[Violation]:
    runs = {run.id: run for run in seen.runs}
    tasks = {(task.run, task.task): task for task in seen.tasks}
    lines = Counter((line.run, line.task, line.attempt, line.phase) for line in seen.sink)
    keys: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for line in seen.sink:
        keys[line.run, line.task].add(line.idempotency)
    owners = Counter(key for found in keys.values() for key in found)
    foreign = {f"{line.rule} {line.key} run {line.run}" for line in seen.sink if line.run not in runs}
    ahead = [
        f"{line.run} {line.task} attempt {line.attempt}"
        for line in seen.sink
        if (task := tasks.get((line.run, line.task))) and line.attempt > task.attempt
    ]
    return [
        *_said("the sink has a run that the database does not", foreign),
        *_said("one attempt was executed twice", (str(line) for line, count in lines.items() if count > 1)),
        *_said("the attempt number went back", ahead),
        *_said("not one idempotency key per task run", (str(k) for k, v in keys.items() if len(v) != 1)),
        *_said("two task runs share an idempotency key", (k for k, count in owners.items() if count > 1)),
        *_said("succeeded, but its task never wrote to the sink", _silent(runs, lines, seen.tasks)),
    ]


def _silent(
    runs: Mapping[str, RunSeen], lines: Counter[tuple[str, str, int, str]], tasks: Sequence[TaskSeen]
) -> list[str]:
    return [
        f"{runs[task.run].rule} {runs[task.run].key} {task.task} attempt {task.attempt}"
        for task in tasks
        if task.state == "succeeded" and not lines[task.run, task.task, task.attempt, "end"]
    ]


def _results(seen: Observed) -> list[Violation]:
    """One accepted result per task run, and it is that of the attempt the row names."""
    done: defaultdict[str, set[str]] = defaultdict(set)
    stale: list[str] = []
    for task in seen.tasks:
        if task.state == "succeeded":
            done[task.run].add(task.task)
        if task.result_attempt is not None and task.result_attempt != task.attempt:
            stale.append(
                f"{task.run} {task.task}: attempt {task.attempt}, but the result is of {task.result_attempt}"
            )
    short = [
        f"{run.rule} {run.key}: {sorted(set(TASKS[run.rule]) - done[run.id])}"
        for run in seen.runs
        if run.state == "succeeded" and run.rule in TASKS and done[run.id] != set(TASKS[run.rule])
    ]
    return [
        *_said("a result was accepted from an attempt that had lost its lease", stale),
        *_said("succeeded without all of its tasks", short),
    ]


def _leases(seen: Observed) -> list[Violation]:
    """A lease is taken only from who cannot renew it; a failure is counted as often as it happened."""
    lines = {(line.run, line.task, line.attempt, line.phase): line for line in seen.sink}
    robbed: list[str] = []
    for (run, task, attempt, phase), end in lines.items():
        later = lines.get((run, task, attempt + 1, "start"))
        if phase == "end" and later and later.at < end.at and not _held(seen.holds, end.process, later.at):
            robbed.append(f"{end.rule} {end.key} {task}: attempt {attempt} was at work when the next began")
    rules = {run.id: run.rule for run in seen.runs}
    miscounted = [
        f"{rules.get(task.run)} {task.run}: {task.failures} failures in {task.attempt} attempts"
        for task in seen.tasks
        if task.failures + task.crashes > task.attempt
        or (
            rules.get(task.run) in FAILING
            and task.state == "failed"
            and task.crashes < 3
            and task.failures != POISON_ATTEMPTS
        )
    ]
    return [
        *_said(
            "an attempt was taken from a node that was well", _beyond(robbed, max(3, len(seen.runs) // 500))
        ),
        *_said("failures are miscounted", miscounted),
    ]


def _held(holds: Iterable[Hold], process: int, at: float) -> bool:
    """Whether the process may have lost its leases at that moment. That Postgres was away is no reason to."""
    return any(
        hold.process == process and hold.began <= at and at <= hold.ended + LEASE_PASSES for hold in holds
    )


def _steps(seen: Observed) -> list[Violation]:
    """A task that comes after another begins after that one's end."""
    ended: set[tuple[str, str]] = set()
    early: list[str] = []
    for line in seen.sink:
        if line.phase == "end":
            ended.add((line.run, line.task))
        elif (before := AFTER.get((line.rule, line.task))) and (line.run, before) not in ended:
            early.append(f"{line.rule} {line.key}: {line.task} before the end of {before}")
    return _said("a task began before the one it comes after had ended", early)


def _contents(expected: Expected, seen: Observed) -> list[Violation]:
    """Whoever first reads a file finds the content that the event names: the driver changes it only later."""
    first: dict[RunKey, SinkLine] = {}
    for line in seen.sink:
        if line.content:
            first.setdefault((line.rule, line.key), line)
    wrong = [
        f"{line.key} read as {line.content}"
        for key, line in first.items()
        if _sure(expected, key) and line.key.partition("@")[2] != line.content
    ]
    return _said("a file was not whole when its run read it", wrong)


def _letters(expected: Expected, seen: Observed) -> list[Violation]:
    def shown(letters: Counter[tuple[str, str]]) -> list[str]:
        return [f"{stage} {key} x{count}" for (stage, key), count in letters.items()]

    return [
        *_said("dead letters missing", shown(expected.letters - seen.letters)),
        *_said("dead letters too many", shown(seen.letters - expected.letters)),
    ]


def _order(seen: Observed) -> list[Violation]:
    """Records of one partition were taken in as they stand in its file, log or history."""
    wrong: list[str] = []
    latest: dict[str, RecordSeen] = {}
    for record in sorted(seen.records, key=lambda record: (record.partition, record.number)):
        before = latest.get(record.partition)
        if before and record.order < before.order:
            wrong.append(f"{record.partition}/{record.number} before {before.partition}/{before.number}")
        latest[record.partition] = record
    return _said("order: a record overtook another of its partition", wrong)


def _ticks(seen: Observed) -> list[Violation]:
    """One event for every second from the first tick to the last."""
    times = Counter(datetime.fromisoformat(tick) for tick in seen.ticks)
    first, last = min(times, default=None), max(times, default=None)
    missing: list[str] = []
    while first is not None and last is not None and first < last:
        first += timedelta(seconds=1)
        if first not in times:
            missing.append(first.isoformat())
    return [
        *_said("the clock skipped a tick", missing if times else ["all of them"]),
        *_said("the clock ticked twice", (str(at) for at, count in times.items() if count > 1)),
    ]


def _counted_rows(seen: Observed) -> list[Violation]:
    wrong = [] if seen.counted == seen.visits else [f"{seen.counted} counted, {seen.visits} there"]
    return _said("the watermark did not count every row once", wrong)


def _positions(expected: Expected, seen: Observed) -> list[Violation]:
    behind = [
        f"{partition}: cursor {seen.cursors.get(partition)}, the file ends at {seen.ends.get(partition)}"
        for partition in expected.ends
        if seen.cursors.get(partition) != seen.ends.get(partition)
    ]
    return _said("a cursor is not at the end of its file", behind)


def _intake(expected: Expected, seen: Observed) -> list[Violation]:
    """The figures of events against folder and sender, and what `eventflow audit` says of them."""
    wrong = [
        f"{source}: {seen.taken[source]} taken in, {expected.taken[source]} sent"
        for source in SOURCES
        if seen.taken[source] != expected.taken[source] and not (source == "landing" and expected.unsure)
    ]
    if seen.relays != expected.relays:
        wrong.append(f"emits: {seen.relays} taken in, {expected.relays} expected")
    audit = [] if seen.audit_exit == 0 else [f"exit {seen.audit_exit}: {seen.audit}"]
    return [
        *_said("the events do not balance with what was sent", wrong),
        *_said("eventflow audit does not balance", audit),
    ]


def _answers(seen: Observed) -> list[Violation]:
    two = [f"{key}: {sorted(ids)}" for key, ids in seen.answers.items() if len(ids) > 1]
    return [
        *_said("duplicates of one webhook were answered with different events", two),
        *_said("webhooks that were never answered 2xx", seen.unanswered),
    ]
