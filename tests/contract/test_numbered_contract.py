"""The tests' own ordered source keeps the contract; the kill run builds on that."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from zlib import crc32

import pytest

from eventflow.errors import SourceStopped
from eventflow.event import Event
from eventflow.source import Source, SourceContext
from eventflow.testing.reading import Reading
from eventflow.testing.source_contract import OrderedSourceContract

_spec = importlib.util.spec_from_file_location("numbered", Path(__file__).parent / "numbered" / "numbered.py")
assert _spec
assert _spec.loader
numbered = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(numbered)


class TestNumberedContract(OrderedSourceContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        for partition in ("p0", "p1"):
            (tmp_path / f"{partition}.log").touch()

    def make(self, context: SourceContext) -> Source:
        return numbered.NumberedSource("numbers", numbered.NumberedConfig(path=str(self.folder)), context)

    async def send(self, key: str) -> None:
        self._append(crc32(key.encode()) % 2, json.dumps({"key": key}).encode())

    async def send_broken(self) -> bytes:
        self._append(0, b'{"key": ')
        return b'{"key": '

    async def send_nothing(self) -> bool:
        self._append(0, b"# no record")
        return True

    def key_of(self, event: Event) -> str:
        return event.data["key"]

    def _append(self, partition: int, line: bytes) -> None:
        with (self.folder / f"p{partition}.log").open("ab") as file:
            file.write(line + b"\n")

    async def test_waits_for_the_rest_of_a_line(self) -> None:
        with (self.folder / "p0.log").open("ab", buffering=0) as file:
            file.write(b'{"key": ')
            async with self.reading() as reading:
                self._append(1, b'{"key": "a1"}')
                assert self.keys(await reading.take(1)) == ["a1"]
                file.write(b'"a2"}\n')
                assert self.keys(await reading.take(1)) == ["a2"]

    async def test_stops_where_lines_are_gone(self) -> None:
        await self.send_all(["a1", "a2", "a3", "a4"])
        async with self.reading() as reading:
            await reading.take(4)
        for path in self.folder.glob("*.log"):
            path.write_bytes(b"")
        with pytest.raises(SourceStopped, match="lines and has 0 now"):
            await self._read_on(self.reading())

    async def _read_on(self, reading: Reading) -> None:
        async with reading:
            await reading.next()
