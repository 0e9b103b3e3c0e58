"""From hints and scans to batches: one run of a file source over its folder.

    hints, scans -> candidates -> looks (threads) -> known? -> batch -> COMMIT -> committed

Everything is pulled: nothing runs ahead but the looks that are in the threads already, so a slow commit
slows the reading down and memory stays bounded. Forgetting all of this at any moment loses nothing: the
ledger is the truth and the next scan finds what is not in it.
"""

from __future__ import annotations

import asyncio
import errno
import math
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from datetime import timedelta

import structlog

from connectors.file.baseline import baseline
from connectors.file.candidates import Candidates
from connectors.file.config import FileConfig
from connectors.file.folder import Folder
from connectors.file.handover import Handover
from connectors.file.look import Candidate, Look, Looking, Seen, marker_name
from connectors.file.pattern import PathPattern
from connectors.file.record import Recorder
from connectors.file.scan import Scanner
from connectors.file.watch import Hint, Kind, Watcher, inotify_tells
from eventflow.offers import Progress
from eventflow.source import Batch, Receipt, SourceContext

log = structlog.get_logger()

BATCH = 1_000
LOOKERS = 3
LOOKS_AT_ONCE = 250
MOST_LOOKS = 2_000
MOST_READY = 10_000
HINTS_AT_ONCE = 2_000
"""Matching their paths holds the event loop: no longer than this many take."""
POLL_SECONDS = 1.0
SCAN_SHARE = 10
"""A scan takes at most this part of the time: a folder that takes long to compare is compared less often."""


class Intake:
    """Made for one call of `batches`; `close` releases threads, watches and descriptors."""

    def __init__(self, name: str, config: FileConfig, folder: Folder, context: SourceContext) -> None:
        root = folder.root
        self._config = config
        self._context = context
        self._log = log.bind(source=name)
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._stop = threading.Event()
        self._quiet = _nanoseconds(config.settle.quiet or timedelta(0))
        self._marker = marker_name(config.settle.marker)
        self._threads = ThreadPoolExecutor(LOOKERS + 1, thread_name_prefix=f"eventflow-file-{name}")
        self._looking = Looking(root, self._quiet, self._marker, config.identity == "content", self._stop)
        pattern = PathPattern(config.pattern)
        self._recorder = Recorder(name, root, pattern, config.removed)
        self._scanner = Scanner(context, folder, pattern, self._threads, self._enter)
        self._handover = Handover(context, self._recorder, self._scanner)
        self._folder = folder
        self._watcher: Watcher | None = None
        self._candidates = Candidates()
        self._running: dict[asyncio.Future[list[Look]], int] = {}
        self._looks: deque[Look] = deque()
        self._scan: AsyncGenerator[None] | None = None
        self._folders: dict[bytes, bool] = {}
        self._full_due = 0.0
        self._compared = False
        self._reported: set[bytes] = set()

    # ------------------------------------------------------------------ the loop

    async def batches(self) -> AsyncGenerator[Batch]:
        """Batches for ever. Raises `SourceUnavailable` when the root goes away."""
        first = await self._folder.introduce(self._context)
        if first:
            yield first
        await self._watch()
        if self._config.initial == "ignore":
            async with aclosing(baseline(self._context, self._scanner, self._recorder, self._look)) as marks:
                async for batch in marks:
                    yield batch
        while True:
            await asyncio.sleep(0)  # others run, even where nothing below has to wait
            self._take_hints()
            self._candidates.fall_due()
            self._collect_looks()
            # After the collecting: who rests has nothing to look at, or looks that wake it when they end.
            self._start_looks()
            scanning = await self._advance_scan()
            batch = await self._next_batch()
            if batch:
                yield batch
            elif not scanning and not self._looks:
                await self._rest()

    def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None:
        for path in self._handover.committed(batch, receipts):
            self._candidates.now(Candidate(path))

    def refused(self, batch: Batch) -> None:
        for path in self._handover.refused(batch):
            self._candidates.now(Candidate(path))

    def behind(self) -> Progress:
        """Files noticed and not taken in: to be looked at, still being written, or about to be committed."""
        hints = self._watcher.waiting if self._watcher else 0
        looked_at = sum(self._running.values()) + len(self._looks)
        lag = hints + len(self._candidates) + looked_at + self._handover.open
        note = None
        if not self._compared:
            note = "the folder is being compared with what is known; more files may turn up"
        elif self._watcher is None and self._config.watch == "auto":
            note = "inotify does not tell of this folder (the log says why): it is compared every second"
        return Progress(lag, "files", note)

    async def close(self) -> None:
        """End the threads, each at its next file or megabyte. Waits for none: a file system may hang."""
        self._stop.set()
        if self._watcher:
            self._watcher.close()
        if self._scan:
            await self._scan.aclose()
        for look in self._running:
            look.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------------ hints

    async def _watch(self) -> None:
        if self._config.watch == "poll":
            return
        if not await self._loop.run_in_executor(self._threads, inotify_tells, self._folder.root):
            self._log.info("inotify_unused", reason="the file system does not tell of every change; polling")
            return
        try:
            # Times matter to markers and to identity by stat; elsewhere a touch is nothing.
            touches = self._marker is not None or self._config.identity == "stat"
            self._watcher = Watcher(self._name, self._folder.root, self._wake_up, touches=touches)
        except OSError as error:
            self._give_up_watching(error)

    def _wake_up(self) -> None:
        """From any thread."""
        try:
            self._loop.call_soon_threadsafe(self._wake.set)
        except RuntimeError:
            return  # the loop is closed: nobody is left to be woken

    def _enter(self, folder: bytes) -> None:
        """From the scan's thread, before it lists `folder`."""
        watcher = self._watcher
        if watcher is None:
            return
        try:
            watcher.add(folder)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                self._loop.call_soon_threadsafe(self._give_up_watching, error)

    def _give_up_watching(self, error: OSError | None) -> None:
        """Polling does what inotify cannot; what is watched already may still help, but is not relied on."""
        watcher, self._watcher = self._watcher, None
        if watcher:
            watcher.close()
        self._full_due = 0.0
        self._wake.set()
        reason = str(error or "its thread ended")
        self._log.warning("inotify_given_up", reason=reason, poll_seconds=POLL_SECONDS)

    def _take_hints(self) -> None:
        if self._watcher is None:
            return
        hints = self._watcher.take(HINTS_AT_ONCE)
        if len(hints) == HINTS_AT_ONCE:
            self._wake.set()  # there may be more: no rest
        for hint in hints:
            match hint.kind:
                case Kind.renamed | Kind.written | Kind.removed:
                    self._take_file(hint)
                case Kind.folder_made | Kind.folder_renamed:
                    self._folders[hint.path] = hint.kind is Kind.folder_renamed
                case Kind.folder_left:
                    self._full_due = 0.0
                case Kind.lost:
                    self._log.warning("hints_lost", reason="the kernel's queue overflowed, or the root went")
                    self._full_due = 0.0
        if len(self._candidates) > MOST_READY * 20:
            self._log.warning("hints_dropped", reason="too many files wait to be whole; scanning")
            self._candidates = Candidates()
            self._full_due = 0.0

    def _take_file(self, hint: Hint) -> None:
        path = hint.path
        vouched = self._marker.vouched(path) if self._marker else None
        if vouched and self._scanner.takes(vouched):
            self._candidates.now(Candidate(vouched))
        if not self._scanner.takes(path):
            return
        if hint.kind is Kind.removed:
            self._candidates.forget(path)
        if hint.kind is Kind.written and not self._marker:
            self._candidates.later(Candidate(path), time.monotonic_ns() + self._quiet)
        else:
            settled = hint.kind is Kind.renamed and not self._marker
            self._candidates.now(Candidate(path, settled=settled))

    # ------------------------------------------------------------------ scans

    async def _advance_scan(self) -> bool:
        """One slice of the scan that is due; False where there is none, or enough is waiting already."""
        if self._candidates.ready >= MOST_READY:
            return False
        if self._scan is None:
            self._scan = self._due_scan()
        if self._scan is None:
            return False
        try:
            await anext(self._scan)
        except StopAsyncIteration:
            self._scan = None
        return True

    def _due_scan(self) -> AsyncGenerator[None] | None:
        if time.monotonic() >= self._full_due:
            self._folders.clear()
            return self._scan_all()
        if self._folders:
            return self._scan_folder(*self._folders.popitem())
        return None

    async def _scan_all(self) -> AsyncGenerator[None]:
        started = time.monotonic()
        self._full_due = math.inf  # whoever wants another one meanwhile says so by setting it
        if self._watcher and not self._watcher.alive:
            self._give_up_watching(None)
        await self._scanner.in_order()
        self._scanner.agreed.make_room()
        async with aclosing(self._scan_folder(b"", settled=False)) as slices:
            async for _ in slices:
                yield
        async with aclosing(self._scanner.missing()) as pages:
            async for missing in pages:
                for path in missing:
                    self._candidates.now(Candidate(path))
                yield
        await self._scanner.in_order()
        self._compared = True
        took = time.monotonic() - started
        usual = self._config.rescan.total_seconds()
        pause = usual if self._watcher else min(usual, POLL_SECONDS)
        self._full_due = min(self._full_due, time.monotonic() + max(pause, SCAN_SHARE * took))
        self._log.debug("folder_scanned", seconds=round(took, 3))

    async def _scan_folder(self, folder: bytes, settled: bool) -> AsyncGenerator[None]:
        """A folder that was renamed into place brings whole files, as a file that was renamed does."""
        async with aclosing(self._scanner.changed(folder)) as slices:
            async for changed in slices:
                for found in changed:
                    self._candidates.now(Candidate(found.path, settled=settled and not self._marker))
                yield

    # ------------------------------------------------------------------ looks

    def _start_looks(self) -> None:
        while self._candidates.ready and len(self._running) < LOOKERS and len(self._looks) < MOST_LOOKS:
            share = math.ceil(self._candidates.ready / LOOKERS)
            chosen = self._candidates.take(min(share, LOOKS_AT_ONCE))
            self._running[self._look(chosen)] = len(chosen)

    def _look(self, candidates: Sequence[Candidate]) -> asyncio.Future[list[Look]]:
        look = self._loop.run_in_executor(self._threads, self._looking.at_all, candidates)
        look.add_done_callback(lambda _: self._wake.set())
        return look

    def _collect_looks(self) -> None:
        for done in [look for look in self._running if look.done()]:
            del self._running[done]
            for look in done.result():
                if look.seen in (Seen.unsettled, Seen.out_of_reach):
                    self._candidates.unfinished(look)
                else:
                    self._looks.append(look)
                if look.seen in (Seen.out_of_reach, Seen.refused):
                    self._report(look)

    def _report(self, look: Look) -> None:
        """Once for each path: every scan sees them again."""
        if look.path in self._reported or len(self._reported) >= BATCH:
            return
        self._reported.add(look.path)
        path = look.path.decode(errors="backslashreplace")
        if look.seen is Seen.out_of_reach:
            self._log.warning("file_out_of_reach", path=path, reason=look.reason)
        else:
            self._log.warning("symlink_refused", path=path, reason="it leads out of the source's folder")

    # ------------------------------------------------------------------ batches

    async def _next_batch(self) -> Batch | None:
        """Up to 1,000 looks, one for a path: the next one of the same path needs the outcome of this one."""
        if not self._looks:
            return None
        looks: dict[bytes, Look] = {}
        while self._looks and len(looks) < BATCH and self._looks[0].path not in looks:
            look = self._looks.popleft()
            looks[look.path] = look
        return await self._handover.batch(looks)

    async def _rest(self) -> None:
        """Until a hint comes, a look ends, a file falls due or a scan does."""
        now = time.monotonic()
        until = self._full_due - now
        due = self._candidates.next_due()
        if due is not None:
            until = min(until, (due - time.monotonic_ns()) / 1e9)
        try:
            async with asyncio.timeout(max(until, 0) if math.isfinite(until) else None):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()


def _nanoseconds(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1) * 1000
