"""The faults as a seeded plan: which process dies or stops, when, and for how long. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Final

from tests.chaos.generator import Load


class Kind(StrEnum):
    """What is done, always from the driver's own process."""

    kill_serve = "kill-serve"
    kill_task = "kill-task"
    kill_postgres = "kill-postgres"
    stop_serve = "stop-serve"


@dataclass(frozen=True, slots=True)
class Fault:
    """`at` in seconds from the start of the load. `seconds`: until the restart, or until SIGCONT."""

    at: float
    kind: Kind
    node: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:6.2f}s {self.kind} node {self.node} for {self.seconds:.2f}s"


@dataclass(frozen=True, slots=True)
class Mix:
    """Load and faults of one kind of run. `pause` is the range of seconds between two faults.

    After `spell` seconds of faults come `calm` seconds without, in which nodes get to work.
    """

    weights: Mapping[Kind, float] = field(
        default_factory=lambda: {
            Kind.kill_serve: 5,
            Kind.kill_task: 3,
            Kind.kill_postgres: 3,
            Kind.stop_serve: 3,
        }
    )
    pause: tuple[float, float] = (1.0, 3.0)
    spell: float = 12.0
    calm: float = 3.0
    load: Load = field(default_factory=Load)


STORM: Final = Mix(
    weights={Kind.kill_serve: 5, Kind.kill_postgres: 5},
    pause=(0.8, 1.8),
    load=Load(files=16, hooks=40, lines=60),
)
"""Deaths close together under small batches: aims at the moments around a COMMIT."""

SLEEPERS: Final = Mix(
    weights={Kind.stop_serve: 8, Kind.kill_task: 1},
    pause=(2.0, 4.0),
    calm=1.0,
    load=Load(slow=0.15, lines=60),
)
"""Stops longer than a lease: aims at owners and attempts that have lost theirs."""

MIXES: Final[Mapping[str, Mix]] = {
    "cursor-second-transaction": STORM,
    "marks-second-transaction": STORM,
    "ack-before-commit": STORM,
    "no-compare-and-set": SLEEPERS,
    "attempt-not-checked": SLEEPERS,
}
"""The mix that a planted bug is looked for with; the plain one otherwise."""


def faults(seed: int, seconds: float, lease: float, mix: Mix) -> Iterator[Fault]:
    """Faults of a run that lasts `seconds`, by time."""
    random = Random(f"{seed}:faults")
    kinds, weights = list(mix.weights), list(mix.weights.values())
    at, calm_at = 2.0, 2.0 + mix.spell
    while at < seconds:
        kind = random.choices(kinds, weights)[0]
        rest = lease + random.uniform(0.5, 2.5) if kind is Kind.stop_serve else random.uniform(0.1, 1.2)
        yield Fault(round(at, 2), kind, random.randrange(2), round(rest, 2))
        at += random.uniform(*mix.pause)
        if at > calm_at:
            at += mix.calm
            calm_at = at + mix.spell
