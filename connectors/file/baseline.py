"""`initial: ignore`: what is there at the first deploy gets marks and no records.

It may take many batches and a crash in the middle must not blur the line between what was there and what
came since. So the first mark of all says when it began, and the last one that it is done. A file with a
later ctime came since, whenever it is found. ctimes are up to a tick of the kernel (10 ms) behind the
clock, never ahead of it: what was there is never taken, and the deploy is the end of its tick.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from connectors.file.fingerprint import BASELINE, BaselineMark, decode_baseline, encode
from connectors.file.handover import put_together
from connectors.file.look import Candidate, Look, Seen
from connectors.file.record import Recorder
from connectors.file.scan import Scanner
from connectors.file.walk import Found
from eventflow.source import Batch, Mark, SourceContext

Looker = Callable[[Sequence[Candidate]], "asyncio.Future[list[Look]]"]


async def baseline(
    context: SourceContext, scanner: Scanner, recorder: Recorder, look: Looker
) -> AsyncGenerator[Batch]:
    """Batches of marks alone, or nothing where it was done before."""
    known = (await context.known([BASELINE])).get(BASELINE)
    before = decode_baseline(known.fingerprint) if known else None
    if before and before.done:
        return
    began = before.began if before else time.time_ns()
    if not before:
        yield _said(BaselineMark(began, done=False), 1)
    await scanner.in_order()
    async with aclosing(scanner.changed(b"")) as slices:
        async for found in slices:
            old = [each for each in found if each.signature.ctime <= began]
            batch = await _marks(context, recorder, look, old)
            if batch:
                yield batch
    yield _said(BaselineMark(began, done=True), 2)


async def _marks(
    context: SourceContext, recorder: Recorder, look: Looker, found: Sequence[Found]
) -> Batch | None:
    """Whole or not, they were there; one that changes while it is read has come since."""
    if not found:
        return None
    looks = await look([Candidate(each.path, settled=True) for each in found])
    known = await context.known([each.path for each in found])
    return put_together([
        recorder.baseline(each, known.get(each.path)) for each in looks if each.seen is not Seen.unsettled
    ])  # fmt: skip


def _said(mark: BaselineMark, generation: int) -> Batch:
    """Not `present`: it is no file, and no count of files should hold it."""
    return Batch((), marks=[Mark(BASELINE, encode(mark), generation, present=False)])
