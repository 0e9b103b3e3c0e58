"""Planted bugs: patches on a copy of the package, which the nodes of a run then import instead."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.chaos.processes import CannotRun

REPOSITORY: Final = Path(__file__).parents[2]
PATCHES: Final = Path(__file__).parent / "mutants"


def names() -> list[str]:
    """The planted bugs there are."""
    return sorted(patch.stem for patch in PATCHES.glob("*.patch"))


def plant(name: str, folder: Path) -> Path:
    """Copy the package, put the bug into the copy; the folder to put first on PYTHONPATH.

    Raises `CannotRun` where the patch no longer fits the code: such a mutant proves nothing.
    """
    patch = PATCHES / f"{name}.patch"
    if not patch.is_file():
        raise CannotRun(f"no mutant '{name}'; there are: {', '.join(names())}")
    copy = folder / "mutant"
    for package in ("eventflow", "connectors"):
        shutil.copytree(REPOSITORY / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    command = [
        "patch",
        "-p1",
        "--batch",
        "--forward",
        "--no-backup-if-mismatch",
        "--fuzz=0",
        "-i",
        str(patch),
    ]
    if shutil.which("patch") is None:
        command = ["git", "apply", "-p1", "--unsafe-paths", f"--directory={copy}", str(patch)]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotRun(f"mutant '{name}' does not apply any more:\n{done.stdout}{done.stderr}")
    return copy
