"""The `workflows` of a rule set: typed parameters, and tasks that form a graph without cycles."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from graphlib import CycleError, TopologicalSorter

from eventflow.event import JSON
from eventflow.rulefile.block import Block
from eventflow.rulefile.code import Code
from eventflow.rulefile.nodes import Entry, MapNode, ScalarNode, plain_value, shorten
from eventflow.rulefile.tasks import check_holes, read_task
from eventflow.rulefile.words import PARAM, WORKFLOW
from eventflow.task import Kind
from eventflow.workflow.definition import Param, ParamType, Task, Workflow
from eventflow.workflow.params import conversion_error

_TASK_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_PARAM_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


def read_workflow(name: str, block: Block, code: Code, kinds: Mapping[str, type[Kind]]) -> Workflow | None:
    """Compile one workflow; None where it has errors, which have been reported by then."""
    before = len(block.report.problems)
    block.check_words(WORKFLOW)
    params = _params(block)
    blocks = _task_blocks(block)
    tasks = {task: read_task(task, inner, code, kinds) for task, inner in blocks.items()}
    parents = {task: _known_parents(blocks, task) for task in blocks}
    order = _in_order(blocks, parents)
    if order is None:
        return None
    for task, compiled in tasks.items():
        if compiled is not None:
            check_holes(compiled, blocks[task], params, partial(_upstream, task, parents), blocks.keys())
    if not block.sound_since(before):
        return None
    ordered: dict[str, Task] = {task: one for task in order if (one := tasks[task]) is not None}
    return Workflow(name, params, ordered)


def _params(block: Block) -> dict[str, Param]:
    inner = block.block("params") if "params" in block and block.get("params") is not None else None
    found: dict[str, Param] = {}
    for name, entry in inner.entries() if inner else ():
        if not _PARAM_NAME.fullmatch(name):
            block.error(entry.key, f"parameter '{shorten(name)}': a name has letters, digits and '_' only")
        param = _param(block, name, entry)
        # A parameter with a wrong type is still declared: whoever passes it is not wrong too.
        found[name] = param or Param(name, ParamType.json, required=False)
    return found


def _param(block: Block, name: str, entry: Entry) -> Param | None:
    if not isinstance(entry.value, MapNode):
        alone = Block(block.report, block.what, block.mark, MapNode(entry.key, {f"params: {name}": entry}))
        type_name = alone.choice(f"params: {name}", ParamType)
        return None if type_name is None else Param(name, ParamType(type_name))
    inner = Block(block.report, f"{block.what}: parameter '{name}'", entry.key, entry.value)
    inner.check_words(PARAM)
    type_name = inner.choice("type", ParamType)
    if type_name is None:
        return None
    node = inner.get("default")
    if node is None:
        return Param(name, ParamType(type_name))
    default: JSON = plain_value(node)
    wrong = conversion_error(ParamType(type_name), default)
    if wrong is not None:
        inner.error(node, f"'default' {wrong}")
    return Param(name, ParamType(type_name), required=False, default=default)


def _task_blocks(block: Block) -> dict[str, Block]:
    inner = block.block("tasks")
    if inner is None:
        return {}
    if not inner.node.entries:
        block.error(inner.mark, "'tasks' is empty; a workflow has at least one task")
    found: dict[str, Block] = {}
    for name, entry in inner.entries():
        if not _TASK_NAME.fullmatch(name):
            message = "a name begins with a letter and has letters, digits, '_' and '-' only"
            block.error(entry.key, f"task '{shorten(name)}': {message}")
        task = inner.inner(entry, f"{block.what}, task '{shorten(name)}'")
        if task is not None:
            found[name] = task
    return found


def _known_parents(blocks: Mapping[str, Block], task: str) -> list[str]:
    """The tasks that `after` names; those that are not there are reported."""
    block = blocks[task]
    node = block.get("after")
    if node is None:
        return []
    items = [node] if isinstance(node, ScalarNode) else getattr(node, "items", [])
    found: list[str] = []
    for item in items:
        name = item.value if isinstance(item, ScalarNode) else None
        if isinstance(name, str) and name in blocks:
            found.append(name)
        elif isinstance(name, str) and name:
            others = [one for one in blocks if one != task]
            block.error(item, f"after: {block.report.unknown('task', name, others)}")
    return found


def _in_order(blocks: Mapping[str, Block], parents: Mapping[str, list[str]]) -> list[str] | None:
    """Every task behind those it comes after; None where they wait for each other, which is reported."""
    try:
        return list(TopologicalSorter(parents).static_order())
    except CycleError as error:
        cycle: list[str] = error.args[1]
        block = blocks[cycle[0]]
        message = f"the tasks wait for each other: {' after '.join(reversed(cycle))}"
        block.error(block.node.entries["after"].value, message)
        return None


def _upstream(task: str, parents: Mapping[str, list[str]]) -> frozenset[str]:
    """All tasks that have succeeded before this one starts."""
    found: set[str] = set()
    todo = list(parents[task])
    while todo:
        parent = todo.pop()
        if parent not in found:
            found.add(parent)
            todo += parents[parent]
    return frozenset(found)
