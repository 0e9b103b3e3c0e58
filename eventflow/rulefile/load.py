"""The files of a rule set -> its compiled form, or every problem there is.

The same function serves `check`, `apply` and a node that compiles a revision out of Postgres, so what
was applied is what runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from eventflow.errors import RuleSetError
from eventflow.matching.index import Matcher
from eventflow.matching.rule import Rule
from eventflow.rulefile.code import Code
from eventflow.rulefile.connectors import find_kinds
from eventflow.rulefile.cycles import check_cycles
from eventflow.rulefile.document import Document, read_documents
from eventflow.rulefile.foreseen import check_foreseen
from eventflow.rulefile.report import Report, in_order
from eventflow.rulefile.rules import Names, read_rule
from eventflow.rulefile.ruleset import RuleSet, SourceSpec
from eventflow.rulefile.sources import read_source
from eventflow.rulefile.workflows import read_workflow
from eventflow.source import Source
from eventflow.task import Kind
from eventflow.workflow.definition import Workflow


def load(
    files: Mapping[str, bytes],
    folder: Path,
    connectors: Mapping[str, type[Source]],
    *,
    revision: int = 0,
    kinds: Mapping[str, type[Kind]] | None = None,
) -> RuleSet:
    """Compile a set. `files` maps paths below `folder` to contents, Python files included.

    `kinds` are the kinds of task beside python and shell; None: those installed here.

    Raises `RuleSetError` with every problem, in the order of files and places.
    """
    report = Report("")
    code = Code({path: content for path, content in files.items() if path.endswith(".py")})
    document = read_documents(files, report)
    sources = _sources(document, folder, connectors)
    workflows = _workflows(document, code, find_kinds() if kinds is None else kinds)
    rules = _rules(document, sources, workflows)
    check_cycles(rules, document.definitions["rules"])
    check_foreseen(rules, document, sources)
    problems = in_order(report.problems)
    if any(not problem.warning for problem in problems):
        raise RuleSetError(problems)
    return RuleSet(
        revision=revision,
        sources={name: spec for name, spec in sources.items() if spec is not None},
        workflows={name: workflow for name, workflow in workflows.items() if workflow is not None},
        rules=tuple(rules),
        matcher=Matcher(rules),
        warnings=tuple(problems),
        code_files=code.files,
        code_version=code.version,
    )


def _sources(
    document: Document, folder: Path, connectors: Mapping[str, type[Source]]
) -> dict[str, SourceSpec | None]:
    blocks = document.definitions["sources"]
    return {
        name: read_source(name, blocks[name], folder, connectors) if name in blocks else None
        for name in document.names["sources"]
    }


def _workflows(document: Document, code: Code, kinds: Mapping[str, type[Kind]]) -> dict[str, Workflow | None]:
    blocks = document.definitions["workflows"]
    return {
        name: read_workflow(name, blocks[name], code, kinds) if name in blocks else None
        for name in document.names["workflows"]
    }


def _rules(
    document: Document, sources: Mapping[str, SourceSpec | None], workflows: Mapping[str, Workflow | None]
) -> list[Rule]:
    deliveries = {name: spec.delivery if spec else None for name, spec in sources.items()}
    names = Names(deliveries, workflows, document.complete)
    found = [read_rule(name, block, names) for name, block in document.definitions["rules"].items()]
    return [rule for rule in found if rule is not None]
