"""Values with holes: `"${event.data.path}"`, `"day ${key}"`, and lists and maps of such strings.

A string that is one hole keeps the value's type; any other gives text. `$${` stands for a literal `${`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec

from eventflow.event import JSON
from eventflow.expression.cel import Activation, Expression, VarType
from eventflow.expression.values import EvaluationError, ExpressionError

Path = tuple[str | int, ...]
"""Where in a template's value a string stands: keys and indexes from the outside in."""

_SECRET: Final = re.compile(r"\s*secret\s*\.\s*([A-Za-z_][A-Za-z0-9_]*)\s*")
_TRIPLE: Final = ('"""', "'''")


class HoleError(ExpressionError):
    """A hole that does not compile. `path` leads to its string, `offset` is where in it the error is."""

    def __init__(self, message: str, path: Path, offset: int) -> None:
        super().__init__(message, 1, offset + 1)
        self.path = path
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Hole:
    """One `${...}`: an expression, or the name of a secret.

    `whole` is true where the string is this one hole, so that `expression.result` is the value's type.
    """

    text: str
    path: Path
    offset: int
    whole: bool
    expression: Expression | None = None
    secret: str | None = None

    def render(self, activation: Activation, secret: Callable[[str], str] | None) -> JSON:
        if self.expression is None:
            assert self.secret is not None
            if secret is None:
                raise EvaluationError(f"hole {self.text!r}: secrets are not given here")
            return secret(self.secret)
        try:
            return self.expression.evaluate(activation)
        except EvaluationError as error:
            raise EvaluationError(f"hole {self.text!r}: {error}") from error


_Node = Any
"""Compiled value: a Hole (whole string), a tuple of parts (mixed string), a list, a dict, or a constant."""


@dataclass(frozen=True, slots=True)
class Template:
    """A value whose strings may have holes. `holes` are all of them, in order."""

    value: JSON
    holes: tuple[Hole, ...]
    _node: _Node

    @classmethod
    def compile(cls, value: JSON, variables: Mapping[str, VarType], *, secrets: bool = False) -> Template:
        """Compile every hole in `value`. `secrets` says whether `${secret.NAME}` may stand here.

        Raises `HoleError`, with the path to the string and the offset of the hole in it.
        """
        node = _compile(value, variables, (), secrets=secrets)
        return cls(value, tuple(_holes(node)), node)

    def render(self, activation: Activation, secret: Callable[[str], str] | None = None) -> JSON:
        """The value with its holes filled. Raises `EvaluationError`, naming the hole."""
        return _render(self._node, activation, secret)


def _compile(value: JSON, variables: Mapping[str, VarType], path: Path, *, secrets: bool) -> _Node:
    if isinstance(value, str):
        return _compile_text(value, variables, path, secrets=secrets) if "${" in value else value
    if isinstance(value, list):
        items = enumerate(cast(list[Any], value))
        return [_compile(item, variables, (*path, index), secrets=secrets) for index, item in items]
    if isinstance(value, dict):
        pairs = cast(dict[str, Any], value).items()
        return {key: _compile(item, variables, (*path, key), secrets=secrets) for key, item in pairs}
    return value


def _compile_text(text: str, variables: Mapping[str, VarType], path: Path, *, secrets: bool) -> _Node:
    parts: list[str | Hole] = []
    at = 0
    while (start := text.find("${", at)) >= 0:
        if start > at and text[start - 1] == "$":
            parts.append(text[at : start - 1] + "${")
            at = start + 2
            continue
        end = _hole_end(text, start + 2)
        if end is None:
            raise HoleError("a hole that is not closed: `${` needs its `}`", path, start)
        parts.append(text[at:start])
        whole = start == 0 and end == len(text) - 1
        parts.append(_hole(text[start + 2 : end], variables, path, start, whole=whole, secrets=secrets))
        at = end + 1
    parts.append(text[at:])
    kept = [part for part in parts if part != ""]
    if len(kept) == 1 and isinstance(kept[0], Hole):
        return kept[0]
    if any(isinstance(part, Hole) for part in kept):
        return tuple(kept)
    return "".join(cast(list[str], kept))


def _hole_end(text: str, at: int) -> int | None:
    """Index of the `}` that closes a hole: past CEL's own braces and strings."""
    depth = 0
    while at < len(text):
        character = text[at]
        if character in "\"'":
            at = _string_end(text, at)
            continue
        if character == "}":
            if depth == 0:
                return at
            depth -= 1
        elif character == "{":
            depth += 1
        at += 1
    return None


def _string_end(text: str, at: int) -> int:
    """Index after the CEL string that begins at `at`; the text's length where it does not end."""
    quote = text[at : at + 3] if text[at : at + 3] in _TRIPLE else text[at]
    raw = at > 0 and text[at - 1] in "rR" and not (at > 1 and (text[at - 2].isalnum() or text[at - 2] == "_"))
    at += len(quote)
    while at < len(text):
        if text.startswith(quote, at):
            return at + len(quote)
        at += 2 if text[at] == "\\" and not raw else 1
    return len(text)


def _hole(
    text: str, variables: Mapping[str, VarType], path: Path, offset: int, *, whole: bool, secrets: bool
) -> Hole:
    if secret := _SECRET.fullmatch(text):
        if not secrets:
            raise HoleError("a secret cannot stand here: its value would be stored", path, offset)
        return Hole(text, path, offset, whole, secret=secret[1])
    try:
        return Hole(text, path, offset, whole, expression=Expression.compile(text, variables))
    except ExpressionError as error:
        column = error.column - 1 if error.line == 1 else 0
        raise HoleError(f"hole ${{{text}}}: {error.message}", path, offset + 2 + column) from error


def _holes(node: _Node) -> Iterator[Hole]:
    if isinstance(node, Hole):
        yield node
    elif isinstance(node, (list, tuple)):
        for item in cast(list[Any], node):
            yield from _holes(item)
    elif isinstance(node, dict):
        for item in cast(dict[str, Any], node).values():
            yield from _holes(item)


def _render(node: _Node, activation: Activation, secret: Callable[[str], str] | None) -> JSON:
    if isinstance(node, Hole):
        return node.render(activation, secret)
    if isinstance(node, tuple):
        parts = cast(tuple[str | Hole, ...], node)
        return "".join(
            part if isinstance(part, str) else _as_text(part.render(activation, secret)) for part in parts
        )
    if isinstance(node, list):
        return [_render(item, activation, secret) for item in cast(list[Any], node)]
    if isinstance(node, dict):
        return {key: _render(item, activation, secret) for key, item in cast(dict[str, Any], node).items()}
    return node


def _as_text(value: JSON) -> str:
    """A hole's value inside text: strings as they are, anything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
