"""One line of the report, and what it must and aims to reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Figure:
    """`value` and `floor` in `unit`; `ratio` is ours to the floor's, or the value where there is no floor."""

    name: str
    value: float
    unit: str
    floor: float | None
    ratio: float

    def __str__(self) -> str:
        floor = "-" if self.floor is None else f"{self.floor:.6g}"
        return f"{self.name} {self.value:.6g} {self.unit} {floor} {self.ratio:.4g}"


@dataclass(frozen=True, slots=True)
class Goal:
    """`must` and `aim` for the ratio; `at_most` where less is better."""

    must: float
    aim: float
    at_most: bool = False

    def verdict(self, ratio: float) -> str:
        met = (lambda bound: ratio <= bound) if self.at_most else (lambda bound: ratio >= bound)
        return "aim" if met(self.aim) else "must" if met(self.must) else "MISSED"


GOALS: Final = {
    "floor_over_minimal": Goal(0.5, 0.5),
    "ingest_commit": Goal(0.4, 0.6),
    "event_to_task_p50": Goal(4, 2.5, at_most=True),
    "event_to_task_p99": Goal(5, 3, at_most=True),
    "tasks_batch_10": Goal(0.4, 0.7),
    "tasks_batch_100": Goal(0.12, 0.3),
    "webhook_202": Goal(0.15, 0.25),
    "match_10k": Goal(0.2, 0.35),
    "match_10k_over_10": Goal(0.4, 0.55),
    "unanalysed_burst": Goal(0.8, 0.95),
    "files_noticed": Goal(0.6, 0.9),
    "kafka_commit": Goal(0.4, 0.6),
    "cdc_commit": Goal(0.3, 0.5),
    "idle_cpu": Goal(0.015, 0.007, at_most=True),
    "serve_rss": Goal(150, 110, at_most=True),
}
