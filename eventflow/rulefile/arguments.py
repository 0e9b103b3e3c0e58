"""A rule's `with` against the parameters of its workflow, as far as no event is needed to tell."""

from __future__ import annotations

from collections.abc import Mapping

from eventflow.expression import Template, VarType
from eventflow.rulefile.block import Block
from eventflow.rulefile.nodes import Entry, MapNode, shorten
from eventflow.rulefile.report import unknown
from eventflow.workflow.definition import Param, ParamType, Workflow
from eventflow.workflow.params import conversion_error

_TEXT = frozenset({VarType.string})
_NUMBER = frozenset({VarType.int, VarType.double})
_FITS: Mapping[ParamType, frozenset[VarType]] = {
    ParamType.string: frozenset({VarType.string, VarType.timestamp, VarType.duration}),
    ParamType.int: _NUMBER,
    ParamType.float: _NUMBER,
    ParamType.bool: frozenset({VarType.bool}),
    ParamType.date: _TEXT | {VarType.timestamp},
    ParamType.datetime: _TEXT | {VarType.timestamp},
    ParamType.duration: _TEXT | {VarType.duration},
    ParamType.list: frozenset({VarType.list}),
    ParamType.map: frozenset({VarType.map, VarType.event}),
    ParamType.json: frozenset(VarType),
}
"""The types of expressions whose values may turn out to fit a parameter."""


def check_arguments(block: Block, workflow: Workflow, inputs: Mapping[str, Template]) -> None:
    """Report parameters that are unknown, missing, or given a value that can never have their type."""
    given = block.node.entries.get("with")
    words: Mapping[str, Entry] = (
        given.value.entries if given is not None and isinstance(given.value, MapNode) else {}
    )
    for word, entry in words.items():
        param = workflow.params.get(word)
        if param is None:
            what = f"parameter of workflow '{workflow.name}'"
            block.error(entry.key, f"with: {unknown(what, word, workflow.params)}")
        elif word in inputs and (wrong := _misfit(param, inputs[word])) is not None:
            block.error(entry.value, f"with: parameter '{word}' of workflow '{workflow.name}' {wrong}")
    for param in workflow.params.values():
        if param.required and param.name not in words:
            mark = given.key if given is not None else block.mark
            missing = f"parameter '{param.name}' ({param.type}) of workflow '{workflow.name}' is missing"
            block.error(mark, f"with: {missing}")


def _misfit(param: Param, template: Template) -> str | None:
    if not template.holes:
        return conversion_error(param.type, template.value)
    found = _type_of(template)
    if found is VarType.any or found in _FITS[param.type]:
        return None
    return f"must be of type {param.type}; {shorten(str(template.value))} is of type {found}"


def _type_of(template: Template) -> VarType:
    """The type of a value with holes, as far as its form tells."""
    if isinstance(template.value, list):
        return VarType.list
    if isinstance(template.value, dict):
        return VarType.map
    hole = template.holes[0]
    if hole.whole and hole.expression is not None:
        return hole.expression.result
    return VarType.string
