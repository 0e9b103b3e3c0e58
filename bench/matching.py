"""match_10k: bytes to matching rules in memory, beside a plain decode and one hash probe of the same bytes.

The mix: each rule names a type and a prefix or glob of the subject, and none, one or two fields of
`data`; two rules share a type and a data set. Every event is distinct and is about some data set that
two rules ask for, so that it matches between one and two of them whatever the number of rules.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Final

import msgspec

from bench.figure import Figure
from eventflow.event import JSON, Event, decode_json, encode_json
from eventflow.matching.index import Matcher
from eventflow.matching.pattern import compile_pattern
from eventflow.matching.rule import Rule

EVENTS: Final = 20_000
ROUNDS: Final = 9
TURN: Final = 2_000
TYPES: Final = tuple(
    f"{system}.{what}"
    for system in ("file", "row", "kafka", "webhook", "table")
    for what in ("arrived", "changed", "removed", "read")
)
REGIONS: Final = ("eu-west", "eu-north", "us-east", "apac")
SHARING: Final = 2


def rules(number: int) -> list[Rule]:
    """`number` rules, the same on every run."""
    chance = random.Random(number)
    return [Rule(f"r{n}", None, compile_pattern(_match(n, chance)), run="noop") for n in range(number)]


def _match(n: int, chance: random.Random) -> Mapping[str, JSON]:
    dataset = n // SHARING
    subject = (
        {"prefix": f"landing/ds{dataset}/"} if n % 2 else {"glob": f"**/ds{dataset}/dt=*/part-*.parquet"}
    )
    fields: list[tuple[str, JSON]] = [
        ("data.region", chance.sample(REGIONS, 2)),
        ("data.rows", {"gte": chance.randrange(5_000)}),
        ("data.status", "complete"),
    ]
    picked = chance.sample(fields, chance.randrange(3))
    return {"type": TYPES[dataset % len(TYPES)], "subject": subject, **dict(picked)}


def payloads(number_of_rules: int, events: int = EVENTS) -> list[bytes]:
    """CloudEvents in JSON of 589 bytes, each different."""
    chance = random.Random(number_of_rules)
    return [_payload(n, number_of_rules, chance) for n in range(events)]


def _payload(n: int, number_of_rules: int, chance: random.Random) -> bytes:
    dataset = chance.randrange(-(-number_of_rules // SHARING))
    day = f"2026-11-{n % 28 + 1:02}"
    path = f"landing/ds{dataset}/dt={day}/part-{n:06}.parquet"
    data: dict[str, JSON] = {
        "dataset": f"ds{dataset}", "region": chance.choice(REGIONS), "rows": chance.randrange(10_000),
        "status": "complete" if chance.random() < 0.8 else "partial", "path": path, "size": n * 137,
        "sha256": f"{chance.getrandbits(256):064x}", "columns": ["id", "day", "amount"], "valid": n % 7 > 0,
        "ratio": n / 7, "writer": {"team": "data", "name": f"user-{n % 97}"},
    }  # fmt: skip
    event = {
        "specversion": "1.0", "id": f"{n:020}", "source": "bench", "type": TYPES[dataset % len(TYPES)],
        "subject": path, "time": f"{day}T06:00:00Z", "datacontenttype": "application/json", "data": data,
    }  # fmt: skip
    short = len(encode_json(event))
    data["note"] = "x" * max(0, 589 - short - len(',"note":""'))
    return encode_json(event)


def _floor(raws: Sequence[bytes]) -> float:
    """Events per second of a plain decode and one probe."""
    decode, known, found = msgspec.json.decode, dict.fromkeys(TYPES, 1), 0
    started = time.perf_counter()
    for raw in raws:
        found += known.get(decode(raw)["type"], 0)
    rate = len(raws) / (time.perf_counter() - started)
    assert found == len(raws)
    return rate


def _ours(matcher: Matcher) -> Callable[[Sequence[bytes]], float]:
    def rate(raws: Sequence[bytes]) -> float:
        match = matcher.match
        found = 0
        started = time.perf_counter()
        for raw in raws:
            doc = decode_json(raw)
            event = Event(
                source=doc["source"], id=doc["id"], type=doc["type"], data=doc["data"], raw=raw,
                subject=doc["subject"],
            )  # fmt: skip
            found += len(match(event))
        seconds = time.perf_counter() - started
        assert len(raws) <= found <= 2 * len(raws), found / len(raws)
        return len(raws) / seconds

    return rate


async def figures(url: str) -> list[Figure]:
    """Both sizes and their floor in turns of `TURN` events: neighbours on the machine disturb all alike.

    Ratios are medians over the turns.
    """
    del url  # no database takes part
    small, large = payloads(10), payloads(10_000)
    of_small, of_large = _ours(Matcher(rules(10))), _ours(Matcher(rules(10_000)))
    of_small(small)
    of_large(large)
    gc.collect()
    turns = [
        (_floor(large[at : at + TURN]), of_large(large[at : at + TURN]), of_small(small[at : at + TURN]))
        for _ in range(ROUNDS)
        for at in range(0, EVENTS, TURN)
    ]
    bare, mine, few = (median(turn[which] for turn in turns) for which in range(3))
    to_floor = median(mine / bare for bare, mine, _ in turns)
    to_few = median(mine / few for _, mine, few in turns)
    return [
        Figure("match_10k", mine, "events/s", bare, to_floor),
        Figure("match_10k_over_10", mine, "events/s", few, to_few),
    ]
