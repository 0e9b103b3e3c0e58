"""The file source on real files, under the real kernel; the ledger is the contract suite's core."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from connectors.file import watch
from eventflow.errors import SourceUnavailable
from eventflow.event import Broken, Event
from eventflow.offers import Outside, Progress
from tests.integration.landing import Landing, burst, said, until_no_thread_is_left


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(tmp_path)


# ---------------------------------------------------------------------- what an event says


async def test_an_event_says_what_the_file_is(landing: Landing) -> None:
    words = {"pattern": "{dataset}/{region}_{day:%Y-%m-%d}.csv"}
    async with landing.read(**words) as reading:
        landing.put("orders/unmatched.csv")
        path = landing.put("orders/eu_2026-11-21.csv", b"a,b\n1,2\n")
        os.utime(path, ns=(0, 1_700_000_000_123_456_789))
        (event,) = await reading.take(1)
    assert isinstance(event, Event)
    assert (event.source, event.id) == ("files", "orders/eu_2026-11-21.csv#1")
    assert (event.type, event.subject) == ("file.arrived", "orders/eu_2026-11-21.csv")
    assert event.time is not None
    assert event.time.isoformat() == "2023-11-14T22:13:20.123456+00:00"
    assert event.data == {
        "path": str(path), "name": "eu_2026-11-21.csv", "size": 8, "modified": "2023-11-14T22:13:20.123456Z",
        "sha256": hashlib.sha256(b"a,b\n1,2\n").hexdigest(), "generation": 1,
        "dataset": "orders", "region": "eu", "day": "2026-11-21",
    }  # fmt: skip


# ---------------------------------------------------------------------- one path over time


async def test_other_bytes_are_a_change_and_so_are_bytes_that_come_back(landing: Landing) -> None:
    async with landing.read() as reading:
        for number, content in enumerate([b"one", b"two", b"one"], 1):
            landing.put("a", content)
            kind = "file.arrived" if number == 1 else "file.changed"
            assert await landing.next(reading) == [f"{kind} a#{number}"]


async def test_a_file_written_over_in_place_is_a_change(landing: Landing) -> None:
    path = landing.put("a", b"one")
    async with landing.read() as reading:
        assert await landing.next(reading) == ["file.arrived a#1"]
        path.write_bytes(b"two")
        assert [said(record) for record in await reading.take(1)] == ["file.changed a#2"]


async def test_a_touch_and_the_same_bytes_again_are_nothing(landing: Landing) -> None:
    path = landing.put("a", b"one")
    async with landing.read() as reading:
        await reading.take(1)
        os.utime(path)
        landing.put("a", b"one")
        assert await landing.rest(reading) == []
    os.utime(path)
    async with landing.read() as reading:
        assert await landing.rest(reading) == []


async def test_with_identity_stat_a_touch_is_a_change(landing: Landing) -> None:
    path = landing.put("a", b"one")
    async with landing.read(identity="stat") as reading:
        (event,) = await reading.take(1)
        assert isinstance(event, Event)
        assert event.data["sha256"] is None
        os.utime(path)
        assert [said(record) for record in await reading.take(1)] == ["file.changed a#2"]


async def test_above_64_mib_only_the_stat_counts(landing: Landing) -> None:
    path = landing.put("large")
    os.truncate(path, 64 * 1024 * 1024 + 1)
    async with landing.read() as reading:
        (event,) = await reading.take(1)
    assert isinstance(event, Event)
    assert (event.data["size"], event.data["sha256"]) == (67_108_865, None)


async def test_a_removed_file_that_returns_arrives_anew(landing: Landing) -> None:
    path = landing.put("a", b"one")
    async with landing.read(removed=True) as reading:
        assert await landing.next(reading) == ["file.arrived a#1"]
        path.unlink()
        assert await landing.next(reading) == ["file.removed a#2"]
        landing.put("a", b"one")
        assert await landing.next(reading) == ["file.arrived a#3"]


async def test_removals_are_silent_unless_asked_for(landing: Landing) -> None:
    path = landing.put("a", b"one")
    async with landing.read() as reading:
        await reading.take(1)
        path.unlink()
        async with asyncio.timeout(20):
            while landing.core.ledger[b"a"].present:  # one that is back before anybody looked was never gone
                assert await landing.rest(reading) == []
        landing.put("a", b"one")
        assert await landing.next(reading) == ["file.arrived a#2"]


# ---------------------------------------------------------------------- while nobody looks


async def test_what_happened_while_down_is_found_at_the_start(landing: Landing) -> None:
    for name in ("stays", "changes", "goes"):
        landing.put(name, b"one")
    async with landing.read(removed=True) as reading:
        await reading.take(3)
    landing.put("changes", b"two")
    (landing.root / "goes").unlink()
    for number in range(500):
        landing.put(f"new/{number % 7}/{number}")
    async with landing.read(removed=True) as reading:
        came = sorted(said(record) for record in await reading.take(502))
    arrived = [f"file.arrived new/{number % 7}/{number}#1" for number in range(500)]
    assert came == sorted([*arrived, "file.changed changes#2", "file.removed goes#2"])


async def test_ignored_at_the_first_deploy_and_only_then(landing: Landing) -> None:
    for number in range(20):
        landing.put(f"old-{number}")
    interrupted = landing.source(initial="ignore")
    async for batch in (batches := interrupted.batches("", None)):
        landing.core.commit("", batch)
        await interrupted.committed(batch, [])
        if len(landing.core.ledger) > 1:
            break  # the root's mark and the first of the baseline: a crash in the middle
    await batches.aclose()
    interrupted_at = time.time_ns()
    while landing.put("new").stat().st_ctime_ns <= interrupted_at:
        pass  # the clock of ctimes ticks every few milliseconds
    async with landing.read(initial="ignore") as reading:
        assert await landing.next(reading) == ["file.arrived new#1"]
        landing.put("old-7", b"other")
        assert await landing.next(reading) == ["file.changed old-7#2"]


# ---------------------------------------------------------------------- when a file is whole


async def test_a_file_written_slowly_comes_once_and_whole(landing: Landing) -> None:
    async def write() -> None:
        with (landing.root / "slow").open("wb", buffering=0) as file:
            for _ in range(20):
                file.write(b"k" * 1024)
                await asyncio.sleep(0.05)

    async with landing.read(settle={"quiet": "500ms"}) as reading:
        writer = asyncio.create_task(write())
        (event,) = await reading.take(1)
        await writer
        assert isinstance(event, Event)
        assert (event.id, event.data["size"]) == ("slow#1", 20 * 1024)
        assert await landing.rest(reading) == []


async def test_a_file_that_grows_while_it_is_read_is_never_half_seen(landing: Landing) -> None:
    content = os.urandom(8 * 1024 * 1024)

    def grow() -> None:
        with (landing.root / "grows").open("ab", buffering=0) as file:
            for start in range(0, len(content), 16 * 1024):
                file.write(content[start : start + 16 * 1024])

    async with landing.read(settle={"quiet": "1ms"}, rescan="50ms") as reading:
        threading.Thread(target=grow).start()
        size = 0
        while size < len(content):
            for record in await reading.take(1):
                assert isinstance(record, Event)
                size = record.data["size"]
                assert record.data["sha256"] == hashlib.sha256(content[:size]).hexdigest()


async def test_a_file_written_to_behind_the_reader_is_read_again(
    landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first byte becomes another one once its megabyte was read."""
    path = landing.put("a", b"x" * (3 << 20))
    read, reads = os.read, 0

    def overtaken(descriptor: int, size: int) -> bytes:
        nonlocal reads
        chunk = read(descriptor, size)
        if size >= 1 << 20 and os.fstat(descriptor).st_ino == path.stat().st_ino:
            reads += 1
            if reads == 1:
                with path.open("r+b") as file:
                    file.write(b"y")
        return chunk

    async with landing.read() as reading:
        monkeypatch.setattr(os, "read", overtaken)
        (event,) = await reading.take(1)
        assert isinstance(event, Event)
        assert event.data["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert await landing.rest(reading) == []


async def test_a_marker_vouches_for_what_is_not_newer_than_itself(landing: Landing) -> None:
    async with landing.read(settle={"marker": "{path}.done"}, pattern="*.csv") as reading:
        path = landing.put("a.csv", b"one")
        marker = landing.root / "a.csv.done"
        marker.touch()
        assert [said(record) for record in await reading.take(1)] == ["file.arrived a.csv#1"]
        os.utime(path, ns=(0, marker.stat().st_mtime_ns + 1))
        path.write_bytes(b"two")
        landing.put("b.csv")
        (landing.root / "b.csv.done").touch()
        assert [said(record) for record in await reading.take(1)] == ["file.arrived b.csv#1"]
        marker.touch()
        assert [said(record) for record in await reading.take(1)] == ["file.changed a.csv#2"]


async def test_a_folder_renamed_into_place_brings_whole_files(landing: Landing) -> None:
    folder = landing.aside / "day"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a").write_bytes(b"x")
    async with landing.read(settle={"quiet": "1h"}) as reading:
        await landing.until_watched(reading)
        folder.rename(landing.root / "day")
        assert [said(record) for record in await reading.take(1)] == ["file.arrived day/deep/a#1"]


# ---------------------------------------------------------------------- hostile


async def test_symlinks_out_of_the_root_are_refused(landing: Landing) -> None:
    secret = landing.aside / "secret"
    secret.write_bytes(b"s")
    landing.put("inside")
    (landing.root / "out").symlink_to(secret)
    (landing.root / "up").symlink_to(landing.aside)
    (landing.root / "loop").symlink_to("loop")
    (landing.root / "round").symlink_to(".")
    (landing.root / "in").symlink_to("inside")
    async with landing.read() as reading:
        came = [said(record) for record in await reading.take(2)]
        (landing.root / "later").symlink_to(secret)
        assert await landing.rest(reading) == []
    assert sorted(came) == ["file.arrived in#1", "file.arrived inside#1"]


async def test_a_folder_that_became_a_symlink_out_of_the_root_has_lost_its_files(landing: Landing) -> None:
    landing.put("folder/a", b"one")
    async with landing.read(removed=True) as reading:
        await reading.take(1)
    (landing.root / "folder").rename(landing.aside / "folder")
    (landing.aside / "folder" / "a").write_bytes(b"secret")
    (landing.root / "folder").symlink_to(landing.aside / "folder")
    async with landing.read(removed=True) as reading:
        assert await landing.next(reading) == ["file.removed folder/a#2"]


async def test_a_name_that_is_not_utf_8_is_one_dead_letter(landing: Landing) -> None:
    name = os.path.join(os.fsencode(landing.root), b"caf\xe9\n.csv")
    with open(name, "wb") as file:
        file.write(b"one")
    async with landing.read() as reading:
        (broken,) = await reading.take(1)
        assert await landing.rest(reading) == []
    assert isinstance(broken, Broken)
    assert broken.raw == b"caf\xe9\n.csv"
    assert broken.reason == "caf\\xe9\n.csv: the file's name is not UTF-8"
    async with landing.read() as reading:
        assert await landing.rest(reading) == []
        with open(name, "wb") as file:
            file.write(b"other")
        assert len(await reading.take(1)) == 1


async def test_any_time_of_modification_is_taken(landing: Landing) -> None:
    """Some file systems hold years beyond what 64 bits of nanoseconds, or a datetime, can say."""
    for seconds in (-(10**17), 10**12, 10**17):
        try:
            os.utime(landing.put(f"at{seconds}"), (seconds, seconds))
        except OverflowError:
            landing.put(f"at{seconds}")
    async with landing.read() as reading:
        records = await reading.take(3)
    assert all(isinstance(record, Event) for record in records)


async def test_files_that_vanish_are_nothing(landing: Landing) -> None:
    async with landing.read(settle={"quiet": "1ms"}) as reading:
        await landing.until_watched(reading)
        for number in range(300):
            landing.put(f"gone-{number}").unlink()
        assert [each for each in await landing.rest(reading) if not each.startswith("file.arrived")] == []


# ---------------------------------------------------------------------- many, and missed


async def test_ten_thousand_renames_are_ten_thousand_events(landing: Landing) -> None:
    with burst(landing, 10_000) as writer:
        async with landing.read(settle={"quiet": "1h"}, rescan="1h") as reading:
            await landing.until_watched(reading)
            writer.communicate(b"\n")
            # Hints are looked into side by side: the last file may come before others, no order is promised.
            came = [said(record) for record in await reading.take(10_000)]
            came += await landing.rest(reading)
    assert sorted(came) == sorted(f"file.arrived {number}#1" for number in range(10_000))


async def test_what_the_kernel_dropped_is_found_by_a_scan(landing: Landing) -> None:
    """Held by its lock, as long as 20,000 files take, the reader lets the queue of 16,384 hints overflow."""
    async with landing.read(settle={"quiet": "1ms"}, rescan="1h") as reading:
        landing.put("before/first")
        await reading.take(1)
        (watcher,) = [thread for thread in threading.enumerate() if thread.name == "eventflow-inotify-files"]
        with watcher._lock:  # type: ignore[attr-defined]
            with burst(landing, 20_000) as writer:
                writer.communicate(b"\n")
            (landing.root / "before").rename(landing.aside / "before")
            landing.put("before/again")  # in a folder made while nobody listened
        came = {said(record) for record in await reading.take(20_001)}
        assert came == {f"file.arrived {n}#1" for n in range(20_000)} | {"file.arrived before/again#1"}
        landing.put("before/later")
        assert await landing.next(reading) == ["file.arrived before/later#1"]


async def test_files_in_folders_made_a_moment_before_are_found(landing: Landing) -> None:
    async with landing.read(settle={"quiet": "1ms"}, rescan="1h") as reading:
        await landing.until_watched(reading)
        assert (
            await landing.rest(reading) == []
        )  # the scan at the start is over: only hints tell from here on
        for number in range(100):
            folder = landing.root / f"{number}" / "a" / "b"
            folder.mkdir(parents=True)
            (folder / "c").write_bytes(b"x")
        came = {said(record) for record in await reading.take(100)}
    assert came == {f"file.arrived {number}/a/b/c#1" for number in range(100)}


async def test_without_inotify_it_polls(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoMore:
        def __init__(self) -> None:
            raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr(watch, "InotifyFD", NoMore)
    async with landing.read(rescan="1h") as reading:
        landing.put("first")
        await reading.take(1)
        landing.put("second")
        assert await landing.next(reading) == ["file.arrived second#1"]


async def test_what_is_not_taken_in_yet_is_counted(landing: Landing) -> None:
    async def behind() -> Progress:
        return await reading.source.progress("", None)  # type: ignore[attr-defined]

    async with landing.read(settle={"quiet": "1h"}) as reading:
        await landing.until_watched(reading)
        assert await landing.rest(reading) == []
        before = (
            await behind()
        )  # a probe may have come before the watch: the scan cannot see that it was renamed
        for number in range(7):
            (landing.root / f"written-{number}").touch()
        assert await landing.rest(reading) == []
        assert await behind() == Progress((before.lag or 0) + 7, "files")


async def test_two_readers_of_one_folder_take_each_file_once(landing: Landing) -> None:
    """The second one is a node that does not know yet that it has lost the partition."""
    with burst(landing, 1_000) as writer:
        async with AsyncExitStack() as stack:
            readings = [await stack.enter_async_context(landing.read()) for _ in range(2)]
            readers = [asyncio.create_task(reading.take(10**6)) for reading in readings]
            writer.communicate(b"\n")
            async with asyncio.timeout(20):
                while len(landing.core.taken) < 1_000:
                    await asyncio.sleep(0.01)
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
    assert sorted(map(said, landing.core.taken)) == sorted(f"file.arrived {n}#1" for n in range(1_000))


# ---------------------------------------------------------------------- the root


async def test_a_root_that_is_not_there_says_so(landing: Landing) -> None:
    landing.root.rmdir()
    with pytest.raises(SourceUnavailable, match=r"landing cannot be read: No such file"):
        await landing.source().origin()


async def test_a_root_that_goes_away_is_not_taken_for_removals(landing: Landing) -> None:
    landing.put("a")
    async with landing.read(removed=True) as reading:
        await reading.take(1)
        landing.root.rename(landing.aside / "unmounted")
        with pytest.raises(SourceUnavailable, match="cannot be read"):
            await reading.next()
    landing.root.mkdir()
    async with landing.read(removed=True) as reading:
        with pytest.raises(SourceUnavailable, match="is empty and not the folder it was"):
            await reading.next()
    landing.root.rmdir()
    (landing.aside / "unmounted").rename(landing.root)
    async with landing.read(removed=True) as reading:
        assert await landing.rest(reading) == []


async def test_the_origin_is_the_real_folder(landing: Landing) -> None:
    (landing.root.parent / "link").symlink_to(landing.root)
    assert await landing.source(path="link").origin() == str(landing.root)
    assert await landing.source(path="aside").origin() == str(landing.aside)


async def test_audit_counts_what_is_there_and_what_is_not_taken_in(landing: Landing) -> None:
    words = {"pattern": "*.csv"}
    touched = landing.put("a.csv")
    landing.put("ignored.txt")
    (landing.root / "out.csv").symlink_to(landing.aside)
    async with landing.read(**words) as reading:
        await reading.take(1)
    os.utime(touched)
    landing.put("b.csv")
    assert await landing.source(**words).outside() == Outside(2, 1, ["b.csv"], 1, ("ignored.txt",))


async def test_a_file_is_located_by_any_of_its_names(
    landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {"pattern": "{n:int}.csv"}
    landing.put("1.csv")
    async with landing.read(**words) as reading:
        await reading.take(1)
    landing.put("2.csv")
    landing.put("x.csv")
    source = landing.source(**words)
    monkeypatch.chdir(landing.root)
    for name in ("x.csv", "landing/x.csv", "./x.csv", str(landing.root / "x.csv")):
        told = await source.locate(name)
        assert told
        assert "its pattern '{n:int}.csv' does not take 'x.csv'; a capture" in told
    assert "'2.csv' is not taken in yet" in (await source.locate("2.csv") or "")
    assert "'1.csv' is known and has no event" in (await source.locate("1.csv") or "")
    assert [await source.locate(name) for name in ("3.csv", "../aside", "landing", "", "a\0b")] == [None] * 5


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    until_no_thread_is_left()
