"""How far behind its system each partition of this node is: asked every few seconds, beside the reading.

For `eventflow sources`; nothing else depends on it, so a system that does not answer costs no more than a
line in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, cast
from uuid import UUID

import structlog

from eventflow.offers import Measured, Progress
from eventflow.reading import Reading
from eventflow.store import progress
from eventflow.store.pool import Pool
from eventflow.store.progress import Standing

log = structlog.get_logger()

MEASURE_SECONDS: Final = 5.0
"""How often."""
ANSWER_SECONDS: Final = 3.0
"""How long a system may take to say."""


class Measure:
    """Asks the sources that can tell (`eventflow.offers.Measured`), and writes down what they say."""

    def __init__(self, pool: Pool, node: UUID, readings: Mapping[str, Reading]) -> None:
        self._pool = pool
        self._node = node
        self._readings = readings
        self._failed: set[str] = set()

    async def run(self) -> None:
        """One round, and the time until the next."""
        await self.once()
        await asyncio.sleep(MEASURE_SECONDS)

    async def once(self) -> None:
        """Measure everything that this node reads. Raises that Postgres is away, and no more."""
        able = [name for name, reading in self._readings.items() if hasattr(reading.source, "progress")]
        if not able:
            return
        async with self._pool.acquire() as conn:
            standings = await progress.standings(conn, self._node, able)
        measured = await asyncio.gather(*(self._ask(standing) for standing in standings))
        told = [(standing, one) for standing, one in zip(standings, measured, strict=True) if one]
        if told:
            async with self._pool.acquire() as conn:
                await progress.write(conn, told)

    async def _ask(self, standing: Standing) -> Progress | None:
        reading = self._readings.get(standing.source)
        if reading is None:  # a new rule set came in between
            return None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                found = await cast("Measured", reading.source).progress(standing.partition, standing.cursor)
        except Exception as error:
            # Whatever it is, whoever reads the partition says more about it. Once, until it is well again.
            if standing.source not in self._failed:
                self._failed.add(standing.source)
                where = {"source": standing.source, "partition": standing.partition}
                log.warning("not_measured", **where, reason=str(error) or type(error).__name__)
            return None
        self._failed.discard(standing.source)
        return found
