"""A path on disk -> the rule set there, its cases, and every problem of both: for `check` and `test`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from eventflow.errors import Problem, RuleSetError
from eventflow.rulefile.cases import Case, read_cases
from eventflow.rulefile.connectors import find_connectors
from eventflow.rulefile.folder import (
    RULE_SUFFIXES,
    as_given,
    file_as_given,
    read_folder,
    read_tests,
    set_folder,
)
from eventflow.rulefile.load import load
from eventflow.rulefile.ruleset import RuleSet


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found. `ruleset` is None where the set does not load; files are named as `path` was."""

    ruleset: RuleSet | None
    cases: tuple[Case, ...]
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if not problem.warning)


def examine(path: Path) -> Examined:
    """Read the rule set at `path` and its test files. Raises `UsageError` where there is no such path."""
    ruleset: RuleSet | None = None
    cases: list[Case] = []
    problems: list[Problem] = []
    try:
        files = read_folder(path)
        ruleset = load(files, set_folder(path), find_connectors())
        problems += ruleset.warnings
        if not any(name.endswith(RULE_SUFFIXES) for name in files):
            problems.append(Problem(".", 1, 1, "nothing here: no *.yaml", warning=True))
    except RuleSetError as error:
        problems += error.problems
    try:
        cases = read_cases(read_tests(path), ruleset)
    except RuleSetError as error:
        problems += error.problems
    return Examined(
        ruleset,
        tuple(replace(case, file=file_as_given(path, case.file)) for case in cases),
        tuple(as_given(path, problem) for problem in problems),
    )
