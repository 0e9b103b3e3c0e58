"""What the systems behind sources cannot deliver, by their own word: for `check`."""

from __future__ import annotations

import asyncio
from typing import Final, cast

from eventflow.context import context_without_store
from eventflow.errors import Problem, SourceUnavailable
from eventflow.offers import Examined
from eventflow.rulefile.ruleset import RuleSet, SourceSpec

PATIENCE_SECONDS: Final = 3.0
"""For all of them together."""


async def ask_systems(ruleset: RuleSet) -> list[Problem]:
    """Warnings, a source after the other in the order of the set; silence for who cannot be asked in time."""
    specs = [spec for spec in ruleset.sources.values() if hasattr(spec.factory, "examine")]
    asked = [asyncio.create_task(_examine(spec)) for spec in specs]
    if asked:
        _, late = await asyncio.wait(asked, timeout=PATIENCE_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.wait(asked, timeout=PATIENCE_SECONDS)
    return [problem for task in asked if task.done() and not task.cancelled() for problem in task.result()]


async def _examine(spec: SourceSpec) -> list[Problem]:
    try:
        source = spec.factory(spec.name, spec.config, context_without_store(spec))
        said = await cast("Examined", source).examine()
    except SourceUnavailable:  # away, or a secret that is not set here
        return []
    except Exception as error:  # a connector's own bug: `check` tells, and goes on
        said = [f"cannot be examined: {type(error).__name__}: {error}"]
    return [
        Problem(spec.file, spec.line, spec.column, f"source '{spec.name}': {one}", warning=True)
        for one in said
    ]
