"""The folder beside the ledger, for `audit`: what would be handed over if one looked at everything now."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence

from connectors.file.config import FileConfig
from connectors.file.folder import Folder
from connectors.file.look import Candidate, Looking, Seen, marker_name
from connectors.file.pattern import PathPattern
from connectors.file.record import Recorder, unchanged
from connectors.file.walk import Found, Walk
from eventflow.offers import Outside
from eventflow.source import SourceContext

SHOWN = 20


async def compare(name: str, config: FileConfig, folder: Folder, context: SourceContext) -> Outside:
    """Count afresh, slice by slice. A file that is not whole yet counts as one not taken in."""
    return await _Comparison(name, config, folder, context).run()


class _Comparison:
    def __init__(self, name: str, config: FileConfig, folder: Folder, context: SourceContext) -> None:
        self._context = context
        self._root = folder.root
        self._pattern = PathPattern(config.pattern)
        self._recorder = Recorder(name, self._root, self._pattern, removals=False)
        by_content = config.identity == "content"
        self._looking = Looking(self._root, 0, None, by_content, threading.Event())
        self._marker = marker_name(config.settle.marker)
        self._there = self._ignored = self._unknown_count = 0
        self._unknown: list[str] = []
        self._ignored_names: list[str] = []

    async def run(self) -> Outside:
        walk = Walk(self._root, b"", lambda _: None, lambda _: True, lambda _folder, _reason: None)
        while not walk.done:
            found = await asyncio.to_thread(walk.slice)
            taken = await asyncio.to_thread(self._taken, found)
            self._there += len(taken)
            self._ignore(found, taken)
            await self._ask_ledger(taken)
        return Outside(
            self._there, self._ignored, self._unknown, self._unknown_count, tuple(self._ignored_names)
        )

    def _ignore(self, found: Sequence[Found], taken: Sequence[Found]) -> None:
        self._ignored += len(found) - len(taken)
        if len(self._ignored_names) < SHOWN:
            kept = {each.path for each in taken}
            self._ignored_names += [_shown(each.path) for each in found if each.path not in kept]
            del self._ignored_names[SHOWN:]

    def _taken(self, found: Sequence[Found]) -> list[Found]:
        return [each for each in found if self._takes(each)]

    def _takes(self, found: Found) -> bool:
        """Neither a symlink out of the root nor a marker beside the file that it is for."""
        full = os.path.join(self._root, found.path)
        inside = os.path.realpath(full).startswith(os.path.join(self._root, b""))
        vouched = self._marker.vouched(found.path) if self._marker else None
        if not inside or (vouched and os.path.lexists(os.path.join(self._root, vouched))):
            return False
        return self._pattern.match(os.fsdecode(found.path)) is not None

    async def _ask_ledger(self, taken: Sequence[Found]) -> None:
        known = await self._context.known([each.path for each in taken])
        doubtful: list[Candidate] = []
        for each in taken:
            entry = known.get(each.path)
            if entry is None or not unchanged(each.signature, entry):
                doubtful.append(Candidate(each.path, settled=True))
        for look in await asyncio.to_thread(self._looking.at_all, doubtful):
            outcome = self._recorder.decide(look, known.get(look.path)) if look.seen in _READ else None
            if look.seen is not Seen.gone and (outcome is None or outcome.record):
                self._unknown_count += 1
                self._unknown += [_shown(look.path)][: SHOWN - len(self._unknown)]


def _shown(path: bytes) -> str:
    return path.decode(errors="backslashreplace")


_READ = (Seen.whole, Seen.broken)
