"""The root of a file source: can it be read, and is it still the folder that the ledger speaks of.

A folder that was unmounted is empty. Taken at its word, everything in it would be gone, and all of it
would arrive anew once it is mounted again. So the ledger remembers the root's inode.
"""

from __future__ import annotations

import os

from eventflow.errors import SourceUnavailable
from eventflow.source import Batch, Mark, SourceContext

ROOT = b"/"
"""The ledger's item for the root itself: no path under it looks like that."""


class Folder:
    """An opened root (real path, bytes). Raises `SourceUnavailable` where it cannot be read."""

    def __init__(self, source: str, path: str) -> None:
        self.source = source
        self.path = os.path.realpath(path)
        self.root = os.fsencode(self.path)
        self._identity = self._ask()

    def check(self) -> None:
        """Raises `SourceUnavailable` where the root went away or another folder stands in its place."""
        if self._ask() != self._identity:
            raise SourceUnavailable(f"source '{self.source}': {self.path} is another folder than before")

    async def introduce(self, context: SourceContext) -> Batch | None:
        """The mark of a root that the ledger does not know; None where it does.

        Raises `SourceUnavailable` for an empty folder in the place of another one: a folder that
        somebody made anew is believed as soon as there is something in it.
        """
        fingerprint = str(self._identity[1]).encode()  # a device's number may change when it is mounted again
        known = (await context.known([ROOT])).get(ROOT)
        if known and known.fingerprint == fingerprint:
            return None
        if known and not os.listdir(self.root):
            raise SourceUnavailable(
                f"source '{self.source}': {self.path} is empty and not the folder it was; "
                "mount it again, or put something into the new one"
            )
        generation = known.generation + 1 if known else 1
        return Batch((), marks=[Mark(ROOT, fingerprint, generation, present=False)])

    def _ask(self) -> tuple[int, int]:
        try:
            self.path.encode()
            with os.scandir(self.root):
                status = os.stat(self.root)
        except UnicodeEncodeError as error:
            raise SourceUnavailable(
                f"source '{self.source}': the folder {self.root!r} has a name that is not UTF-8; rename it"
            ) from error
        except OSError as error:
            raise SourceUnavailable(
                f"source '{self.source}': the folder {self.path} cannot be read: {error.strerror}; "
                "make it, or give this node access to it"
            ) from error
        return status.st_dev, status.st_ino
