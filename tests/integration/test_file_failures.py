"""What docs/failures.md says of files, where test_file_connector.py does not show it already."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from connectors.file import FileSource
from connectors.file.config import FileConfig
from connectors.file.watch import Watcher
from eventflow.event import Broken
from eventflow.source import Known
from eventflow.testing.reading import Reading
from tests.integration.landing import Landing, said, until_no_thread_is_left


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(tmp_path)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    until_no_thread_is_left()


async def test_a_file_renamed_in_the_folder_comes_by_its_last_name_only(landing: Landing) -> None:
    """`quiet` is an hour: whatever comes was renamed, and nothing that was only written may come."""
    async with landing.read(settle={"quiet": "1h"}) as reading:
        await landing.until_watched(reading)
        for number in range(20):
            written = landing.root / f"{number}.tmp"
            written.write_bytes(b"%d" % number)
            assert await landing.rest(reading) == []
            written.rename(landing.root / f"{number}.csv")
            assert await landing.next(reading) == [f"file.arrived {number}.csv#1"]


async def test_other_bytes_of_the_same_size_and_mtime_are_a_change(landing: Landing) -> None:
    """Written over in place, the mtime put back: nothing tells, and of the stat only the ctime is another."""
    path = landing.put("a", b"one")
    before = path.stat()
    async with landing.read(watch="poll", rescan="50ms") as reading:
        assert await landing.next(reading) == ["file.arrived a#1"]
        for generation, content in enumerate([b"two", b"six", b"ten"], 2):
            path.write_bytes(content)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            assert [said(each) for each in await reading.take(1)] == [f"file.changed a#{generation}"]


async def test_a_folder_that_is_polled_tells_the_same(landing: Landing) -> None:
    """`rescan` is how often inotify is mistrusted; who polls looks every second all the same."""
    async with landing.read(watch="poll", rescan="1h", removed=True) as reading:
        path = landing.put("a", b"one")
        assert await landing.next(reading) == ["file.arrived a#1"]
        landing.put("a", b"two")
        assert await landing.next(reading) == ["file.changed a#2"]
        path.unlink()
        assert await landing.next(reading) == ["file.removed a#3"]


async def test_a_large_folder_is_read_in_slices_that_never_hold_the_loop(landing: Landing) -> None:
    """Measured in processor time of the loop's own thread, so that a busy machine does not count."""
    count, largest, longest = 3_000, 0, 0.0
    for number in range(count):
        (landing.root / f"{number}").touch()
    context = landing.core.context()

    async def known(items: Sequence[bytes]) -> Mapping[bytes, Known]:
        nonlocal largest
        largest = max(largest, len(items))
        return await context.known(items)

    async def watch_loop() -> None:
        nonlocal longest
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)

    words = {"path": "landing", "initial": "process", "settle": {"quiet": "1ms"}}
    source = FileSource("files", FileConfig.model_validate(words), replace(context, known=known))
    async with Reading(source, landing.core, deadline=60) as reading:
        watching = asyncio.create_task(watch_loop())
        records = await reading.take(count)
        watching.cancel()
    assert len({said(each) for each in records}) == count
    assert largest <= 1_000
    assert longest < 0.2  # 1,000 files take 20 ms; the core of these tests takes them in on the same thread


async def test_when_the_kernel_refuses_a_watch_it_polls(
    landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of the machine is everybody's, so its error is made here."""
    add = Watcher.add

    def limited(self: Watcher, folder: bytes) -> None:
        if folder:
            raise OSError(errno.ENOSPC, "inotify watch limit reached")
        add(self, folder)

    monkeypatch.setattr(Watcher, "add", limited)
    async with landing.read(rescan="1h") as reading:
        landing.put("deep/first")
        assert await landing.next(reading) == ["file.arrived deep/first#1"]
        landing.put("deep/second")
        assert await landing.next(reading) == ["file.arrived deep/second#1"]


async def test_files_of_any_age_are_taken_in_any_order(landing: Landing) -> None:
    async with landing.read(watch="poll", rescan="50ms") as reading:
        for year, seconds in (
            ("2100", 4_102_444_800),
            ("1970", 0),
            ("2026", 1_790_000_000),
            ("1901", -(2**31)),
        ):
            path = landing.aside / year
            path.touch()
            os.utime(path, (seconds, seconds))
            path.rename(landing.root / year)
            assert [said(each) for each in await reading.take(1)] == [f"file.arrived {year}#1"]


NAMES = [
    b"new\nline", b"tab\t", b"quote\"'", b"back\\slash", b"..hidden", b"...", b"-rf", b" ", b"*", b"[a]",
    b"{b}", b"%s", b"#1", b"${x}", b"\x01", b"\x7f", b"n" * 255, "\u00e9".encode(), "e\u0301".encode(),
    "\u202egpj".encode(), "\N{GRINNING FACE}".encode(), b"\xff", b"\xed\xa0\x80", b"\xc3", b"\xe9\n",
]  # fmt: skip


async def test_every_name_that_a_file_system_takes_is_an_event_or_a_dead_letter(landing: Landing) -> None:
    for name in NAMES:
        with open(os.path.join(os.fsencode(landing.root), name), "wb"):
            pass
    async with landing.read(settle={"quiet": "1ms"}) as reading:
        records = await reading.take(len(set(NAMES)))
        assert await landing.rest(reading) == []
    letters = {each.raw for each in records if isinstance(each, Broken)}
    assert letters == {b"\xff", b"\xed\xa0\x80", b"\xc3", b"\xe9\n"}
    came = {each.subject.encode() for each in records if not isinstance(each, Broken) and each.subject}
    assert came == set(NAMES) - letters


@contextmanager
def without_the_rights_of_root() -> Iterator[None]:
    """This thread, and those that it starts meanwhile, may only read what its files' modes allow (Linux)."""

    class Header(ctypes.Structure):
        _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]

    library, header = ctypes.CDLL(None, use_errno=True), Header(0x20080522, 0)
    held, fewer = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    assert library.capget(ctypes.byref(header), held) == 0
    fewer[:] = held
    fewer[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH are no longer in effect
    assert library.capset(ctypes.byref(header), fewer) == 0
    try:
        yield
    finally:
        assert library.capset(ctypes.byref(header), held) == 0


async def test_an_unreadable_file_is_one_dead_letter_until_it_can_be_read(landing: Landing) -> None:
    path = landing.put("a")
    path.chmod(0)
    with without_the_rights_of_root():
        async with landing.read() as reading:
            assert await landing.next(reading) == ["broken a: the file cannot be read: Permission denied"]
        path.chmod(0o644)
        async with landing.read() as reading:
            assert await landing.next(reading) == ["file.arrived a#1"]


async def test_a_folder_that_cannot_be_read_does_not_hold_up_the_others(landing: Landing) -> None:
    landing.put("closed/a")
    (landing.root / "closed").chmod(0)
    with without_the_rights_of_root():
        async with landing.read() as reading:
            landing.put("open/b")
            assert await landing.next(reading) == ["file.arrived open/b#1"]
    (landing.root / "closed").chmod(0o755)
    async with landing.read() as reading:
        assert await landing.next(reading) == ["file.arrived closed/a#1"]
