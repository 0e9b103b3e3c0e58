"""`with`, `where` and every other place of CEL in a rule file: compiled, with errors at their places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from eventflow.expression import Expression, ExpressionError, Template, VarType
from eventflow.expression.template import HoleError
from eventflow.rulefile.block import Block
from eventflow.rulefile.nodes import Node, locate, plain_value

Variables = Mapping[str, VarType]


def read_inputs(block: Block, variables: Variables) -> dict[str, Template]:
    """The values of `with`, by name; those with errors have been reported and are left out."""
    found: dict[str, Template] = {}
    if "with" not in block:
        return found
    inner = block.block("with")
    for name, entry in inner.entries() if inner else ():
        template = read_template(block, f"with: {name}", entry.value, variables)
        if template is not None:
            found[name] = template
    return found


def read_template(block: Block, word: str, node: Node, variables: Variables) -> Template | None:
    """A value whose texts may have holes; None where one does not compile."""
    try:
        return Template.compile(plain_value(node), variables)
    except HoleError as error:
        block.error(locate(node, error.path), f"{word}: {error.message}")
        return None


def read_condition(block: Block, name: str, variables: Variables) -> Expression | None:
    """A word that is bare CEL and must be true or false."""
    node, text = block.get(name), block.text(name)
    if node is None or text is None:
        return None
    try:
        return Expression.compile(text, variables, boolean=True)
    except ExpressionError as error:
        block.error(node, f"{name}: {error.message} (at {error.line}:{error.column} of the expression)")
        return None


def is_literal(template: Template) -> bool:
    """Whether the value is the same for every event."""
    return not template.holes


def named_below(template: Template, variable: str) -> Iterator[str]:
    """The `x` of every `variable.x` that the template reads."""
    for hole in template.holes:
        for reference in hole.expression.references if hole.expression else ():
            if reference[0] == variable and len(reference) > 1:
                yield reference[1]
