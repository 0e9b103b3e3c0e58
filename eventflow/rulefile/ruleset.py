"""A rule set in its compiled form: what every batch, worker and command reads. Immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from eventflow.errors import Problem
from eventflow.matching.index import Matcher
from eventflow.matching.rule import Rule
from eventflow.source import Source
from eventflow.workflow.definition import Workflow


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A configured source. `folder` is the absolute folder of its rule file, `file` and `line` its place.

    Secrets in `config` are still references: they are resolved when the source is made.
    """

    name: str
    connector_name: str
    connector: type[Source]
    config: BaseModel
    folder: Path
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Everything that the files of one folder say. `revision` is 0 where it was never applied.

    `code_files` maps paths to the folder's Python files, `code_version` is their digest.
    """

    revision: int
    sources: Mapping[str, SourceSpec]
    workflows: Mapping[str, Workflow]
    rules: tuple[Rule, ...]
    matcher: Matcher
    warnings: tuple[Problem, ...]
    code_files: Mapping[str, bytes]
    code_version: str
