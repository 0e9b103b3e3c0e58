"""A task of a kind that a connector brings: its block, checked by the kind's model but where holes stand."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from eventflow.event import JSON
from eventflow.expression import Template, activate
from eventflow.rulefile.block import Block
from eventflow.rulefile.connectors import ConnectorUnavailable
from eventflow.rulefile.inputs import Variables, read_template
from eventflow.rulefile.misfits import Path, report_misfits
from eventflow.task import Kind
from eventflow.workflow.definition import OfKind


def read_kind(
    block: Block, word: str, kinds: Mapping[str, type[Kind]], variables: Variables
) -> tuple[OfKind, dict[str, Template]] | None:
    """The kind behind `word`, and the templates of its words; None where the kind does not import here.

    What is wrong in the block is reported. What a hole leaves open is checked by the attempt that fills it.
    """
    inner = block.block(word)
    try:
        kind = kinds[word]
    except ConnectorUnavailable as error:
        block.error(block.node.entries[word].key, str(error))
        return None
    if inner is None:
        return OfKind(word, kind), {}
    templates: dict[str, Template] = {}
    for name, entry in inner.entries():
        template = read_template(inner, name, entry.value, variables, secrets=True)
        if template is not None:
            templates[name] = template
    _check(inner, kind, templates)
    return OfKind(word, kind), templates


def _check(block: Block, kind: type[Kind], templates: Mapping[str, Template]) -> None:
    words: dict[str, JSON] = {}
    holes: set[Path] = set()
    nothing = activate({})
    for name, _ in block.entries():
        template = templates.get(name)
        if template is None:  # it does not compile, and was told so
            words[name] = None
            holes.add((name,))
        else:
            words[name] = template.value if template.holes else template.render(nothing)
            holes.update((name, *hole.path) for hole in template.holes)
    try:
        kind.Config.model_validate(words)
    except ValidationError as error:
        report_misfits(block, kind.Config, error, holes)
    except Exception as error:  # a bug of the kind's own, which may be in what a hole will bring
        if not holes:
            block.error(block.mark, f"its words cannot be checked: {type(error).__name__}: {error}")
