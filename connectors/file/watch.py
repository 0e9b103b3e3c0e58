"""What the kernel tells about a folder: hints, never the truth.

watchdog's inotify layer is used below its observers: their default mask (every open and every write, handled
one by one in Python) overflows the kernel's queue under a burst of renames, and they hold moves back for
half a second. Here one named thread reads only the kinds that matter and leaves hints in a deque.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if sys.platform == "linux" or TYPE_CHECKING:
    from watchdog.observers.inotify_c import (
        CallbackId,
        InotifyConstants,
        InotifyEvent,
        InotifyFD,
        Mask,
        WatchDescriptor,
    )

    _SELF = InotifyConstants.IN_DELETE_SELF | InotifyConstants.IN_MOVE_SELF
    _MASK = Mask(
        InotifyConstants.IN_MOVED_TO
        | InotifyConstants.IN_MOVED_FROM
        | InotifyConstants.IN_CLOSE_WRITE
        | InotifyConstants.IN_CREATE
        | InotifyConstants.IN_DELETE
        | _SELF
        | InotifyConstants.IN_ONLYDIR
        | InotifyConstants.IN_DONT_FOLLOW
        | InotifyConstants.IN_EXCL_UNLINK
    )

    _WRITTEN = InotifyConstants.IN_CLOSE_WRITE | InotifyConstants.IN_CREATE | InotifyConstants.IN_ATTRIB

MOST_HINTS = 200_000
"""Above this many unread hints a scan is cheaper than the hints."""

# Kinds of file system whose changes by other machines inotify does not tell.
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre",
                     "gpfs", "ncpfs", "vboxsf", "virtiofs", "beegfs", "orangefs", "fuse"})  # fmt: skip


class Kind(Enum):
    """What happened, as far as it matters here."""

    renamed = auto()
    """A file was renamed into place."""
    written = auto()
    """A file was made, closed after writing, or touched."""
    removed = auto()
    folder_made = auto()
    folder_renamed = auto()
    folder_left = auto()
    """A folder was renamed away: what was in it is gone, and nobody tells of its files."""
    lost = auto()
    """The kernel dropped hints, or the root itself went: only a scan helps."""


@dataclass(frozen=True, slots=True)
class Hint:
    """One of them; `path` (bytes) is under the root."""

    kind: Kind
    path: bytes


def inotify_tells(root: bytes) -> bool:
    """Whether inotify can tell all that happens in `root`: on Linux, and not on a network's file system."""
    if sys.platform != "linux":
        return False
    device = os.stat(root).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            before, _, after = line.partition(" - ")
            if before.split()[2] == wanted:
                return after.split()[0].partition(".")[0] not in _REMOTE
    return True


class Watcher:
    """A thread that reads inotify for one source. `wake` is called from it; it must be thread-safe.

    `touches` asks for new times as well (and for chmod and the like, which comes with them). Made open;
    `close` ends the thread. Raises `OSError` (EMFILE) where no instance can be had.
    """

    def __init__(self, name: str, root: bytes, wake: Callable[[], None], *, touches: bool = False) -> None:
        self._root = root
        self._mask = Mask(_MASK | InotifyConstants.IN_ATTRIB) if touches else _MASK
        self._wake = wake
        self._hints: deque[Hint] = deque()
        self._asleep = True
        self._folders: dict[bytes, tuple[WatchDescriptor, CallbackId]] = {}
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._reader = InotifyFD()
        self._reader.name = f"eventflow-inotify-{name}"
        self._reader.start()

    @property
    def alive(self) -> bool:
        return self._reader.is_alive()

    @property
    def waiting(self) -> int:
        """Hints that nobody has taken yet."""
        return len(self._hints)

    def add(self, folder: bytes) -> None:
        """Watch a folder (under the root). Raises `OSError`: ENOSPC where the kernel's limit is reached."""
        full = os.path.join(self._root, folder) if folder else self._root
        if not os.access(full, os.R_OK):
            return  # the walk reports it; inotify would hand out a descriptor that is none
        with self._lock:
            if folder in self._folders:
                return
            callback = CallbackId(next(self._ids))
            watch = self._reader.add_callback(full, self._mask, _Folder(self, folder), callback)
            self._folders[folder] = (watch, callback)

    def take(self, count: int) -> list[Hint]:
        """Up to so many hints, oldest first. Fewer: that is all of them, and the next one wakes."""
        self._asleep = True  # before the first is taken: one that comes meanwhile is taken, or wakes
        hints: list[Hint] = []
        while self._hints and len(hints) < count:
            hints.append(self._hints.popleft())
        return hints

    def close(self) -> None:
        self._reader.stop()

    # ------------------------------------------------------------------ in the reader's thread

    def hint(self, kind: Kind, path: bytes) -> None:
        if len(self._hints) >= MOST_HINTS:
            self._hints.clear()
            kind = Kind.lost
        self._hints.append(Hint(kind, path))
        if self._asleep:
            self._asleep = False
            self._wake()

    def forget(self, folder: bytes, *, gone: bool) -> None:
        """Drop the watches of a folder that is `gone`, or of one that left with all it holds."""
        inside = os.path.join(folder, b"")
        with self._lock:
            left = [folder] if folder in self._folders else []
            left += [each for each in self._folders if not gone and each.startswith(inside)]
            watches = [self._folders.pop(each) for each in left]
        if not gone:
            self._reader.remove_callbacks(watches)

    def start_over(self) -> None:
        """Hints were lost, perhaps of folders that came and went: the scan that follows watches them anew."""
        with self._lock:
            watches = list(self._folders.values())
            self._folders.clear()
        self._reader.remove_callbacks(watches)
        self.hint(Kind.lost, b"")


class _Folder:
    """What watchdog calls for one watched folder, from the reader's thread."""

    __slots__ = ("_path", "_watcher")

    def __init__(self, watcher: Watcher, path: bytes) -> None:
        self._watcher = watcher
        self._path = path

    def on_event(self, event: InotifyEvent) -> None:
        mask = event.mask
        path = os.path.join(self._path, event.name)
        if mask & _SELF:
            if not self._path:
                self._watcher.hint(Kind.lost, b"")  # the root itself was moved or removed
        elif mask & InotifyConstants.IN_ISDIR:
            self._on_folder(mask, path)
        elif mask & InotifyConstants.IN_MOVED_TO:
            self._watcher.hint(Kind.renamed, path)
        elif mask & _WRITTEN:
            self._watcher.hint(Kind.written, path)
        elif mask & (InotifyConstants.IN_MOVED_FROM | InotifyConstants.IN_DELETE):
            self._watcher.hint(Kind.removed, path)

    def _on_folder(self, mask: int, path: bytes) -> None:
        if mask & InotifyConstants.IN_MOVED_FROM:
            self._watcher.forget(path, gone=False)
            self._watcher.hint(Kind.folder_left, path)
        elif mask & InotifyConstants.IN_MOVED_TO:
            self._watcher.hint(Kind.folder_renamed, path)
        elif mask & InotifyConstants.IN_CREATE:
            self._watcher.hint(Kind.folder_made, path)

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        self._watcher.forget(self._path, gone=True)
        if not self._path:
            self._watcher.hint(Kind.lost, b"")

    def on_queue_overflow(self) -> None:
        if not self._path:  # every folder is told
            self._watcher.start_over()
