"""A workflow as data: typed parameters and a graph of tasks. Immutable, checked before it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from eventflow.event import JSON
from eventflow.expression import Template
from eventflow.task import Kind


class ParamType(StrEnum):
    """The types a parameter may declare."""

    string = "string"
    int = "int"
    float = "float"
    bool = "bool"
    date = "date"
    datetime = "datetime"
    duration = "duration"
    list = "list"
    map = "map"
    json = "json"


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter of a workflow. `default` counts only where `required` is false."""

    name: str
    type: ParamType
    required: bool = True
    default: JSON = None


@dataclass(frozen=True, slots=True)
class Retry:
    """`attempts` tries in all; before try n+1 a wait of `backoff` * 2^(n-1), with jitter."""

    attempts: int = 1
    backoff: timedelta = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class OfKind:
    """A task of a kind that a connector brings: its word in rule files, and the class behind it."""

    word: str
    kind: type[Kind]


@dataclass(frozen=True, slots=True)
class Task:
    """One node of the graph.

    `call` is "module:function" for python, the argument vector for shell (each a template over `params`,
    `tasks`, `run`), or a connector's kind. `inputs` are the keyword arguments by name, for a connector's
    kind its words. `after` names the tasks that must have succeeded before.
    """

    name: str
    call: str | tuple[Template, ...] | OfKind
    inputs: Mapping[str, Template] = field(default_factory=dict[str, Template])
    after: tuple[str, ...] = ()
    retry: Retry = Retry()
    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Workflow:
    """`tasks` is in an order in which every task stands behind those it comes `after`."""

    name: str
    params: Mapping[str, Param]
    tasks: Mapping[str, Task]
