"""A rule in the form that matches: immutable, every expression compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from eventflow.event import Event
from eventflow.expression import Expression, Template
from eventflow.matching.pattern import Pattern


class OnError(StrEnum):
    """What happens to an event whose `where` ended in an error."""

    only_count = "count"
    dead_letter = "dead-letter"


@dataclass(frozen=True, slots=True)
class Rule:
    """One named rule with a plain trigger: one event, one firing.

    `sources` are the configured names in `from` (None: any). `inputs` is `with`: the parameters of
    `run`, or the data of `emit`. `reentry` is how often the rule may stand in its own causal chain.
    """

    name: str
    sources: frozenset[str] | None
    pattern: Pattern
    where: Expression | None = None
    run: str | None = None
    emit: str | None = None
    inputs: Mapping[str, Template] = field(default_factory=dict[str, Template])
    reentry: int = 0
    priority: int = 0
    on_error: OnError = OnError.only_count
    owner: str | None = None
    tags: tuple[str, ...] = ()
    description: str | None = None

    def takes(self, event: Event) -> bool:
        """Whether `from` and `match` hold; `where` is asked after them."""
        return (self.sources is None or event.source in self.sources) and self.pattern.matches(event)
