"""Under whom the embedded Postgres runs. It refuses root, so root hands it to somebody else.

No user is made and no folder above the data is touched: the data folder goes over as an open directory
(a process may use what it was handed, wherever that lies), which also works below a home of mode 0700.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict, Unpack

# Becomes user 1000 in a namespace of its own; outside it stays root, and so do its files.
_NAMESPACE: Final = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


class ProcessOptions(TypedDict, total=False):
    """Options of `subprocess` for a process of another account."""

    cwd: str
    env: dict[str, str]
    stdin: int
    user: int
    group: int
    extra_groups: list[int]
    pass_fds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """A user to run Postgres as. `prefix` goes before its command line."""

    uid: int
    gid: int
    prefix: tuple[str, ...] = ()

    @property
    def is_self(self) -> bool:
        """Whether no change of user is needed."""
        return self.uid == os.geteuid()

    @contextmanager
    def reach(self, folder: Path) -> Generator[tuple[str, ProcessOptions]]:
        """A path of `folder` that works for this account, with the options for the process that uses it."""
        options = self.identity()
        options["env"] = _environment()
        options["stdin"] = subprocess.DEVNULL
        if self.is_self or not Path("/proc/self/fd").exists():
            yield str(folder), options
            return
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            options["pass_fds"] = (descriptor,)
            yield f"/proc/self/fd/{descriptor}", options
        finally:
            os.close(descriptor)

    def identity(self) -> ProcessOptions:
        """What makes a process this account's, in a folder that every account can enter."""
        if self.is_self:
            return {"cwd": "/"}
        return {"cwd": "/", "user": self.uid, "group": self.gid, "extra_groups": []}


def _environment() -> dict[str, str]:
    # PGDATA, PGOPTIONS and their like in the caller's environment are meant for another server.
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    return kept | {"LC_ALL": "C"}


def account_for_new(folder: Path) -> Account:
    """The account for a data folder about to be filled, which it is made the owner of.

    As root that is the owner of the folder around it, or `nobody`; where this process may not become
    another user (a container without capabilities), itself in a user namespace.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    around = folder.parent.stat()
    account = Account(around.st_uid, around.st_gid) if around.st_uid != 0 else _nobody()
    if _can_become(account):
        try:
            os.chown(folder, account.uid, account.gid)
            return account
        except OSError:
            pass  # a file system without owners: only root's own namespace is left
    return _namespaced()


def account_of(data: Path) -> Account:
    """The account that owns an existing data folder."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    owner = data.stat()
    if owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    if _runs([*_NAMESPACE, "true"]):
        return _namespaced()
    account = _nobody()
    for folder, _, files in os.walk(data):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
    return account


def give_to_owner(file: Path | int, folder: Path) -> None:
    """Make the owner of `folder` the owner of `file` in it: a command once run as root locks nobody out."""
    if os.geteuid() == 0:
        around = folder.stat()
        os.chown(file, around.st_uid, around.st_gid)


def _nobody() -> Account:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return Account(65534, 65534)
    return Account(entry.pw_uid, entry.pw_gid)


def _namespaced() -> Account:
    return Account(0, 0, _NAMESPACE)


def _can_become(account: Account) -> bool:
    return _runs(["true"], **account.identity())


def _runs(command: Sequence[str], **options: Unpack[ProcessOptions]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, **options).returncode == 0
    except OSError:
        return False
