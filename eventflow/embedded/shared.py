"""One embedded Postgres per data folder, shared by every process that names the folder.

Whoever needs it and finds none starts it. Each user holds a shared `flock` on a file of the folder; the
last to leave gets that lock exclusively and stops the server. A killed user leaves its lock to the kernel
and the server running, for the next one to adopt.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from eventflow.embedded.account import give_to_owner
from eventflow.embedded.cluster import Cluster
from eventflow.errors import StoreError, UsageError

_USERS: Final = "postgres.users"
_STARTING: Final = "postgres.starting"


class Embedded:
    """This process's use of the server in `folder`. A context manager, for `with` and `async with`.

    Every instance counts as a user of its own. Locks are kept by this process alone: they are closed in
    programs it starts, but a fork would share them (task processes are spawned).
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"the data folder {folder} cannot be made: {error}") from error
        # One folder has one name, whatever links lead to it: the server is told apart by it.
        self._folder = folder.resolve()
        self._cluster = Cluster(self._folder)
        self._membership: int | None = None

    @property
    def url(self) -> str:
        """Where to connect; the same after every restart."""
        return self._cluster.url

    def join(self) -> None:
        """Become a user: the server runs when this returns.

        Raises `UsageError` where no embedded Postgres is installed, `StoreError` where it does not start.
        """
        membership = self._open(_USERS)
        try:
            fcntl.flock(membership, fcntl.LOCK_SH)  # waits for a last user that is stopping the server
            self.start_if_dead()
        except BaseException:
            os.close(membership)
            raise
        self._membership = membership

    def leave(self) -> None:
        """Stop being a user; the last one stops the server."""
        membership, self._membership = self._membership, None
        if membership is None:
            return
        try:
            # Gives up our share first. Of two that leave at once, the second finds nobody left.
            fcntl.flock(membership, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        else:
            with self._starting():
                self._cluster.stop()
        finally:
            os.close(membership)

    def start_if_dead(self) -> None:
        """Start the server unless it runs; of several that notice, one starts it and the others wait."""
        with self._starting():
            try:
                self._cluster.create()
                self._cluster.start()
            except OSError as error:
                raise StoreError(
                    f"the embedded Postgres in {self._folder} cannot be used: {error}"
                ) from error

    async def ensure_running(self) -> None:
        """Start the server again if it was killed; cheap while it runs."""
        if not self._cluster.is_running():
            await asyncio.to_thread(self.start_if_dead)

    def __enter__(self) -> Self:
        self.join()
        return self

    def __exit__(self, *exc: object) -> None:
        self.leave()

    async def __aenter__(self) -> Self:
        joining = asyncio.ensure_future(asyncio.to_thread(self.join))
        try:
            await asyncio.shield(joining)
        except asyncio.CancelledError:
            # The thread goes on and will hold the lock; nobody else would ever leave for us.
            await asyncio.wait([joining])
            await asyncio.to_thread(self.leave)
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.leave)

    @contextmanager
    def _starting(self) -> Generator[None]:
        # Two starters would each take the other's pid file for a stale one and delete it.
        descriptor = self._open(_STARTING)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _open(self, name: str) -> int:
        try:
            descriptor = os.open(self._folder / name, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise UsageError(f"the data folder {self._folder} cannot be used: {error}") from error
        give_to_owner(descriptor, self._folder)
        return descriptor
