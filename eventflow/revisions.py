"""Rule sets by revision, compiled once per process, and the folders their Python code runs from."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from eventflow.errors import UsageError
from eventflow.rulefile.load import load
from eventflow.rulefile.ruleset import RuleSet
from eventflow.source import Source
from eventflow.store import rulesets
from eventflow.store.pool import Pool
from eventflow.workflow.definition import Workflow

MOST_COMPILED: Final = 32
"""Revisions kept in memory, those used last; an older one is compiled again for the run that needs it."""


class Revisions:
    """The current rule set, and those that older runs are pinned to.

    `current` is what batches match with; a batch that finds it replaced calls `refresh` and runs again.
    """

    def __init__(self, pool: Pool, connectors: Mapping[str, type[Source]], code_root: Path) -> None:
        self._pool = pool
        self._connectors = connectors
        self._code_root = code_root
        self._compiled: dict[int, RuleSet] = {}
        self._lock = asyncio.Lock()
        self.current: RuleSet = load({}, folder=code_root, connectors=connectors)

    async def refresh(self) -> RuleSet:
        """Read which revision is current, compile it where it is new, and make it `current`."""
        async with self._pool.acquire() as conn:
            revision = await rulesets.current_revision(conn)
        if revision != self.current.revision:
            self.current = await self.get(revision)
        return self.current

    async def get(self, revision: int) -> RuleSet:
        """A revision in its compiled form. Compiling runs in a thread; the loop goes on."""
        async with self._lock:
            ruleset = self._compiled.pop(revision, None)
            if ruleset is None:
                ruleset = await self._compile(revision)
            self._compiled[revision] = ruleset  # the last one is the one used last
            while len(self._compiled) > MOST_COMPILED:
                del self._compiled[next(iter(self._compiled))]
            return ruleset

    async def _compile(self, revision: int) -> RuleSet:
        async with self._pool.acquire() as conn:
            stored = await rulesets.read(conn, revision)
        return await asyncio.to_thread(
            load, stored.files, folder=stored.folder, connectors=self._connectors, revision=revision
        )

    async def workflow(self, revision: int, name: str) -> Workflow:
        """The definition that runs of `revision` are pinned to."""
        return (await self.get(revision)).workflows[name]

    async def code_folder(self, revision: int) -> Path:
        """A folder with exactly this revision's Python files, unpacked once per code version.

        Raises `UsageError` where it cannot be written.
        """
        ruleset = await self.get(revision)
        folder = self._code_root / ruleset.code_version
        try:
            if not folder.exists():
                await asyncio.to_thread(_unpack, ruleset.code_files, folder)
        except OSError as error:
            raise UsageError(
                f"the code of rule set revision {revision} cannot be unpacked into {folder}: {error}; "
                "make room there, or point EVENTFLOW_DATA elsewhere"
            ) from error
        return folder


def _unpack(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files beside `folder` and rename: another process may be doing the same."""
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        target = partial / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    try:
        partial.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        shutil.rmtree(partial)
