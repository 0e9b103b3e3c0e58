"""The `rules` of a rule set: one plain trigger each, and what it starts or emits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from eventflow.event import EVENTFLOW_SOURCE
from eventflow.expression import VarType
from eventflow.matching.pattern import Pattern, PatternError, compile_pattern
from eventflow.matching.rule import OnError, Rule
from eventflow.rulefile.arguments import check_arguments
from eventflow.rulefile.block import Block
from eventflow.rulefile.inputs import Variables, read_condition, read_inputs
from eventflow.rulefile.nodes import ListNode, MapNode, Node, ScalarNode, kind, locate, plain_value
from eventflow.rulefile.report import unknown
from eventflow.rulefile.words import RULE, WHEN
from eventflow.source import Delivery
from eventflow.workflow.definition import Workflow

WHERE_VARIABLES: Variables = {"event": VarType.event}
"""What `where` may read."""

FIRING_VARIABLES: Final = {
    "event": VarType.event,
    "events": VarType.list,
    "key": VarType.any,
    "rule": VarType.string,
    "firing.id": VarType.string,
    "firing.time": VarType.timestamp,
}
"""What the holes of `with` may read."""

_LATER_VARIABLES: Final = FIRING_VARIABLES | {
    "events": VarType.any,
    "value": VarType.any,
    "missing": VarType.list,
    "slot": VarType.string,
    "window.start": VarType.timestamp,
    "window.end": VarType.timestamp,
}
"""What they may read beside `when`: not supported yet, so nothing else should be said of them."""

MAX_REENTRY = 1000


@dataclass(frozen=True, slots=True)
class Names:
    """What a rule may refer to.

    `sources` and `workflows` hold every declared name, None where its definition has errors of its own.
    `complete` is false where a file could not be read: a name that is not there may stand in it.
    """

    sources: Mapping[str, Delivery | None]
    workflows: Mapping[str, Workflow | None]
    complete: bool


def read_rule(name: str, block: Block, names: Names) -> Rule | None:
    """Compile one rule; None where it has errors, which have been reported by then."""
    before = len(block.report.problems)
    block.check_words(RULE)
    _check_when(block)
    sources = _sources(block, names)
    pattern = _pattern(block)
    where = read_condition(block, "where", WHERE_VARIABLES)
    inputs = read_inputs(block, _LATER_VARIABLES if "when" in block else FIRING_VARIABLES)
    run, emit = block.text("run"), _emit(block)
    if run is not None:
        _check_run(block, run, names)
        if (workflow := names.workflows.get(run)) is not None:
            check_arguments(block, workflow, inputs)
    tags, priority = block.texts("tags") or [], block.whole("priority", 0, 9)
    reentry, on_error = block.whole("reentry", 0, MAX_REENTRY), block.choice("on_error", OnError)
    owner, description = block.text("owner"), block.text("description")
    _check_mode(block)
    if pattern is None or not block.sound_since(before):
        return None
    _advise(block, sources, names, pattern)
    return Rule(
        name=name,
        sources=sources,
        pattern=pattern,
        where=where,
        run=run,
        emit=emit,
        inputs=inputs,
        reentry=reentry or 0,
        priority=priority or 0,
        on_error=OnError(on_error or OnError.only_count),
        owner=owner,
        tags=tuple(tag for tag, _ in tags),
        description=description,
    )


def _check_when(block: Block) -> None:
    if "when" not in block:
        misspelt = block.node.entries.keys() - RULE.now.keys() - RULE.later
        if "match" not in block and "from" not in block and not misspelt:
            block.error(block.mark, "needs 'from' or 'match': what does it fire on?")
        return
    inner = block.block("when")
    for word, entry in inner.entries() if inner else ():
        if word not in WHEN:
            block.error(entry.key, f"when: {unknown('word', word, WHEN)}")


def _check_mode(block: Block) -> None:
    mode = block.choice("mode", ("live", "shadow", "paused"))
    if mode is not None and mode != "live":
        block.error(block.node.entries["mode"].value, f"'mode: {mode}' is not supported yet")


def _sources(block: Block, names: Names) -> frozenset[str] | None:
    given = block.texts("from")
    if given is None:
        return None
    known = [*names.sources, EVENTFLOW_SOURCE]
    for name, mark in given:
        if name not in known and names.complete:
            block.error(mark, f"from: {block.report.unknown('source', name, known)}")
    return frozenset(name for name, _ in given)


def _pattern(block: Block) -> Pattern | None:
    """The compiled `match`; where it has errors, every condition is asked for its own."""
    entry = block.node.entries.get("match")
    if entry is None:
        return compile_pattern({})
    if not isinstance(entry.value, MapNode) or not entry.value.entries:
        shown = "an empty mapping" if isinstance(entry.value, MapNode) else kind(entry.value)
        block.error(entry.value, f"'match' must be a mapping of conditions by path, not {shown}")
        return None
    if _is_broken(entry.value):
        return None
    try:
        pattern = compile_pattern(plain_value(entry.value))
    except PatternError as error:
        errors = [one for part in _parts(entry.value) for one in _errors(part)] or [error]
        for one in errors:
            block.error(locate(entry.value, one.path, on_key=one.on_key), f"match: {_placed(one)}")
        return None
    for hint in pattern.hints:
        block.warn(locate(entry.value, hint.path, on_key=hint.on_key), f"match: {hint.message}")
    return pattern


def _placed(error: PatternError) -> str:
    """The message with the path that it is about, where it does not name it itself."""
    first = str(error.path[0]) if error.path else ""
    return error.message if first in error.message else f"{first}: {error.message}"


def _parts(match: MapNode) -> list[MapNode]:
    return [MapNode(match.mark, {path: entry}) for path, entry in match.entries.items()]


def _errors(part: MapNode) -> list[PatternError]:
    try:
        compile_pattern(plain_value(part))
    except PatternError as error:
        return [error]
    return []


def _is_broken(node: Node) -> bool:
    if isinstance(node, ScalarNode):
        return node.broken
    inner = node.items if isinstance(node, ListNode) else [entry.value for entry in node.entries.values()]
    return any(_is_broken(one) for one in inner)


def _emit(block: Block) -> str | None:
    type_ = block.text("emit")
    if type_ is not None and "${" in type_:
        block.error(
            block.node.entries["emit"].value, "'emit' is a type without holes; what varies goes into 'with'"
        )
    if type_ is not None and "\0" in type_:
        block.error(
            block.node.entries["emit"].value, "'emit' holds a NUL character; no type of an event does"
        )
    return type_


def _check_run(block: Block, run: str, names: Names) -> None:
    if run not in names.workflows and names.complete:
        message = block.report.unknown("workflow", run, names.workflows)
        block.error(block.node.entries["run"].value, f"run: {message}")


def _advise(block: Block, sources: frozenset[str] | None, names: Names, pattern: Pattern) -> None:
    """Warn of a rule that sees more events than its writer will have thought of."""
    if pattern.conditions_on("type"):
        return
    if sources is None:
        message = "has no condition on 'type' and no 'from': it fires on events of every kind"
        block.warn(block.mark, message)
        return
    several = any(names.sources.get(name) is Delivery.ledger for name in sources)
    if several or EVENTFLOW_SOURCE in sources:
        message = (
            f"has no condition on 'type': it fires on every kind of event from {', '.join(sorted(sources))}"
        )
        block.warn(block.mark, message)
