"""Does a row's test notice its bug? Judged on copies of the tree; the checkout itself is never touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from tests.planted.rows import HERE, REPOSITORY, Row

_SECONDS: Final = 300
_SECONDS_EACH: Final = 60
# What a patch that broke the code looks like: red, but for a reason of its own.
_BROKEN: Final = ("ImportError", "ModuleNotFoundError", "SyntaxError", "IndentationError", "NameError")
_SHARED: Final = (".venv", ".kafka")
"""Made by make, ignored by git, and too large to copy."""


class Verdict(StrEnum):
    """What the tests of a row said of one copy."""

    green = "green"
    red = "red"
    skipped = "skipped"
    error = "error"
    """Not a test that failed: it was not collected, its set-up failed, or the code does not even import."""
    hung = "hung"
    no_fit = "does not apply"


class CannotRun(Exception):
    """The tree cannot be copied."""


def copy_tree(folder: Path) -> Path:
    """What git knows or would know of the checkout, as it stands now."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if files.returncode != 0:
        raise CannotRun(f"the tree to copy is no git checkout: {files.stderr}")
    for file in filter(None, files.stdout.split("\0")):
        if (REPOSITORY / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / file, folder / file)
    for name in _SHARED:
        if (REPOSITORY / name).is_dir():
            (folder / name).symlink_to(REPOSITORY / name)
    return folder


def plant(row: Row, copy: Path) -> str:
    """Put the row's bug into the copy; what git objects to, empty where it went in."""
    return _apply(row, copy, "--whitespace=nowarn")


def objection(row: Row, repository: Path = REPOSITORY) -> str:
    """Why the row's patch does not fit the tree; empty where it does."""
    return _apply(row, repository, "--check")


def _apply(row: Row, folder: Path, option: str) -> str:
    # Outside a repository `git apply` takes paths as they stand, here below the copy.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    command = ["git", "apply", "-p1", option, str(HERE / row.patch)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
    return done.stderr if done.returncode else ""


def run(tests: Iterable[str], copy: Path) -> tuple[dict[str, Verdict], str]:
    """What each test says of `copy`, and pytest's last lines; nothing of a test that was not run.

    A test with parameters is red where one of its cases is.
    """
    report, asked = copy / "report.xml", sorted(set(tests))
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *asked]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    limit = _SECONDS + _SECONDS_EACH * len(asked)
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired as late:
        return dict.fromkeys(asked, Verdict.hung), str(late)
    said = "\n".join((done.stdout + done.stderr).splitlines()[-25:])
    if not report.exists():  # pytest's own watchdog ended it, or it found nothing to run
        return dict.fromkeys(asked, Verdict.hung if done.returncode == 1 else Verdict.error), said
    cases: dict[str, list[Verdict]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}".partition("[")[0]
        cases.setdefault(name, []).append(_verdict(case))
    return {test: _of_cases(cases.get(_reported(test), [])) for test in asked}, said


def _reported(test: str) -> str:
    """A test's name as the report has it: `tests.unit.test_x.TestY.test_z`."""
    return test.partition("[")[0].replace(".py::", ".").replace("/", ".").replace("::", ".")


def _verdict(case: ElementTree.Element) -> Verdict:
    if case.find("error") is not None:
        return Verdict.error
    if (failure := case.find("failure")) is not None:
        broken = (failure.get("message") or "").partition(":")[0].rpartition(".")[2] in _BROKEN
        return Verdict.error if broken else Verdict.red
    return Verdict.skipped if case.find("skipped") is not None else Verdict.green


def _of_cases(cases: list[Verdict]) -> Verdict:
    order = (Verdict.error, Verdict.skipped, Verdict.red, Verdict.green)
    return next((each for each in order if each in cases), Verdict.error)


def together(row: Row, verdicts: Mapping[str, Verdict], wanted: Verdict) -> Verdict:
    """`wanted` where each test of the row says so, else what the first of the others says."""
    return next((each for test in row.tests if (each := verdicts[test]) is not wanted), wanted)
