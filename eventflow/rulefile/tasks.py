"""One task of a workflow: what runs it, with what, after which others."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator

from eventflow.expression import Reference, Template, VarType
from eventflow.rulefile.block import Block
from eventflow.rulefile.code import Code, Signature
from eventflow.rulefile.inputs import Variables, named_below, read_inputs, read_template
from eventflow.rulefile.nodes import ListNode, MapNode, Mark, Node, ScalarNode, kind, locate
from eventflow.rulefile.report import Report, nearest, unknown
from eventflow.rulefile.words import RETRY, TASK
from eventflow.workflow.definition import Retry, Task, TaskKind

TASK_VARIABLES: Variables = {"params": VarType.map, "tasks": VarType.map, "run": VarType.map}
"""What the holes of a task may read."""

RUN_FIELDS = ("id", "workflow", "rule", "task", "attempt")
"""What there is below `run`."""

_ARGUMENT = re.compile(r"[^\W\d]\w*")


def read_task(name: str, block: Block, code: Code) -> Task | None:
    """Compile one task; None where it has errors, which have been reported by then."""
    block.check_words(TASK)
    call = _call(block, code)
    inputs = read_inputs(block, TASK_VARIABLES)
    if "shell" in block and "with" in block:
        block.error(
            block.node.entries["with"].key, "'with' is for python tasks; write the holes into the arguments"
        )
    for word in inputs:
        if word == "ctx" or not _ARGUMENT.fullmatch(word):
            reason = (
                "is the task's context, handed over by itself"
                if word == "ctx"
                else "is no name of an argument"
            )
            block.error(locate(block.node, ("with", word), on_key=True), f"with: '{word}' {reason}")
    after = block.texts("after") or []
    retry = _retry(block)
    timeout = block.duration("timeout")
    if call is None:
        return None
    kind_of_task, arguments = call
    return Task(name, kind_of_task, arguments, inputs, tuple(one for one, _ in after), retry, timeout)


def templates_of(task: Task, block: Block) -> Iterator[tuple[Template, Mark]]:
    """Every template of a task, and where it stands."""
    for name, template in task.inputs.items():
        yield template, locate(block.node, ("with", name))
    if not isinstance(task.call, str):
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


def _call(block: Block, code: Code) -> tuple[TaskKind, str | tuple[Template, ...]] | None:
    if "python" in block and "shell" in block:
        block.error(block.node.entries["shell"].key, "has both 'python' and 'shell'; a task runs one thing")
        return None
    node = block.get("python")
    if node is not None:
        reference = block.text("python")
        objection = code.objection(reference) if reference is not None else None
        if reference is not None and objection is None and (broken := code.broken(reference)) is not None:
            # Said in the file that it is about, once for all tasks that name it.
            block.report.of(broken.file).error(Mark(broken.line, broken.column), broken.message)
            return None
        if objection is not None:
            block.error(node, f"python: {objection}")
        elif reference is not None and (doubt := code.doubt(reference)) is not None:
            block.warn(node, f"python: {doubt}")
        elif reference is not None and (signature := code.signature(reference)) is not None:
            _check_keywords(block, signature, reference)
        return None if reference is None or objection is not None else (TaskKind.python, reference)
    node = block.get("shell")
    arguments = None if node is None else _arguments(block, node)
    return None if arguments is None else (TaskKind.shell, arguments)


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


def _arguments(block: Block, node: Node) -> tuple[Template, ...] | None:
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
