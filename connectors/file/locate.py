"""A file by the name that a person gives it, for `explain`: why is there no event of it?"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from connectors.file.config import FileConfig
from connectors.file.folder import Folder
from connectors.file.pattern import PathPattern
from eventflow.source import SourceContext


async def locate(name: str, config: FileConfig, folder: Folder, context: SourceContext) -> str | None:
    """None where `name` is nothing in this folder, whichever folder it is relative to."""
    path = await asyncio.to_thread(_below, name, folder.root, context.folder)
    if path is None:
        return None
    shown = path.decode(errors="backslashreplace")
    if PathPattern(config.pattern).match(os.fsdecode(path)) is None:
        capture = "; a capture whose text does not parse is no match" if "{" in config.pattern else ""
        return f"its pattern {config.pattern!r} does not take {shown!r}{capture}"
    if (await context.known([path])).get(path) is None:
        return (
            f"{shown!r} is not taken in yet: it is still settling, or nobody reads the source; "
            "`eventflow sources` tells"
        )
    return (
        f"{shown!r} is known and has no event: it was there before the source (`initial: ignore`), "
        "or its event is older than the retention"
    )


def _below(name: str, root: bytes, folder: Path) -> bytes | None:
    """The path under the root of a file that is there. Names are relative to here, the rules, or the root."""
    for start in (Path.cwd(), folder, folder.parent, Path(os.fsdecode(root))):
        parent, file = os.path.split(os.path.join(os.fsencode(start), os.fsencode(name)))
        path = os.path.join(os.path.realpath(parent), file)
        if path.startswith(os.path.join(root, b"")) and os.path.lexists(path) and not os.path.isdir(path):
            return path[len(os.path.join(root, b"")) :]
    return None
