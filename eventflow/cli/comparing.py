"""What the systems behind sources hold, beside what was taken in: for `audit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from eventflow.cli.output import some_of
from eventflow.context import context_of
from eventflow.errors import SourceError
from eventflow.event import Event, Record
from eventflow.offers import Audited, Measured, Repeating
from eventflow.rulefile.ruleset import RuleSet, SourceSpec
from eventflow.source import Delivery
from eventflow.store import audit as store
from eventflow.store.pool import Pool

NAMES = 20
"""How many of what is unknown are named."""


async def compare(
    pool: Pool, ruleset: RuleSet, rows: Mapping[str, dict[str, Any]], *, kept_from: datetime, deep: bool
) -> list[str]:
    """Fill in what the systems say, into the rows by source; what does not fit, a sentence each.

    Files still settling count as unknown. Retention has removed nothing that was taken in since `kept_from`.
    """
    problems: list[str] = []
    for name, spec in ruleset.sources.items():
        row = rows.get(name, {})
        try:
            found = await _ask(pool, spec, row, kept_from, deep=deep)
        except SourceError as error:
            problems.append(f"source '{name}': cannot be compared with its system: {error}")
        else:
            problems += [f"source '{name}': {found}"] if found else []
    return problems


async def _ask(
    pool: Pool, spec: SourceSpec, row: dict[str, Any], kept_from: datetime, *, deep: bool
) -> str | None:
    if not any(hasattr(spec.factory, word) for word in ("outside", "progress", "again")):
        return None
    source: Any = spec.factory(spec.name, spec.config, context_of(spec, pool))
    if hasattr(spec.factory, "outside"):
        outside = await cast("Audited", source).outside()
        row.update(ignored=outside.ignored, ignored_names=list(outside.ignored_names))
        return _judge(row, outside.there, outside.unknown_count, outside.unknown)
    async with pool.acquire() as conn:
        positions = await store.positions(conn, spec.name)
    if hasattr(spec.factory, "progress") and spec.delivery is Delivery.ordered:
        told = [await cast("Measured", source).progress(*one) for *one, _ in positions]
        lags = [one.lag for one in told if one.lag is not None]
        row.update(lag=sum(lags) if lags else None)
    if not deep or not hasattr(spec.factory, "again"):
        return None
    repeated = _Repeated()
    for partition, cursor, retired in positions:
        repeated.begin(retired)
        async with aclosing(cast("Repeating", source).again(partition, cursor)) as batches:
            async for batch in batches:
                await repeated.add(pool, spec.name, batch.records, kept_from)
    return _judge(row, repeated.there, repeated.unknown, repeated.names)


@dataclass(slots=True)
class _Repeated:
    """What was read once more: how many, and those of them that nothing stands for.

    Retention may have removed a record here that its system still has. Records of a partition were taken in
    in their order, so none that comes after one taken in since `kept_from` is excused with that, and of
    those before it no more than retention has counted.
    """

    there: int = 0
    unknown: int = 0
    names: list[str] = field(default_factory=list[str])
    excuses: int = 0
    kept: bool = False

    def begin(self, retired: int) -> None:
        """The next partition, of which so many were retired."""
        self.excuses, self.kept = retired, False

    async def add(self, pool: Pool, source: str, records: Sequence[Record], kept_from: datetime) -> None:
        """Records of the partition, in their order."""
        async with pool.acquire() as conn:
            gone = await store.not_taken(conn, source, records)
            first = 0 if self.kept else await store.first_taken_since(conn, source, records, kept_from)
        self.kept = first is not None
        excusable = len(gone) if first is None else sum(number < first for number in gone)
        excused = min(excusable, self.excuses)
        self.excuses -= excused
        lost = gone[excused:]
        self.there += len(records)
        self.unknown += len(lost)
        for number in lost[: NAMES - len(self.names)]:
            record = records[number]
            self.names.append(record.id if isinstance(record, Event) else str(record.position))


def _judge(row: dict[str, Any], there: int, unknown: int, names: Sequence[str]) -> str | None:
    row.update(outside=there, unknown=unknown)
    if not unknown:
        return None
    row.update(balanced=False)
    return f"{unknown} are there and were not taken in: {some_of(names, unknown)}"
