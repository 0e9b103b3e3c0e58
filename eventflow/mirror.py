"""Copies of dead letters, written by sources that are told to: a topic beside the table, for other readers.

The row is the truth and stays; the copy is written at least once. Letters are taken in hand, copied outside
of any transaction, noted: a process that dies in between leaves them to be copied again once its time is up.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, cast
from uuid import UUID

import structlog

from eventflow.errors import SourceUnavailable
from eventflow.offers import DeadLetter, Mirroring
from eventflow.reading import Reading
from eventflow.store import dead_letters
from eventflow.store.failures import is_disconnect
from eventflow.store.pool import Pool

log = structlog.get_logger()

POLL_SECONDS: Final = 1.0
AT_ONCE: Final = 100
MIRROR_SECONDS: Final = 10.0
"""How long one lot may take."""
IN_HAND: Final = timedelta(seconds=MIRROR_SECONDS + 5)
"""How long other nodes leave it alone. Where noting takes longer than the difference, it is copied twice."""
LONGEST_BACKOFF_SECONDS: Final = 30.0


@dataclass(slots=True)
class _Patience:
    """Of one source, whose trouble is not another's."""

    pause: float = 0.0
    not_before: float = 0.0
    task: asyncio.Task[None] | None = None


class Mirror:
    """Serves the sources that mirror (`eventflow.offers.Mirroring`); where none does, it asks nobody."""

    def __init__(self, pool: Pool, readings: Mapping[str, Reading]) -> None:
        self._pool = pool
        self._readings = readings
        self._patience: dict[str, _Patience] = {}

    async def run(self) -> None:
        """Look once a second, until cancelled."""
        now = asyncio.get_running_loop().time
        async with asyncio.TaskGroup() as group:
            while True:
                sources = self._mirroring()
                self._patience = {name: self._patience.get(name, _Patience()) for name in sources}
                for name, source in sources.items():
                    patience = self._patience[name]
                    idle = patience.task is None or patience.task.done()
                    if idle and now() >= patience.not_before:
                        patience.task = group.create_task(self._empty(name, source, patience))
                await asyncio.sleep(POLL_SECONDS)

    def _mirroring(self) -> dict[str, Mirroring]:
        sources = {name: cast("Mirroring", reading.source) for name, reading in self._readings.items()}
        return {name: source for name, source in sources.items() if getattr(source, "mirrors", False)}

    async def _empty(self, name: str, source: Mirroring, patience: _Patience) -> None:
        """Mirror what there is; where that fails, not again for a while."""
        try:
            while await mirror_some(self._pool, name, source):
                pass
        except Exception as error:
            if patience.pause == 0.0:
                reason = str(error) or type(error).__name__
                known = isinstance(error, SourceUnavailable) or is_disconnect(error)
                log.warning("mirror_waiting", source=name, reason=reason, exc_info=None if known else error)
            # Postgres is asked at once when it is back; what stands behind the source is spared.
            doubled = POLL_SECONDS if is_disconnect(error) else (2 * patience.pause or 1.0)
            patience.pause = min(LONGEST_BACKOFF_SECONDS, doubled)
            jitter = random.uniform(0.75, 1.25)  # noqa: S311 - jitter
            patience.not_before = asyncio.get_running_loop().time() + patience.pause * jitter
        else:
            if patience.pause:
                log.info("mirror_resumed", source=name)
            patience.pause = 0.0


async def mirror_some(pool: Pool, name: str, source: Mirroring) -> int:
    """Mirror the oldest letters of a source that have not been; how many there were.

    A letter that the other side will never take is said in the log and not tried again. Raises what `mirror`
    does. Holds no connection while the other side is asked.
    """
    async with pool.acquire() as conn:
        letters = await dead_letters.to_mirror(conn, name, AT_ONCE, IN_HAND)
    if not letters:
        return 0
    try:
        refused = await _within_limit(name, source, letters)
    except Exception:
        async with pool.acquire() as conn:
            await dead_letters.not_mirrored(conn, letters)
        raise
    for letter_id, reason in refused.items():
        log.error("letter_not_mirrored", source=name, dead_letter=str(letter_id), reason=reason)
    async with pool.acquire() as conn:
        await dead_letters.mirrored(conn, letters)
    return len(letters)


async def _within_limit(name: str, source: Mirroring, letters: Sequence[DeadLetter]) -> Mapping[UUID, str]:
    try:
        async with asyncio.timeout(MIRROR_SECONDS):
            return await source.mirror(letters)
    except TimeoutError as error:
        reason = f"source '{name}': its dead letters were not copied within {MIRROR_SECONDS:g} s"
        raise SourceUnavailable(reason) from error
