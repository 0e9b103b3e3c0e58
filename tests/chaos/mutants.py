"""Planted bugs: patches on a copy of the tree, which the nodes of a run then import instead."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.chaos.processes import CannotRun

REPOSITORY: Final = Path(__file__).parents[2]
PATCHES: Final = Path(__file__).parent / "mutants"


def names() -> list[str]:
    """The planted bugs there are."""
    return sorted(patch.stem for patch in PATCHES.glob("*.patch"))


def patch_of(name: str) -> Path:
    """The patch called `name`, or the one at that path. Raises `CannotRun` where there is none."""
    for patch in (PATCHES / f"{name}.patch", Path(name)):
        if patch.is_file():
            return patch.resolve()
    raise CannotRun(f"no mutant '{name}'; there are: {', '.join(names())}")


def plant(name: str, folder: Path) -> Path:
    """Copy the tree into `folder` and put the bug into the copy; the copy is what to put on PYTHONPATH.

    Raises `CannotRun` where the patch no longer fits the code: such a mutant proves nothing.
    """
    patch, copy = patch_of(name), folder / "mutant"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if files.returncode != 0:
        raise CannotRun(f"the tree to copy is no git checkout: {files.stderr}")
    for file in filter(None, files.stdout.split("\0")):
        if (REPOSITORY / file).is_file():
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / file, copy / file)
    # Outside a repository `git apply` takes paths as they stand, here below the copy.
    apply = ["git", "apply", "-p1", "--whitespace=nowarn", str(patch)]
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(copy.parent)}
    done = subprocess.run(apply, cwd=copy, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise CannotRun(f"mutant '{name}' does not fit the code any more:\n{done.stdout}{done.stderr}")
    return copy


def objection(name: str) -> str:
    """Why the patch does not fit the working tree; empty where it does."""
    check = ["git", "apply", "--check", str(patch_of(name))]
    return subprocess.run(check, cwd=REPOSITORY, capture_output=True, text=True, check=False).stderr


def unit_tests(name: str, folder: Path) -> int:
    """The exit code of the unit tests on a copy with the bug in it."""
    copy = plant(name, folder)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit"]
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    return subprocess.run(command, cwd=copy, env=environment, check=False).returncode
