"""The syntax tree of a compiled expression: what it reads, and what could make it dear.

The library hands its tree out only as a serialised `cel.expr.CheckedExpr`. This reads the few fields
of it that are needed, straight from the protobuf wire format.

Source: https://github.com/google/cel-spec/blob/master/proto/cel/expr/syntax.proto
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

Reference = tuple[str, ...]
"""A field the expression reads: `("event", "data", "size")`. Ends where an index is computed."""

_Message = dict[int, list[bytes | int]]

# Field numbers of cel.expr.Expr and the messages in it.
_CONSTANT, _IDENT, _SELECT, _CALL, _LIST, _STRUCT, _COMPREHENSION = 3, 4, 5, 6, 7, 8, 9
_CONSTANT_STRING: Final = 6
_TEST_ONLY: Final = 3
_ITER_VAR, _ITER_RANGE, _ACCU_VAR, _ITER_VAR2 = 1, 2, 3, 8
_LOOP_CONDITION, _LOOP_STEP = 5, 6
_COMPREHENSION_CHILDREN: Final = (4, _LOOP_CONDITION, _LOOP_STEP, 7)


@dataclass(frozen=True, slots=True)
class Tree:
    """`references` in order of appearance, each once; `bound` are the variables of macros.

    `patterns` are the literal patterns given to `matches`; None stands for one that is computed.
    `depth` is how deep macros nest. `multiplies` says that a macro's body reads something besides
    its own element, or that `contains` gets a computed argument: the work may grow with the square
    of the data. `longest_literal` is the length of the longest list or map written out.
    """

    references: tuple[Reference, ...]
    bound: frozenset[str]
    patterns: tuple[str | None, ...]
    depth: int
    multiplies: bool
    longest_literal: int
    path: Reference | None
    """Set where the whole expression is nothing but this one field."""


def read_tree(serialized: bytes) -> Tree:
    """The tree of `cel.Expression.serialize()`."""
    checked = _message(_bytes(_message(serialized), 2))
    reader = _Reader()
    root = _message(_bytes(checked, 4))
    reader.visit(root, (), 0)
    return Tree(
        references=tuple(dict.fromkeys(reader.references)),
        bound=frozenset(reader.bound),
        patterns=tuple(reader.patterns),
        depth=reader.depth,
        multiplies=reader.multiplies,
        longest_literal=reader.longest_literal,
        path=None if _tests_presence(root) else _path(root),
    )


class _Reader:
    """Walks the tree once. `scopes` holds, from the outside in, the names each macro around us binds."""

    def __init__(self) -> None:
        self.references: list[Reference] = []
        self.bound: set[str] = set()
        self.patterns: list[str | None] = []
        self.depth = 0
        self.multiplies = False
        self.longest_literal = 0

    def visit(self, expr: _Message, scopes: tuple[frozenset[str], ...], depth: int) -> None:
        path = _path(expr)
        if path is not None:
            self._read(path, scopes)
        elif _SELECT in expr:
            self.visit(_child(_child(expr, _SELECT), 1), scopes, depth)
        elif _CALL in expr:
            self._call(_child(expr, _CALL), scopes, depth)
        elif _COMPREHENSION in expr:
            self._comprehension(_child(expr, _COMPREHENSION), scopes, depth + 1)
        elif _LIST in expr:
            elements = list(_children(_child(expr, _LIST), 1))
            self.longest_literal = max(self.longest_literal, len(elements))
            self._visit_all(elements, scopes, depth)
        elif _STRUCT in expr:
            entries = list(_children(_child(expr, _STRUCT), 2))
            self.longest_literal = max(self.longest_literal, len(entries))
            for entry in entries:
                self._visit_all([*_children(entry, 3), *_children(entry, 4)], scopes, depth)

    def _visit_all(self, exprs: Sequence[_Message], scopes: tuple[frozenset[str], ...], depth: int) -> None:
        for expr in exprs:
            self.visit(expr, scopes, depth)

    def _read(self, path: Reference, scopes: tuple[frozenset[str], ...]) -> None:
        if scopes and path[0] not in scopes[-1]:
            self.multiplies = True
        if not any(path[0] in scope for scope in scopes):
            self.references.append(path)

    def _call(self, call: _Message, scopes: tuple[frozenset[str], ...], depth: int) -> None:
        arguments = [*_children(call, 1), *_children(call, 3)]
        function = _text(call, 2)
        if function in ("matches", "contains") and len(arguments) == 2:
            literal = _constant(arguments[1])
            if function == "matches":
                self.patterns.append(literal)
            elif literal is None:
                self.multiplies = True
        self._visit_all(arguments, scopes, depth)

    def _comprehension(self, loop: _Message, scopes: tuple[frozenset[str], ...], depth: int) -> None:
        self.depth = max(self.depth, depth)
        names = frozenset(_text(loop, field) for field in (_ITER_VAR, _ITER_VAR2) if field in loop)
        self.bound |= names
        self.visit(_child(loop, _ITER_RANGE), scopes, depth)
        inside = (*scopes, names | {_text(loop, _ACCU_VAR)})
        for field in _COMPREHENSION_CHILDREN:
            self._visit_all(list(_children(loop, field)), inside, depth)


def _path(expr: _Message) -> Reference | None:
    """`a.b`, `a["b"]` and `has(a.b)` as ("a", "b"); None for anything computed."""
    if _IDENT in expr:
        return tuple(_text(_child(expr, _IDENT), 1).split("."))
    if _SELECT in expr:
        select = _child(expr, _SELECT)
        operand, step = _path(_child(select, 1)), _text(select, 2)
    elif _CALL in expr and _text(_child(expr, _CALL), 2) == "_[_]":
        container, index = _children(_child(expr, _CALL), 3)
        operand, step = _path(container), _constant(index)
    else:
        return None
    return None if operand is None or step is None else (*operand, step)


def _tests_presence(expr: _Message) -> bool:
    return _SELECT in expr and _TEST_ONLY in _child(expr, _SELECT)


def _constant(expr: _Message) -> str | None:
    """The text of a string literal; None for anything else."""
    if _CONSTANT not in expr:
        return None
    constant = _child(expr, _CONSTANT)
    return _text(constant, _CONSTANT_STRING) if _CONSTANT_STRING in constant else None


def _message(data: bytes) -> _Message:
    """Fields of one protobuf message by number: varints as int, the rest as bytes."""
    fields: _Message = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value: bytes | int
        if tag & 7 == 0:
            value, at = _varint(data, at)
        else:
            size, at = (8, at) if tag & 7 == 1 else (4, at) if tag & 7 == 5 else _varint(data, at)
            value, at = data[at : at + size], at + size
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _bytes(message: _Message, field: int) -> bytes:
    value = message[field][-1]
    assert isinstance(value, bytes)
    return value


def _text(message: _Message, field: int) -> str:
    return _bytes(message, field).decode() if field in message else ""


def _child(message: _Message, field: int) -> _Message:
    return _message(_bytes(message, field))


def _children(message: _Message, field: int) -> Iterator[_Message]:
    for value in message.get(field, ()):
        assert isinstance(value, bytes)
        yield _message(value)
