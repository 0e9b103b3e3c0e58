"""What must exist after the history in the truth: no I/O, no clock, not a line shared with the engine.

It knows the rules of `rules/chaos.yaml` by heart; `test_model.py` shows that it can say no.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.truth import Change, Entry, Hook, Line, Order, Put, Removed, Stalled, Touched

RunKey = tuple[str, str]
"""(rule, source key): what a run is for. The source key is also the run's parameter `key`."""

TASKS: Final[Mapping[str, Sequence[str]]] = {
    "file-landed": ("profile", "load"),
    "file-changed": ("note",),
    "file-removed": ("note",),
    "hook-async": ("note",),
    "hook-process": ("work",),
    "hook-shell": ("shell",),
    "hook-pair": ("first", "second"),
    "hook-flaky": ("flaky",),
    "hook-poison": ("poison",),
    "hook-slow": ("slow",),
    "hook-slower": ("slower",),
    "hook-tenth": ("note",),
    "relayed": ("note",),
    "after-pair": ("note",),
    "record": ("note",),
    "record-third": ("work",),
    "order": ("note",),
    "row": ("note",),
}
"""The tasks of the workflow that each rule starts."""

AFTER: Final[Mapping[tuple[str, str], str]] = {
    ("file-landed", "load"): "profile",
    ("hook-pair", "second"): "first",
}
"""(rule, task): the task it comes after."""

SLOW: Final = frozenset({"hook-slow", "hook-slower"})
"""Rules whose tasks take longer than a lease."""

POISON_ATTEMPTS: Final = 2
"""How often a task of `FAILING` fails before its run does."""

FAILING: Final = frozenset({"hook-poison"})
"""Rules whose runs fail, and leave one dead letter of stage `run` each."""

HOOK_RULES: Final[Mapping[str, Sequence[str]]] = {
    "plain": (),
    "async": ("hook-async",),
    "process": ("hook-process",),
    "shell": ("hook-shell",),
    "pair": ("hook-pair",),
    "flaky": ("hook-flaky",),
    "poison": ("hook-poison",),
    "slow": ("hook-slow",),
    "slower": ("hook-slower",),
    "relay": ("relayed",),
}
"""Rules that one webhook of a kind sets off, whatever its number; `broken` and `forged` set off none."""

SOURCES: Final = ("landing", "hooks", "numbers", "orders", "rows")
"""Sources of which every event is known beforehand; of clocks and counts only what they come to."""


@dataclass(slots=True)
class Expected:
    """What must exist, and what may.

    `runs` maps (rule, key) to how many: 1 wherever the generator is right. `unsure` are paths of which
    eventflow may rightly have seen a part: only their whole content is counted on. `letters` holds
    (stage, key): the raw text of a broken record, or "rule key" of a failed run (stage `task` where it was
    given up). `taken` counts the events and broken records per source, `ends` the last number per partition.
    `changes` has the number of each change of a row, by its key.
    """

    runs: Counter[RunKey] = field(default_factory=Counter[RunKey])
    unsure: set[str] = field(default_factory=set[str])
    letters: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    taken: Counter[str] = field(default_factory=Counter[str])
    ends: dict[str, int] = field(default_factory=dict[str, int])
    relays: int = 0
    changes: dict[str, int] = field(default_factory=dict[str, int])


def expect(history: Iterable[Entry], given_up: Collection[RunKey] = ()) -> Expected:
    """What the history must lead to.

    `given_up` are runs with a task that crashed three times, which ends them as failed: the driver's own
    kills can do that, so it is a fact handed in and not predicted.
    """
    expected = Expected()
    latest: dict[str, str | None] = {}
    for entry in history:
        match entry:
            case Put():
                _put(expected, latest, entry)
            case Removed():
                latest[entry.path] = None
                _run(expected, "file-removed", entry.path, given_up)
                expected.taken["landing"] += 1
            case Stalled():
                expected.unsure.add(entry.path)
            case Touched():
                pass
            case Hook():
                _hook(expected, entry, given_up)
            case Line():
                _line(expected, entry, given_up)
            case Order():
                _order(expected, entry, given_up)
            case Change():
                expected.taken["rows"] += 1
                expected.changes[entry.key] = entry.number
                _run(expected, "row", entry.key, given_up)
    for rule, key in given_up:
        expected.letters["task", f"{rule} {key}"] = 1
    return expected


def _put(expected: Expected, latest: dict[str, str | None], put: Put) -> None:
    before = latest.get(put.path)
    latest[put.path] = put.sha256
    if before == put.sha256:
        return
    expected.taken["landing"] += 1
    key = f"{put.path}@{put.sha256}"
    expected.runs["file-landed", key] += 1
    if before is not None:
        expected.runs["file-changed", key] += 1


def _hook(expected: Expected, hook: Hook, given_up: Collection[RunKey]) -> None:
    if hook.kind == "forged":
        return
    expected.taken["hooks"] += 1
    if hook.kind == "broken":
        expected.letters["decode", hook.body] += 1
        return
    for rule in HOOK_RULES[hook.kind]:
        _run(expected, rule, hook.key, given_up)
    if hook.kind == "pair" and ("hook-pair", hook.key) not in given_up:
        _run(expected, "after-pair", hook.key, given_up)
    if hook.kind == "relay":
        expected.relays += 1
    if hook.number % 10 == 0:
        _run(expected, "hook-tenth", hook.key, given_up)


def _line(expected: Expected, line: Line, given_up: Collection[RunKey]) -> None:
    expected.taken["numbers"] += 1
    expected.ends[line.partition] = max(line.number, expected.ends.get(line.partition, 0))
    if line.kind == "broken":
        expected.letters["decode", line.text] += 1
        return
    key = record_key(line.partition, line.number)
    _run(expected, "record", key, given_up)
    if line.number % 3 == 0:
        _run(expected, "record-third", key, given_up)


def _order(expected: Expected, order: Order, given_up: Collection[RunKey]) -> None:
    expected.taken["orders"] += 1
    if order.broken:
        expected.letters["decode", order.text] += 1
    else:
        _run(expected, "order", order.key, given_up)


def _run(expected: Expected, rule: str, key: str, given_up: Collection[RunKey]) -> None:
    expected.runs[rule, key] += 1
    if rule in FAILING and (rule, key) not in given_up:
        expected.letters["run", f"{rule} {key}"] += 1


def record_key(partition: str, number: int) -> str:
    """The source key of a record of the numbered source."""
    return f"{partition}/{number}"


def runs_of(entry: Entry, *, first: bool = True) -> int:
    """How many runs this entry leads to, for the backlog that the driver allows."""
    if isinstance(entry, Put):
        return 1 if first else 2
    return sum(expect([entry]).runs.values())
