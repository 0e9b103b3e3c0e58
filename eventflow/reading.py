"""One configured source in this process: its instance, what it was last asked, and its patience."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any, Final

from eventflow.context import context_of, machine_time
from eventflow.rulefile.ruleset import SourceSpec
from eventflow.source import Delivery, Source
from eventflow.store.pool import Pool

LONGEST_BACKOFF_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 10.0
"""How long a source may take to say what stands behind it."""
LOOK_EVERY_SECONDS: Final = 5.0
"""How often a source that is well is asked."""


class Patience:
    """After a failure 1 s, doubling to 30 s, with jitter; anew after 30 s in which nothing failed."""

    def __init__(self) -> None:
        self._pause = 0.0
        self._not_before = 0.0

    def failed(self) -> None:
        """Back off."""
        now = time.monotonic()
        well = now - self._not_before > LONGEST_BACKOFF_SECONDS
        self._pause = 1.0 if well else min(LONGEST_BACKOFF_SECONDS, max(1.0, 2 * self._pause))
        self._not_before = now + self._pause * random.uniform(0.75, 1.25)  # noqa: S311 - jitter

    def over(self) -> bool:
        """False while backing off."""
        return time.monotonic() >= self._not_before


class Reading:
    """A source, its running partitions, and how long it is left alone after a failure.

    `partitions` and `origin` are as of the last look that succeeded; `opens` says whether the last one did,
    `reported` what was said where it did not. A partition that cannot be read is backed off alone: its
    neighbours, and what another node reads well, are claimed at once. `serves`: of what is pushed.
    """

    def __init__(self, spec: SourceSpec, pool: Pool, now: Callable[[], datetime] = machine_time) -> None:
        self.spec = spec
        self.source: Source = spec.factory(spec.name, spec.config, context_of(spec, pool, now))
        self.origin: str | None = None
        self.partitions: Sequence[str] = ()
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.free_since: dict[str, float] = {}
        self.look: asyncio.Task[None] | None = None
        self.opens = False
        self.reported: str | None = None
        self.serves = False
        self._look_again = 0.0
        self._patience = Patience()
        self._patience_with: dict[str, Patience] = {}

    @property
    def owned(self) -> bool:
        return self.source.delivery is not Delivery.pushed

    def ready(self, partition: str) -> bool:
        """False while backing off after a failure of the source, or of this partition."""
        alone = self._patience_with.get(partition)
        return self._patience.over() and (alone is None or alone.over())

    def failed(self) -> None:
        """It cannot be opened: back off from all of it, then look again."""
        self.opens = False
        self._patience.failed()
        self._look_again = 0.0

    def failed_in(self, partition: str) -> None:
        """Back off from this partition, and look at once whether the source can be opened at all."""
        self._patience_with.setdefault(partition, Patience()).failed()
        self._look_again = 0.0

    def forgive(self, partition: str) -> None:
        """Another node reads it well: what failed here is over."""
        self._patience_with.pop(partition, None)

    async def ask(self) -> None:
        """Ask what stands behind the source and which partitions it has. Raises what the source raises."""
        async with asyncio.timeout(LOOK_SECONDS):
            origin, partitions = await self.source.origin(), await self.source.partitions()
        self.origin, self.partitions, self.opens = origin, partitions, True
        self._patience = Patience()
        self._look_again = time.monotonic() + LOOK_EVERY_SECONDS

    def due(self) -> bool:
        """Whether it is time to ask: at first, after a failure, and now and then."""
        return self.look is None and self._patience.over() and time.monotonic() >= self._look_again

    def begin_to_look(self, look: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Ask in a task of its own; one at a time."""
        self.look = asyncio.create_task(look)
        return self.look

    def end_look(self) -> None:
        """Let go of a look that is done. Raises what it raised: that Postgres is away, and no more."""
        if self.look is not None and self.look.done():
            look, self.look = self.look, None
            look.result()
