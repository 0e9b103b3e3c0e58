"""One task of a workflow: what runs it, with what, after which others."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace

from eventflow.expression import Reference, Template, VarType
from eventflow.rulefile.block import Block
from eventflow.rulefile.code import Code, Signature
from eventflow.rulefile.inputs import Variables, named_below, read_inputs, read_template
from eventflow.rulefile.kinds import read_kind
from eventflow.rulefile.nodes import ListNode, MapNode, Mark, Node, ScalarNode, kind, locate
from eventflow.rulefile.report import Report, nearest, unknown
from eventflow.rulefile.words import RETRY, TASK, Schema, Words
from eventflow.task import Kind
from eventflow.workflow.definition import OfKind, Retry, Task

TASK_VARIABLES: Variables = {"params": VarType.map, "tasks": VarType.map, "run": VarType.map}
"""What the holes of a task may read."""

RUN_FIELDS = ("id", "workflow", "rule", "task", "attempt")
"""What there is below `run`."""

_Called = tuple[str | tuple[Template, ...] | OfKind, dict[str, Template]]

_ARGUMENT = re.compile(r"[^\W\d]\w*")


def read_task(name: str, block: Block, code: Code, kinds: Mapping[str, type[Kind]]) -> Task | None:
    """Compile one task; None where it has errors, which have been reported by then."""
    block.check_words(_words(kinds))
    found = _call(block, code, kinds)
    after = block.texts("after") or []
    retry = _retry(block)
    timeout = block.duration("timeout")
    if found is None:
        return None
    call, inputs = found
    return Task(name, call, inputs, tuple(one for one, _ in after), retry, timeout)


def _words(kinds: Mapping[str, type[Kind]]) -> Words:
    """Those of a task, the kinds that connectors bring among them."""
    now: dict[str, Schema] = {**TASK.now, **{word: {} for word in kinds}}
    return replace(TASK, now=now, later=TASK.later - kinds.keys(), any_of=(*TASK.any_of, *kinds))


def _arguments_of(block: Block) -> dict[str, Template]:
    """`with`, whose words are names of arguments."""
    inputs = read_inputs(block, TASK_VARIABLES)
    for word in inputs:
        if word == "ctx" or not _ARGUMENT.fullmatch(word):
            reason = (
                "is the task's context, handed over by itself"
                if word == "ctx"
                else "is no name of an argument"
            )
            block.error(locate(block.node, ("with", word), on_key=True), f"with: '{word}' {reason}")
    return inputs


def templates_of(task: Task, block: Block) -> Iterator[tuple[Template, Mark]]:
    """Every template of a task, and where it stands."""
    word = task.call.word if isinstance(task.call, OfKind) else "with"
    for name, template in task.inputs.items():
        yield template, locate(block.node, (word, name))
    if isinstance(task.call, tuple):
        for index, template in enumerate(task.call):
            yield template, locate(block.node, ("shell", index))


def check_holes(
    task: Task,
    block: Block,
    params: Collection[str],
    upstream: Callable[[], frozenset[str]],
    tasks: Collection[str],
) -> None:
    """Report holes that name parameters or tasks which are not there, or tasks that have not run by then."""
    for template, mark in templates_of(task, block):
        for reference in named_below(template, "params"):
            if reference[1] not in params:
                block.error(mark, unknown("parameter", reference[1], params))
        for reference in named_below(template, "run"):
            if reference[1] not in RUN_FIELDS:
                block.error(mark, unknown("field of run", reference[1], RUN_FIELDS))
        for reference in named_below(template, "tasks"):
            objection = _objection_to(reference, upstream(), tasks, block.report)
            if objection is not None:
                block.error(mark, objection)


def _objection_to(
    reference: Reference, upstream: frozenset[str], tasks: Collection[str], report: Report
) -> str | None:
    other = reference[1]
    if other not in tasks:
        return report.unknown("task", other, tasks)
    if other not in upstream:
        return f"the result of task '{other}' is not there by then; add it to 'after'"
    if len(reference) > 2 and reference[2] != "result":
        return f"tasks.{other}.{reference[2]}: what a task returned is below 'tasks.{other}.result'"
    return None


def _call(block: Block, code: Code, kinds: Mapping[str, type[Kind]]) -> _Called | None:
    """What runs the task, and its inputs; None where that has errors."""
    said = [word for word in (*TASK.any_of, *kinds) if word in block]
    inputs = _arguments_of(block)
    if len(said) > 1:
        message = f"has both '{said[0]}' and '{said[1]}'; a task runs one thing"
        block.error(block.node.entries[said[1]].key, message)
        return None
    word = said[0] if said else ""
    if "with" in block and word != "python" and word:
        where = "into the arguments" if word == "shell" else f"below '{word}'"
        block.error(block.node.entries["with"].key, f"'with' is for python tasks; write the holes {where}")
    if word in kinds:
        return read_kind(block, word, kinds, TASK_VARIABLES)
    call = _function(block, code) if word == "python" else _command(block)
    return None if call is None else (call, inputs)


def _function(block: Block, code: Code) -> str | None:
    node, reference = block.get("python"), block.text("python")
    if node is None or reference is None:
        return None
    if (objection := code.objection(reference)) is not None:
        block.error(node, f"python: {objection}")
        return None
    if (broken := code.broken(reference)) is not None:
        # Said in the file that it is about, once for all tasks that name it.
        block.report.of(broken.file).error(Mark(broken.line, broken.column), broken.message)
        return None
    if (doubt := code.doubt(reference)) is not None:
        block.warn(node, f"python: {doubt}")
    elif (signature := code.signature(reference)) is not None:
        _check_keywords(block, signature, reference)
    return reference


def _check_keywords(block: Block, signature: Signature, reference: str) -> None:
    """Report what `with` gives and the function does not take, and what it must get and is not given."""
    inner = block.get("with")
    if inner is not None and not isinstance(inner, MapNode):
        return
    given = inner.entries if inner is not None else {}
    for word, entry in given.items():
        if word != "ctx" and word not in signature.names and not signature.open_ended:
            names = [name for name in signature.names if name != "ctx"]
            block.error(entry.key, f"with: {unknown(f'parameter of {reference}', word, names)}")
    meant = {near for word in given if word not in signature.names for near in nearest(word, signature.names)}
    for name in signature.required:
        if name != "ctx" and name not in given and name not in meant:
            at = block.node.entries["with" if inner is not None else "python"].key
            block.error(at, f"with: parameter '{name}' of {reference} is missing")


def _command(block: Block) -> tuple[Template, ...] | None:
    node = block.get("shell")
    if node is None:
        return None
    if not isinstance(node, ListNode):
        reason = 'no shell reads it, so spaces and quotes in data stay harmless: ["program", "argument"]'
        block.error(node, f"'shell' must be a list of texts, not {kind(node)}; {reason}")
        return None
    if not node.items:
        block.error(node, "'shell' is an empty list; name a program")
        return None
    found = [_argument(block, index, item) for index, item in enumerate(node.items)]
    arguments = tuple(one for one in found if one is not None)
    return arguments if len(arguments) == len(found) else None


def _argument(block: Block, index: int, node: Node) -> Template | None:
    if not isinstance(node, ScalarNode) or not isinstance(node.value, str):
        block.error(node, f"'shell' takes texts; write {kind(node)} in quotes")
        return None
    return read_template(block, f"shell[{index}]", node, TASK_VARIABLES)


def _retry(block: Block) -> Retry:
    inner = block.block("retry", form="{attempts: 3}")
    if inner is None:
        return Retry()
    inner.check_words(RETRY)
    attempts, backoff = inner.whole("attempts", 1, 1000), inner.duration("backoff")
    usual = Retry()
    return Retry(attempts or usual.attempts, backoff or usual.backoff)
