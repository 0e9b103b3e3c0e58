"""What the system behind a source still needs, and what it cannot deliver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from eventflow.cli.going_on import configured
from eventflow.context import context_of
from eventflow.errors import SourceUnavailable
from eventflow.offers import Examined, Preparing
from eventflow.store.pool import Pool


@dataclass(frozen=True, slots=True)
class Prepared:
    """The statements that are needed, or that were run, and the warnings that follow."""

    statements: Sequence[str]
    warnings: Sequence[str]


async def prepare_source(pool: Pool, name: str, *, run: bool) -> Prepared:
    """Ask the source, or let it run them. Raises `UsageError`, and `SourceUnavailable` as the source does."""
    spec = await configured(pool, name)
    source: Any = spec.factory(name, spec.config, context_of(spec, pool))
    statements: Sequence[str] = ()
    warnings: Sequence[str] = ()
    if hasattr(spec.factory, "preparation"):
        preparing = cast("Preparing", source)
        statements = await (preparing.prepare() if run else preparing.preparation())
    if hasattr(spec.factory, "examine"):
        try:
            warnings = await cast("Examined", source).examine()
        except SourceUnavailable:
            if run or not statements:  # else it may just be what is still needed
                raise
    return Prepared(statements, warnings)
