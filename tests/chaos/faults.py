"""The faults as a seeded plan: which process or connection is hit, when, and for how long. No I/O, no clock.

Three streams run side by side. *Deaths* take a process away; it is started again at once. *Sieges* hold a
node for longer than a lease, so that the other one takes over what it held; meanwhile that other one is
left alive. *Cuts* end connections, which costs next to nothing, so they are many: they are what gives every
place between two statements its chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from heapq import merge
from random import Random
from typing import Final


class Kind(StrEnum):
    """What is done, always from the driver's own process."""

    kill_serve = "kill-serve"
    kill_task = "kill-task"
    kill_postgres = "kill-postgres"
    kill_broker = "kill-broker"
    lose_postgres = "lose-postgres"
    stop_serve = "stop-serve"
    end_serve = "end-serve"
    stall_link = "stall-link"
    stall_both = "stall-both"
    cut = "cut"
    end_backends = "end-backends"
    apply = "apply"


class Moment(StrEnum):
    """When a fault strikes, seen from the wire: `before` withholds a message, `after` its whole answer."""

    now = "now"
    before_request = "before-request"
    after_request = "after-request"
    before_commit = "before-commit"
    after_commit = "after-commit"

    @property
    def of_commit(self) -> bool:
        return self in (Moment.before_commit, Moment.after_commit)

    @property
    def of_answer(self) -> bool:
        return self in (Moment.after_request, Moment.after_commit)


LASTING: Final = frozenset({Kind.stop_serve, Kind.stall_link, Kind.stall_both, Kind.lose_postgres})
"""Longer than a lease. Whoever is hit has lost what it held, and does not know it; but nobody has where it is
Postgres that is away."""
SPARED: Final = frozenset({Kind.kill_serve, Kind.kill_postgres, Kind.end_serve})
"""Not during a siege, nor while one waits for both nodes to be at work."""

UNTIMED: Final = frozenset({
    Kind.kill_task, Kind.kill_broker, Kind.end_serve, Kind.end_backends, Kind.stall_both, Kind.apply,
})  # fmt: skip
"""These strike at once, not at a moment of the wire."""

DEATHS: Final[Mapping[Kind, int]] = {
    Kind.kill_serve: 6, Kind.kill_postgres: 4, Kind.kill_task: 4, Kind.kill_broker: 2,
    Kind.end_serve: 1, Kind.apply: 1,
}  # fmt: skip
SIEGES: Final[Mapping[Kind, int]] = {
    Kind.stop_serve: 4, Kind.stall_link: 1, Kind.stall_both: 1, Kind.lose_postgres: 1,
}  # fmt: skip
CUTS: Final[Mapping[Kind, int]] = {Kind.cut: 12, Kind.end_backends: 1}
"""How many of each there are in a pack; packs are shuffled, so that each run has its share of everything."""

MOMENTS: Final[Mapping[Moment, float]] = {
    Moment.now: 2, Moment.before_request: 4, Moment.after_request: 3, Moment.before_commit: 4,
    Moment.after_commit: 6,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """`at` in seconds from the start of the load. `seconds`: until the restart, or until it goes on.

    It strikes at the `skip + 1`st `moment` of the node that comes after `at`. `hush`: no line is sent while
    it lasts, and many right afterwards.
    """

    at: float
    kind: Kind
    node: int
    seconds: float
    moment: Moment = Moment.now
    skip: int = 0
    hush: bool = False

    def __str__(self) -> str:
        when = "" if self.moment is Moment.now else f" {self.moment} +{self.skip}"
        return f"{self.at:6.2f}s {self.kind} node {self.node}{when} for {self.seconds:.2f}s"


@dataclass(frozen=True, slots=True)
class Stream:
    """Faults of one kind. `pause` is the range of seconds between two of them."""

    name: str
    pack: Mapping[Kind, int]
    pause: tuple[float, float]
    calms: bool = True


STREAMS: Final = (
    Stream("deaths", DEATHS, (0.3, 1.1)),
    Stream("sieges", SIEGES, (8.5, 11.5), calms=False),
    Stream("cuts", CUTS, (0.1, 0.6)),
)
START: Final = 2.0
SPELL: Final = 12.0
CALM: Final = 2.5
"""After `SPELL` seconds of faults come `CALM` seconds without, in which nodes get to work."""


def faults(seed: int, seconds: float, lease: float) -> Iterator[Fault]:
    """Faults of a run that lasts `seconds`, by time."""
    yield from merge(*(_stream(seed, seconds, lease, each) for each in STREAMS), key=lambda fault: fault.at)


def _stream(seed: int, seconds: float, lease: float, stream: Stream) -> Iterator[Fault]:
    random = Random(f"{seed}:{stream.name}")
    at = START + random.uniform(0, stream.pause[0])
    kinds = _packs(random, stream.pack)
    while at < seconds:
        if (at - START) % (SPELL + CALM) < SPELL or not stream.calms:
            yield _fault(random, at, lease, next(kinds))
        at += random.uniform(*stream.pause)


def _packs(random: Random, pack: Mapping[Kind, int]) -> Iterator[Kind]:
    while True:
        shuffled = [kind for kind, count in pack.items() for _ in range(count)]
        random.shuffle(shuffled)
        yield from shuffled


def _fault(random: Random, at: float, lease: float, kind: Kind) -> Fault:
    node, moment = random.randrange(2), random.choices(list(MOMENTS), list(MOMENTS.values()))[0]
    lasts = lease + random.uniform(1.5, 3.0) if kind in LASTING else random.uniform(0.1, 1.2)
    skip = random.choice((0, 0, 1, 2, 3))
    if kind in UNTIMED:
        moment, skip = Moment.now, 0
    hush = kind in LASTING and random.random() < 0.9
    return Fault(round(at, 2), kind, node, round(lasts, 2), moment, skip, hush)
