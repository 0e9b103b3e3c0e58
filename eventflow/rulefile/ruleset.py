"""A rule set in its compiled form: what every batch, worker and command reads. Immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from eventflow.errors import Problem
from eventflow.event import JSON
from eventflow.matching.index import Matcher
from eventflow.matching.rule import Rule
from eventflow.offers import Sends
from eventflow.source import Delivery, Source, SourceContext
from eventflow.workflow.advance import roots
from eventflow.workflow.definition import Workflow
from eventflow.workflow.params import bind


class SourceFactory(Protocol):
    """A connector as it is called to make a source; `config` is an instance of its `Config`."""

    def __call__(self, name: str, config: Any, context: SourceContext, /) -> Source: ...


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A configured source. `folder` is the absolute folder of its rule file.

    `file`, `line` and `column` are its place.
    Secrets in `config` are still references: they are resolved at use. Two specs are equal where the
    sources made from them behave alike, wherever in a file they stand.
    """

    name: str
    connector: str
    factory: SourceFactory
    delivery: Delivery
    config: BaseModel
    folder: Path
    file: str = field(compare=False)
    line: int = field(compare=False)
    sends: Sends | None = field(default=None, compare=False)
    column: int = field(default=1, compare=False)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Everything that the files of one folder say. `revision` is 0 where it was never applied.

    `rules` are in the order of files and of their places. `code_files` maps paths to the folder's Python
    files, `code_version` is their digest.
    """

    revision: int
    sources: Mapping[str, SourceSpec]
    workflows: Mapping[str, Workflow]
    rules: tuple[Rule, ...]
    matcher: Matcher
    warnings: tuple[Problem, ...]
    code_files: Mapping[str, bytes]
    code_version: str

    def roots(self, workflow: str) -> tuple[str, ...]:
        """The tasks that a run of the workflow begins with."""
        return roots(self.workflows[workflow])

    def wants(self, event_type: str) -> bool:
        """Whether any rule may take eventflow's own events of this type; asked whenever a run ends."""
        return self.matcher.wants(event_type)

    def bind(self, workflow: str, values: Mapping[str, JSON]) -> dict[str, JSON]:
        """The parameters of a run of `workflow`. Raises `ParamError`."""
        return bind(self.workflows[workflow], values)
