"""The file source keeps the contract: noticed by inotify, by polling, and vouched for by markers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import pytest

from connectors.file import FileSource
from connectors.file.config import FileConfig
from eventflow.event import Event
from eventflow.source import Source, SourceContext
from eventflow.testing.source_contract import LedgerSourceContract


class TestFileContract(LedgerSourceContract):
    words: ClassVar[dict[str, object]] = {}

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.landing = tmp_path / "landing"
        self.outside = tmp_path / "outside"
        self.landing.mkdir()
        self.outside.mkdir()

    def make(self, context: SourceContext) -> Source:
        words = {"path": "landing", "initial": "process", "settle": {"quiet": "100ms"}, **self.words}
        return FileSource("files", FileConfig.model_validate(words), context)

    async def send(self, key: str) -> None:
        path = self.outside / key
        path.write_text(f"the content of {key}")
        path.rename(self.landing / key)

    async def send_broken(self) -> bytes:
        name = b"not-utf-8-\xff"
        Path(os.fsdecode(os.path.join(os.fsencode(self.landing), name))).write_bytes(b"x")
        return name

    def key_of(self, event: Event) -> str:
        return event.data["name"]


class TestPollingFileContract(TestFileContract):
    words: ClassVar[dict[str, object]] = {"watch": "poll"}


class TestStatFileContract(TestFileContract):
    words: ClassVar[dict[str, object]] = {"identity": "stat"}

    async def send_again(self, key: str) -> None:
        """Without its content, only the very same file is the same."""
        path = self.landing / key
        path.rename(self.outside / key)
        (self.outside / key).rename(path)


class TestMarkedFileContract(TestFileContract):
    words: ClassVar[dict[str, object]] = {"settle": {"marker": "{path}.done"}}

    async def send(self, key: str) -> None:
        await super().send(key)
        (self.landing / f"{key}.done").touch()

    async def send_broken(self) -> bytes:
        name = await super().send_broken()
        Path(os.fsdecode(os.path.join(os.fsencode(self.landing), name + b".done"))).touch()
        return name
