"""`with`, `where` and every other place of CEL in a rule file: compiled, with errors at their places."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Final

from eventflow.expression import Expression, ExpressionError, Reference, Template, VarType
from eventflow.expression.template import HoleError
from eventflow.matching.path import ATTRIBUTES
from eventflow.rulefile.block import Block
from eventflow.rulefile.nodes import Mark, Node, locate, plain_value

Variables = Mapping[str, VarType]

_FIELDS: Final = (*ATTRIBUTES, "ingested")
_EXTENSION: Final = re.compile(r"[a-z0-9]+")


def read_inputs(block: Block, variables: Variables) -> dict[str, Template]:
    """The values of `with`, by name; those with errors have been reported and are left out."""
    found: dict[str, Template] = {}
    if "with" not in block:
        return found
    inner = block.block("with", form="{name: value}")
    for name, entry in inner.entries() if inner else ():
        template = read_template(block, f"with: {name}", entry.value, variables)
        if template is not None:
            found[name] = template
    return found


def read_template(
    block: Block, word: str, node: Node, variables: Variables, *, secrets: bool = False
) -> Template | None:
    """A value whose texts may have holes, also those of `secrets`; None where one does not compile."""
    try:
        template = Template.compile(plain_value(node), variables, secrets=secrets)
    except HoleError as error:
        block.error(locate(node, error.path), f"{word}: {error.message}")
        return None
    for hole in template.holes:
        if hole.expression is not None:
            _check_fields(block, word, locate(node, hole.path), hole.expression.references)
    return template


def read_condition(block: Block, name: str, variables: Variables) -> Expression | None:
    """A word that is bare CEL and must be true or false."""
    node, text = block.get(name), block.text(name)
    if node is None or text is None:
        return None
    if text.startswith("${") and text.endswith("}"):
        block.error(node, f"'{name}' is an expression as it stands; write it without ${{ and }}")
        return None
    try:
        expression = Expression.compile(text, variables, boolean=True)
    except ExpressionError as error:
        block.error(node, f"{name}: {error.message} (at {error.line}:{error.column} of the expression)")
        return None
    _check_fields(block, name, node.mark, expression.references)
    return expression


def named_below(template: Template, variable: str) -> Iterator[Reference]:
    """Every `variable.x...` that the template reads."""
    for hole in template.holes:
        for reference in hole.expression.references if hole.expression else ():
            if reference[0] == variable and len(reference) > 1:
                yield reference


def _check_fields(block: Block, word: str, mark: Mark, references: Iterable[Reference]) -> None:
    """Warn of `event.x` where x is probably a slip: any name of an extension could be meant."""
    for name in dict.fromkeys(one[1] for one in references if one[0] == "event" and len(one) > 1):
        near = get_close_matches(name, _FIELDS, n=1, cutoff=0.7)
        if name in _FIELDS or (_EXTENSION.fullmatch(name) and not near):
            continue
        meant = f"did you mean 'event.{near[0]}'?" if near else f"did you mean 'event.data.{name}'?"
        block.warn(mark, f"{word}: an event has no '{name}' of its own; {meant}")
