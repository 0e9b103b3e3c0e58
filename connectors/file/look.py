"""Looking at one file: is it there, is it whole, what is in it. Runs in threads; touches nothing else.

The file is read between two stats: a file that changed while it was read is not whole yet.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from connectors.file.fingerprint import Signature, signature_of

CONTENT_LIMIT = 64 * 1024 * 1024
"""Bytes up to which a file's identity is its content."""
_CHUNK = 1024 * 1024
_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.EINTR, errno.ELOOP})
"""Says something about this moment (too many open files, swapped for a link), not about the file."""
_AGAIN = 1_000_000_000
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class Seen(StrEnum):
    """What a look found."""

    whole = "whole"
    gone = "gone"
    refused = "refused"
    """A symlink that leaves the root."""
    broken = "broken"
    """It cannot be read, or its name is not UTF-8."""
    unsettled = "unsettled"
    """Not whole yet; look again at `again`, or when its marker comes (None)."""
    out_of_reach = "out_of_reach"
    """It could not be looked at, for a reason that may pass: at `again`, or by the next scan (None)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A path worth a look (bytes, under the root). `settled`: it was renamed into place.

    `signature` is what the last look saw at `since` (monotonic nanoseconds).
    """

    path: bytes
    settled: bool = False
    signature: Signature | None = None
    since: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen. `again` is monotonic nanoseconds, `since` when this signature was seen first."""

    path: bytes
    seen: Seen
    signature: Signature | None = None
    sha256: bytes = b""
    reason: str = ""
    again: int | None = None
    since: int = 0


class MarkerName(NamedTuple):
    """`{path}.done`: what stands around the path of the file that it vouches for."""

    before: bytes
    after: bytes

    def beside(self, path: bytes) -> bytes:
        """The marker of a file."""
        return self.before + path + self.after

    def vouched(self, marker: bytes) -> bytes | None:
        """The file that a path would be the marker of; None where it is no marker's name."""
        path = marker[len(self.before) : len(marker) - len(self.after)]
        return path if path and self.beside(path) == marker else None


def marker_name(template: str | None) -> MarkerName | None:
    """`settle: {marker: ...}`, compiled."""
    if template is None:
        return None
    before, _, after = template.partition("{path}")
    return MarkerName(os.fsencode(before), os.fsencode(after))


@dataclass(frozen=True, slots=True)
class Looking:
    """How one source looks at files. `root` is a real path, `quiet` in nanoseconds."""

    root: bytes
    quiet: int
    marker: MarkerName | None
    content: bool
    stop: threading.Event

    def at_all(self, candidates: Sequence[Candidate]) -> list[Look]:
        """One look for each, in order; fewer once `stop` is set."""
        looks: list[Look] = []
        real: dict[bytes, bool] = {}
        for candidate in candidates:
            if self.stop.is_set():
                break
            looks.append(self._at_one(candidate, real))
        return looks

    def _at_one(self, candidate: Candidate, real: dict[bytes, bool]) -> Look:
        """`real` remembers which folders lie where their path says."""
        path = candidate.path
        folder = os.path.dirname(path)
        if folder not in real:
            real[folder] = lies_where_it_says(self.root, folder)
        if not real[folder]:
            return Look(path, Seen.gone)  # below a symlink: what is in the root is found where it is
        try:
            return self._at(candidate)
        except (FileNotFoundError, NotADirectoryError):
            expected = candidate.settled or candidate.signature is not None
            return Look(path, Seen.gone, reason="it vanished before it could be read" if expected else "")
        except OSError as error:
            again = time.monotonic_ns() + _AGAIN if error.errno in _PASSING else None
            return Look(path, Seen.out_of_reach, reason=_reason(error), again=again)

    def _at(self, candidate: Candidate) -> Look:
        path = candidate.path
        full = os.path.join(self.root, path)
        status = os.lstat(full)
        if stat.S_ISLNK(status.st_mode):
            full = os.path.realpath(full)
            if not full.startswith(os.path.join(self.root, b"")):
                return Look(path, Seen.refused)
            status = os.lstat(full)
        if not stat.S_ISREG(status.st_mode):
            return Look(path, Seen.gone)
        signature = signature_of(status)
        if not candidate.settled and (waiting := self._unsettled(candidate, signature)):
            return waiting
        try:
            path.decode()
        except UnicodeDecodeError:
            return Look(path, Seen.broken, signature, reason="the file's name is not UTF-8")
        if not self.content or signature.size > CONTENT_LIMIT:
            return Look(path, Seen.whole, signature)
        return self._read(path, full, signature)

    def _unsettled(self, candidate: Candidate, signature: Signature) -> Look | None:
        """None where the file is whole: its marker vouches for it, or nothing has changed for long enough.

        Its ctime tells at the first look. A ctime from a clock that runs ahead of ours never does, so a
        file that we ourselves saw unchanged for as long is whole too.
        """
        if self.marker:
            vouched = self._vouched(self.marker.beside(candidate.path), signature)
            return None if vouched else Look(candidate.path, Seen.unsettled)
        now = time.monotonic_ns()
        since = candidate.since if candidate.signature == signature else now
        age = time.time_ns() - signature.ctime
        if age >= self.quiet or now - since >= self.quiet:
            return None
        remaining = min(self.quiet - age, self.quiet - (now - since))
        return Look(candidate.path, Seen.unsettled, signature, again=now + remaining, since=since)

    def _vouched(self, marker: bytes, signature: Signature) -> bool:
        """Whether the marker is there and not older than the bytes it vouches for.

        An old marker beside a file that is being written over says nothing. A file from the future
        (its mtime is set by whoever wrote it) cannot be compared, so for it the marker alone counts.
        """
        try:
            status = os.stat(os.path.join(self.root, marker))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return status.st_mtime_ns >= signature.mtime or signature.mtime > time.time_ns()

    def _read(self, path: bytes, full: bytes, signature: Signature) -> Look:
        try:
            digest, after = self._hash(full, signature.size)
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            if error.errno in _PASSING:
                raise
            return Look(path, Seen.broken, signature, reason=_reason(error))
        if after != signature or digest is None:
            return Look(path, Seen.unsettled, again=time.monotonic_ns() + self.quiet)
        return Look(path, Seen.whole, signature, digest)

    def _hash(self, full: bytes, size: int) -> tuple[bytes | None, Signature]:
        """The digest, and the stat after it was made."""
        descriptor = os.open(full, _OPEN)
        try:
            return self._digest(descriptor, size), signature_of(os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def _digest(self, descriptor: int, size: int) -> bytes | None:
        """SHA-256 of `size` bytes; None where there were fewer, or the source was closed meanwhile."""
        digest = hashlib.sha256()
        while size > 0 and not self.stop.is_set():
            chunk = os.read(descriptor, min(size, _CHUNK))
            if not chunk:
                return None
            digest.update(chunk)
            size -= len(chunk)
        return digest.digest() if size == 0 else None


def lies_where_it_says(root: bytes, folder: bytes) -> bool:
    """Whether no part of `folder` (under the real path `root`) is a symlink."""
    full = os.path.join(root, folder)
    return not folder or os.path.realpath(full) == full


def _reason(error: OSError) -> str:
    return f"the file cannot be read: {error.strerror or error}"
