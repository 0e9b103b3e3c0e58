"""Does a row's test notice its bug? Judged on copies of the tree; the checkout itself is never touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from tests.planted.rows import HERE, REPOSITORY, Row

_SECONDS: Final = 300
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


def run(tests: tuple[str, ...], copy: Path, *, all_red: bool) -> tuple[Verdict, str]:
    """What the tests say of `copy`, and pytest's last lines.

    `all_red`: red only if each test failed; of one with parameters, that one of its cases did.
    """
    report = copy / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as late:
        return Verdict.hung, str(late)
    said = "\n".join((done.stdout + done.stderr).splitlines()[-25:])
    if not report.exists():  # pytest's own watchdog ended it
        return Verdict.hung, said
    verdicts: dict[str, list[Verdict]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}".partition("[")[0]
        verdicts.setdefault(name, []).append(_verdict(case))
    each = [_together(cases, all_red=False) for cases in verdicts.values()]
    return _together(each, all_red=all_red), said


def _verdict(case: ElementTree.Element) -> Verdict:
    if case.find("error") is not None:
        return Verdict.error
    if (failure := case.find("failure")) is not None:
        broken = (failure.get("message") or "").partition(":")[0].rpartition(".")[2] in _BROKEN
        return Verdict.error if broken else Verdict.red
    return Verdict.skipped if case.find("skipped") is not None else Verdict.green


def _together(cases: list[Verdict], *, all_red: bool) -> Verdict:
    strongest = [Verdict.green, Verdict.red] if all_red else [Verdict.red, Verdict.green]
    return next(
        (each for each in (Verdict.error, Verdict.skipped, *strongest) if each in cases), Verdict.error
    )
