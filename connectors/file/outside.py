"""What a folder holds, counted for `audit` without the ledger: the other side of the comparison."""

from __future__ import annotations

import os
from collections.abc import Mapping

from connectors.file.pattern import PathPattern


def count_files(root: bytes, pattern: PathPattern) -> Mapping[str, int]:
    """`files` that the pattern takes, `unmatched` that it does not, `refused` symlinks out of the root."""
    counts = {"files": 0, "unmatched": 0, "refused": 0}
    for folder, folders, files in os.walk(root):
        for name in files:
            full = os.path.join(folder, name)
            if os.path.islink(full) and not _inside(root, full):
                counts["refused"] += 1
            elif os.path.isfile(full):
                taken = pattern.match(os.fsdecode(os.path.relpath(full, root))) is not None
                counts["files" if taken else "unmatched"] += 1
        for name in folders:
            full = os.path.join(folder, name)
            counts["refused"] += os.path.islink(full) and not _inside(root, full)
    return counts


def _inside(root: bytes, path: bytes) -> bool:
    return os.path.realpath(path).startswith(os.path.join(root, b""))
