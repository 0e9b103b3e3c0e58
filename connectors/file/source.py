"""The file source: what eventflow calls. Read this first, then the parts in the order of a file's path.

    watch.py, scan.py  which paths may be new: what the kernel tells, what the ledger does not hold
    candidates.py      which of them are worth a look now, which later
    look.py            a look, in a thread: is it there, is it whole, what is in it
    record.py          what that means beside what the ledger knows: arrived, changed, removed, unreadable
    handover.py        batches, and what is remembered until they are durable
    intake.py          the loop that drives them

`config.py`, `pattern.py` and `capture.py` are the words of the rule file; `folder.py` is the root itself,
`fingerprint.py` what the ledger keeps of a file, `baseline.py` is `initial: ignore`, `outside.py` `audit`,
`locate.py` `explain`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from connectors.file.capture import RESERVED
from connectors.file.config import FileConfig
from connectors.file.folder import Folder
from connectors.file.intake import Intake
from connectors.file.locate import locate
from connectors.file.outside import compare
from connectors.file.pattern import PathPattern
from eventflow.errors import SourceUnavailable
from eventflow.event import JSON
from eventflow.offers import Outside, Progress, Sends
from eventflow.source import Batch, Delivery, Receipt, SourceContext


class FileSource:
    """Files that land below one folder, each new state of each file handed over once."""

    Config: ClassVar[type[BaseModel]] = FileConfig
    delivery: ClassVar[Delivery] = Delivery.ledger

    def __init__(self, name: str, config: FileConfig, context: SourceContext) -> None:
        self._name = name
        self._config = config
        self._context = context
        self._path = Path(context.folder, config.path)
        self._intake: Intake | None = None

    @classmethod
    def sends(cls, config: FileConfig) -> Sends:
        """For `check`: what the words of the rule file already tell of the events."""
        types = {"file.arrived", "file.changed"} | ({"file.removed"} if config.removed else set[str]())
        fields = (RESERVED - {"captures"}) | set(PathPattern(config.pattern).names)
        return Sends(frozenset(types), fields)

    async def origin(self) -> str:
        """The folder's real path. Raises `SourceUnavailable` where it is not there or cannot be read."""
        return (await self._open()).path

    async def partitions(self) -> Sequence[str]:
        return [""]

    async def batches(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        """Everything the ledger does not hold yet, then what comes. There is no cursor."""
        intake = self._intake = Intake(self._name, self._config, await self._open(), self._context)
        try:
            async with aclosing(intake.batches()) as batches:
                async for batch in batches:
                    yield batch
        finally:
            if self._intake is intake:
                self._intake = None
            await intake.close()

    async def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None:
        if self._intake:
            self._intake.committed(batch, receipts)

    async def refused(self, batch: Batch, error: Exception) -> None:
        if self._intake:
            self._intake.refused(batch)

    async def progress(self, partition: str, cursor: JSON) -> Progress:
        """What the running call of `batches` has before it."""
        if self._intake is None:
            raise SourceUnavailable(f"source '{self._name}': nobody reads the folder here")
        return self._intake.behind()

    async def outside(self) -> Outside:
        """The folder beside the ledger, for `audit`."""
        return await compare(self._name, self._config, await self._open(), self._context)

    async def locate(self, name: str) -> str | None:
        """Why no event stands for the file `name`, for `explain`."""
        return await locate(name, self._config, await self._open(), self._context)

    async def _open(self) -> Folder:
        return await asyncio.to_thread(Folder, self._name, str(self._path))
