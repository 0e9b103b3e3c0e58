"""The load as seeded, endless plans: what to send, in which order, with which pauses. No I/O, no clock.

`sender.py` carries the plans out and writes each step into the truth before it sends it. Each stream
has a random generator of its own, so that one stream's speed does not change what another sends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from tests.chaos.truth import Hook, Line

PARTITIONS: Final = ("p0", "p1", "p2", "p3", "p4", "p5")


@dataclass(frozen=True, slots=True)
class Load:
    """How much of what, in steps a second."""

    files: float = 8
    hooks: float = 20
    lines: float = 15
    orders: float = 5
    changes: float = 5
    visits: float = 6
    backlog: int = 400
    """Runs that may be open before the sender waits: a slow machine sends less instead of failing."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing done to a file; a step waits until the one before it has had its effect."""

    act: Literal["rename", "slow", "touch", "same", "remove"]
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class FilePlan:
    """The life of one file."""

    path: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class LinePlan:
    """Lines appended together; `torn` leaves the last one without its end for a moment."""

    lines: tuple[Line, ...]
    torn: bool


@dataclass(frozen=True, slots=True)
class OrderSent:
    """One record for the topic; `number` decides its partition."""

    number: int
    key: str
    text: str


@dataclass(frozen=True, slots=True)
class OrderPlan:
    """One producer's transaction."""

    orders: tuple[OrderSent, ...]
    aborted: bool


LIVES: Final[dict[str, tuple[int, tuple[str, ...]]]] = {
    # name: (weight, steps); "a" and "b" are contents renamed into place
    "lands": (60, ("a",)),
    "slow": (8, ("slow",)),
    "overwritten": (10, ("a", "b")),
    "touched": (6, ("a", "touch", "same")),
    "back": (6, ("a", "b", "a")),
    "returns": (6, ("a", "remove", "a")),
    "returns-changed": (4, ("a", "remove", "b", "remove", "a")),
}


def files(seed: int) -> Iterator[FilePlan]:
    """Lives of files, for ever."""
    random = Random(f"{seed}:files")
    names, weights = list(LIVES), [weight for weight, _ in LIVES.values()]
    number = 0
    while True:
        number += 1
        life = random.choices(names, weights)[0]
        contents = {name: _content(random, number, name) for name in ("a", "b", "slow")}
        steps = tuple(_step(word, contents) for word in LIVES[life][1])
        yield FilePlan(f"{random.choice(('eu', 'us', 'ap'))}/{life}-{number:05d}.csv", steps)


def _step(word: str, contents: dict[str, bytes]) -> Step:
    match word:
        case "touch" | "remove":
            return Step(word)
        case "same":
            return Step("same", contents["a"])
        case "slow":
            return Step("slow", contents["slow"])
        case _:
            return Step("rename", contents[word])


def _content(random: Random, number: int, name: str) -> bytes:
    rows = [f"{number},{name},{random.random():.12f}" for _ in range(random.randint(1, 40))]
    return ("id,name,value\n" + "\n".join(rows) + "\n").encode()


KINDS: Final[dict[str, float]] = {
    "plain": 8, "async": 26, "process": 14, "shell": 5, "pair": 14, "flaky": 3, "poison": 4, "relay": 14,
    "slow": 4, "slower": 1.2, "broken": 4, "forged": 3,
}  # fmt: skip
"""Webhooks by what they lead to, in parts. A slow task takes longer than a lease, so these are few."""


def hooks(seed: int) -> Iterator[Hook]:
    """Webhooks, for ever; every tenth number matches a rule more."""
    random = Random(f"{seed}:hooks")
    number = 0
    while True:
        number += 1
        kind = random.choices(list(KINDS), list(KINDS.values()))[0]
        key = f"hook-{number:06d}"
        body = json.dumps({"key": key, "kind": kind, "n": number, "noise": "x" * random.randint(0, 400)})
        if kind == "broken":
            body = body[: random.randint(30, len(body) - 2)]
        copies = random.choices((1, 2, 3, 5), (70, 20, 7, 3))[0]
        yield Hook(key, kind, number, body, copies)


def lines(seed: int) -> Iterator[LinePlan]:
    """Lines for the numbered source, in small groups so that batches are many, for ever."""
    random = Random(f"{seed}:lines")
    ends = dict.fromkeys(PARTITIONS, 0)
    while True:
        partition = random.choice(PARTITIONS)
        group: list[Line] = []
        for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
            ends[partition] += 1
            group.append(_line(random, partition, ends[partition]))
        yield LinePlan(tuple(group), torn=random.random() < 0.1)


def _line(random: Random, partition: str, number: int) -> Line:
    record = {"key": f"{partition}/{number}", "n": number, "noise": "x" * random.randint(0, 200)}
    text = json.dumps(record)
    if random.random() < 0.03:
        return Line(partition, number, "broken", text[:-1] + ', "nothing follows')
    return Line(partition, number, "record", text)


def orders(seed: int) -> Iterator[OrderPlan]:
    """Transactions of records, one in four aborted, for ever."""
    random = Random(f"{seed}:orders")
    number = 0
    while True:
        group: list[OrderSent] = []
        for _ in range(random.choice((1, 1, 2, 3, 8))):
            number += 1
            key = f"order-{number:06d}"
            text = json.dumps({"key": key, "n": number, "noise": "x" * random.randint(0, 200)})
            group.append(OrderSent(number, key, text[:-1] if random.random() < 0.03 else text))
        yield OrderPlan(tuple(group), aborted=random.random() < 0.25)


def changes(seed: int) -> Iterator[int]:
    """How many changes the next transaction has, for ever."""
    random = Random(f"{seed}:changes")
    while True:
        yield random.choice((1, 1, 1, 2, 4, 12))
