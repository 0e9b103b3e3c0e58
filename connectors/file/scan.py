"""Comparing the folder with the ledger: what inotify missed, what happened while nobody watched.

A scan walks a folder in slices and passes on the files that the ledger does not hold as they are; a full
one then walks the ledger for files that are no longer there. Memory is one slice, and one number for each
file that the ledger was found to agree with (up to half a million), which spares asking again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from typing import TypeVar

import structlog

from connectors.file.fingerprint import Signature
from connectors.file.folder import Folder
from connectors.file.look import lies_where_it_says
from connectors.file.pattern import PathPattern
from connectors.file.record import unchanged
from connectors.file.walk import Found, Walk
from eventflow.source import SourceContext

log = structlog.get_logger()

_Result = TypeVar("_Result")
MOST_REMEMBERED = 500_000
_PAGE = 1_000


class Agreed:
    """Files that the ledger is known to agree with, as hashes of (path, signature)."""

    def __init__(self) -> None:
        self._hashes: set[int] = set()

    def __contains__(self, file: tuple[bytes, Signature]) -> bool:
        return hash(file) in self._hashes

    def add(self, path: bytes, signature: Signature) -> None:
        if len(self._hashes) < MOST_REMEMBERED:
            self._hashes.add(hash((path, signature)))

    def discard(self, path: bytes, signature: Signature) -> None:
        self._hashes.discard(hash((path, signature)))

    def make_room(self) -> None:
        """Old signatures are never asked for again and only take up room; at a full scan all begins anew."""
        if len(self._hashes) >= MOST_REMEMBERED:
            self._hashes.clear()


class Scanner:
    """The scans of one source, one at a time."""

    def __init__(
        self, context: SourceContext, folder: Folder, pattern: PathPattern, threads: Executor,
        entering: Callable[[bytes], None],
    ) -> None:  # fmt: skip
        self.agreed = Agreed()
        self._context = context
        self._folder = folder
        self._pattern = pattern
        self._threads = threads
        self._entering = entering
        self._reported: set[bytes] = set()

    async def changed(self, folder: bytes) -> AsyncGenerator[list[Found]]:
        """Files below `folder` that the ledger does not hold as they are, slice by slice (some empty)."""
        walk = Walk(self._folder.root, folder, self._entering, self._wanted, self._skipped)
        while not walk.done:
            yield await self._unknown(await self._in_thread(walk.slice))

    async def missing(self) -> AsyncGenerator[list[bytes]]:
        """Items of the ledger that are no longer there, page by page (some empty)."""
        page: list[bytes] = []
        async for item, known in self._context.known_all():
            if known.present:
                page.append(item)
            if len(page) >= _PAGE:
                yield await self._in_thread(lambda paths=page: self._absent(paths))
                page = []
        yield await self._in_thread(lambda: self._absent(page))

    async def in_order(self) -> None:
        """Raises `SourceUnavailable` where the root is not what it was."""
        await self._in_thread(self._folder.check)

    def _wanted(self, found: Found) -> bool:
        return (found.path, found.signature) not in self.agreed and self.takes(found.path)

    def _skipped(self, folder: bytes, reason: str) -> None:
        """From the scan's thread. Once for each folder: every scan sees it again."""
        if folder not in self._reported:
            self._reported.add(folder)
            shown = folder.decode(errors="backslashreplace")
            log.warning("folder_skipped", source=self._folder.source, folder=shown, reason=reason)

    def takes(self, path: bytes) -> bool:
        return self._pattern.match(os.fsdecode(path)) is not None

    def _absent(self, paths: list[bytes]) -> list[bytes]:
        root = self._folder.root
        real = {folder: lies_where_it_says(root, folder) for folder in map(os.path.dirname, paths)}
        there = (real[os.path.dirname(path)] and os.path.lexists(os.path.join(root, path)) for path in paths)
        return [path for path, is_there in zip(paths, there, strict=True) if not is_there]

    async def _unknown(self, found: list[Found]) -> list[Found]:
        """Those whose stat the ledger does not hold; the others are remembered."""
        if not found:
            return []
        known = await self._context.known([each.path for each in found])
        unknown: list[Found] = []
        for each in found:
            entry = known.get(each.path)
            if entry and unchanged(each.signature, entry):
                self.agreed.add(each.path, each.signature)
            else:
                unknown.append(each)
        return unknown

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
