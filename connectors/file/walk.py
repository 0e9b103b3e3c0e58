"""Walking the folder, a slice at a time, so that no thread holds the interpreter for long.

Memory is bounded by the depth of the tree and one slice, whatever the folder holds.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from connectors.file.fingerprint import Signature, signature_of

SLICE_ENTRIES = 1_000
SLICE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Found:
    """A file, or a symlink to one: `signature` is then the file's, wherever it is."""

    path: bytes
    signature: Signature


@dataclass(slots=True)
class Walk:
    """All files below `folder` (bytes, under `root`; b"" is the root itself), folders before their contents.

    `entering` is called for each folder before it is listed: a watch added there misses nothing.
    `wanted` says which files a slice holds. Symlinked folders are not entered: what they hold inside the
    root is found where it is, and outside of it is none of ours. `skipped` is told of folders that
    are not entered, and why.
    """

    root: bytes
    folder: bytes
    entering: Callable[[bytes], None]
    wanted: Callable[[Found], bool]
    skipped: Callable[[bytes, str], None]
    done: bool = False
    _files: Iterator[Found] = field(init=False)

    def __post_init__(self) -> None:
        self._files = self._walk()

    def slice(self) -> list[Found]:
        """The next files, at most 1,000 and for at most 50 ms. `done` once there are no more."""
        found: list[Found] = []
        deadline = time.monotonic() + SLICE_SECONDS
        for count, entry in enumerate(self._files):
            if self.wanted(entry):
                found.append(entry)
            if len(found) >= SLICE_ENTRIES or (count % 64 == 63 and time.monotonic() > deadline):
                return found
        self.done = True
        return found

    def _walk(self) -> Iterator[Found]:
        folders = [self.folder]
        while folders:
            folder = folders.pop()
            self.entering(folder)
            try:
                with os.scandir(os.path.join(self.root, folder) if folder else self.root) as entries:
                    for entry in entries:
                        path = os.path.join(folder, entry.name)
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(path)
                        elif found := self._found(path, entry):
                            yield found
            except (FileNotFoundError, NotADirectoryError):
                continue  # removed since it was listed; what was in it is found missing in the ledger
            except OSError as error:
                self.skipped(folder, f"it cannot be read: {error.strerror}")

    def _found(self, path: bytes, entry: os.DirEntry[bytes]) -> Found | None:
        try:
            status = entry.stat()
        except OSError:
            return None  # removed since it was listed, or a symlink to nothing
        if stat.S_ISREG(status.st_mode):
            return Found(path, signature_of(status))
        if stat.S_ISDIR(status.st_mode):
            self.skipped(path, "it is a symlink")
        return None
