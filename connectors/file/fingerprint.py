"""What the ledger keeps of a file: enough to tell, without reading it again, whether it is the same.

The ledger's own generation counts every write of the row (a removal, a touch); `FileMark.generation`
counts the events of the path, and is the one that people see.
"""

from __future__ import annotations

import os
from enum import StrEnum
from typing import NamedTuple

import msgspec

BASELINE = b""
"""The ledger's item for `initial: ignore` itself: no file has an empty path."""


BEYOND = 2**63 - 1
"""Stands for every time after the year 2262 (and, negative, before 1677), in nanoseconds."""


class Signature(NamedTuple):
    """A file's stat: while it stays the same, so do the bytes. Times in nanoseconds."""

    size: int
    mtime: int
    inode: int
    ctime: int


def signature_of(status: os.stat_result) -> Signature:
    """What of a stat tells two states of a file apart.

    A file system may hold times of any year, and anybody may set them; a fingerprint has 64 bits for them.
    """
    mtime = min(max(status.st_mtime_ns, -BEYOND), BEYOND)
    return Signature(status.st_size, mtime, status.st_ino, status.st_ctime_ns)


class Standing(StrEnum):
    """What became of the file when it was looked at last."""

    handed_over = "handed_over"
    ignored = "ignored"
    """It was there at the first deploy, and `initial: ignore` stood in the rule file."""
    broken = "broken"
    """It could not be read, or its name is not UTF-8: a dead letter tells so."""


class FileMark(msgspec.Struct, frozen=True, array_like=True):
    """The fingerprint. `sha256` is empty where the identity is size, mtime and inode."""

    standing: str
    generation: int
    signature: Signature
    sha256: bytes = b""

    def same_file(self, signature: Signature, sha256: bytes) -> bool:
        """Same bytes by SHA-256 where both have one, else same size, mtime and inode."""
        if self.sha256 and sha256:
            return self.sha256 == sha256
        return self.signature[:3] == signature[:3]


class BaselineMark(msgspec.Struct, frozen=True, array_like=True):
    """Files whose ctime is not after `began` were there at the first deploy; `done` once all have marks."""

    began: int
    done: bool


_decoder = msgspec.msgpack.Decoder(FileMark)
_baseline_decoder = msgspec.msgpack.Decoder(BaselineMark)


def encode(mark: FileMark | BaselineMark) -> bytes:
    """The ledger's bytes: MessagePack, about 80 of them."""
    return msgspec.msgpack.encode(mark)


def decode(fingerprint: bytes) -> FileMark:
    """What `encode` made of a file."""
    return _decoder.decode(fingerprint)


def decode_baseline(fingerprint: bytes) -> BaselineMark:
    """What `encode` made of the baseline."""
    return _baseline_decoder.decode(fingerprint)
