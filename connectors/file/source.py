"""The file source: what eventflow calls, and where the parts meet.

intake.py is the path of a file: watch.py and scan.py find candidates, look.py looks at them in threads,
record.py says what that means against the ledger, handover.py makes batches.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import ClassVar

from connectors.file.config import FileConfig
from connectors.file.intake import Intake
from connectors.file.outside import count_files
from connectors.file.pattern import PathPattern
from connectors.file.scan import Folder
from eventflow.event import JSON
from eventflow.source import Batch, Delivery, Receipt, SourceContext


class FileSource:
    """Files that land below one folder, each new state of each file handed over once."""

    Config: ClassVar[type[FileConfig]] = FileConfig
    delivery: ClassVar[Delivery] = Delivery.ledger

    def __init__(self, name: str, config: FileConfig, context: SourceContext) -> None:
        self._name = name
        self._config = config
        self._context = context
        self._intake: Intake | None = None

    async def origin(self) -> str:
        """The folder's real path. Raises `SourceUnavailable` where it is not there or cannot be read."""
        folder = await asyncio.to_thread(self._open)
        return os.fsdecode(folder.root)

    async def partitions(self) -> Sequence[str]:
        return [""]

    async def batches(self, partition: str, cursor: JSON) -> AsyncIterator[Batch]:
        """Everything the ledger does not hold yet, then what comes. There is no cursor."""
        folder = await asyncio.to_thread(self._open)
        intake = Intake(self._name, self._config, folder, self._context)
        self._intake = intake
        try:
            async for batch in intake.batches():
                yield batch
        finally:
            await intake.close()

    async def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None:
        if self._intake:
            self._intake.committed(batch, receipts)

    async def refused(self, batch: Batch, error: Exception) -> None:
        if self._intake:
            self._intake.refused(batch)

    async def outside(self) -> Mapping[str, int]:
        """What the folder holds now, for `audit`."""
        folder = await asyncio.to_thread(self._open)
        return await asyncio.to_thread(count_files, folder.root, PathPattern(self._config.pattern))

    def _open(self) -> Folder:
        path = os.path.realpath(os.path.join(self._context.folder, self._config.path))
        return Folder(self._name, os.fsencode(path))
