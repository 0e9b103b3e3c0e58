"""Compiled expressions and the values they run on.

What an expression may cost: its text has at most 32 levels and 100,000 characters and its macros run
10,000 steps together (all three enforced by the library); patterns of `matches` are literals (RE2, so
linear in the data); and where the work may grow with the square of the data, steps times bytes of the
data stay below `_WORK_LIMIT`, which is about two seconds at worst.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, cast

from cel_expr_python import cel

from eventflow.event import JSON
from eventflow.expression.messages import compile_error, reason
from eventflow.expression.tree import Reference, Tree, read_tree
from eventflow.expression.values import (
    EvaluationError,
    ExpressionError,
    as_doubles,
    encoded_size,
    from_cel,
    time_text,
    to_cel,
)

_STEP_LIMIT: Final = 10_000
_WORK_LIMIT: Final = 256_000_000
_CONTAINS_LIMIT: Final = 256 * 1024
_EVENT_TIMES: Final = ("time", "ingested")
# has(event.time) must look into the map `event` and not at the variable `event.time` (this library
# would answer with the time itself), so it is compiled against another name for the same map. The
# name is as long as `event`, so columns in errors stay right.
_EVENT_MAP: Final = "__evm"
_STRING: Final = r"""[rR]?(?:\"{3}[\s\S]*?\"{3}|'{3}[\s\S]*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
_HAS_TIME: Final = re.compile(rf"{_STRING}|(?P<has>\bhas\(\s*)event(?=\s*\.\s*(?:time|ingested)\s*\))")


class VarType(StrEnum):
    """Types of variables and results. `event` is a map whose `time` and `ingested` are timestamps."""

    any = "any"
    null = "null"
    bool = "bool"
    int = "int"
    double = "double"
    string = "string"
    bytes = "bytes"
    timestamp = "timestamp"
    duration = "duration"
    list = "list"
    map = "map"
    type = "type"
    event = "event"


_CEL_TYPES: Final = {
    VarType.any: cel.Type.DYN,
    VarType.bool: cel.Type.BOOL,
    VarType.int: cel.Type.INT,
    VarType.double: cel.Type.DOUBLE,
    VarType.string: cel.Type.STRING,
    VarType.timestamp: cel.Type.TIMESTAMP,
    VarType.duration: cel.Type.DURATION,
    VarType.list: cel.Type.List(cel.Type.DYN),
    VarType.map: cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
    VarType.event: cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
}
_RESULTS: Final = {"DYN": VarType.any, "UINT": VarType.int}


@lru_cache(maxsize=256)
def _environment(variables: tuple[tuple[str, VarType], ...]) -> cel.Env:
    types = {name: _CEL_TYPES[kind] for name, kind in variables}
    for name, kind in variables:
        if kind is VarType.event:
            types |= {f"{name}.{attribute}": cel.Type.TIMESTAMP for attribute in _EVENT_TIMES}
            types[_EVENT_MAP] = _CEL_TYPES[kind]
    return cel.NewEnv(variables=types)


class Activation:
    """The values of one evaluation round: made once per event, shared by every rule's expressions.

    Nothing is converted before the first expression runs.
    """

    __slots__ = ("_doubles", "_given", "_longest", "_made", "_size", "_values")

    def __init__(self, values: Mapping[str, object]) -> None:
        self._given = values = dict(values)
        self._values = values
        self._made: dict[int, cel.Activation] = {}
        self._size: int | None = None
        self._longest: int | None = None
        self._doubles: tuple[Activation | None] | None = None

    def of(self, environment: cel.Env) -> cel.Activation:
        """The values as `environment` sees them."""
        made = self._made.get(id(environment))
        if made is None:
            self._prepare()
            made = self._made[id(environment)] = environment.Activation(self._values)
        return made

    def field(self, path: Reference) -> Any:
        """The value at `path`, as it was given: order of keys and size of integers untouched.

        Raises `EvaluationError`, as CEL does, where there is none.
        """
        if (value := self._given.get(".".join(path))) is not None:
            return value
        value = self._given
        for step in path:
            if not isinstance(value, dict):
                raise EvaluationError("a field was asked of something that is no map")
            if step not in value:
                raise EvaluationError(f"missing field {step!r}")
            value = cast(dict[str, Any], value)[step]
        return value

    def with_doubles(self) -> Activation | None:
        """The same values for comparing integers outside int64 with other numbers; None: there are none."""
        if self._doubles is None:
            values = as_doubles(self._given)
            self._doubles = (None if values is None else Activation(values),)
        return self._doubles[0]

    def size(self) -> int:
        """Bytes of all values as JSON."""
        self._prepare()
        assert self._size is not None
        return self._size

    def longest(self) -> int:
        """Length of the longest list or map in the values."""
        if self._longest is None:
            self._longest = _longest(self._values)
        return self._longest

    def _prepare(self) -> None:
        if self._size is None:
            self._size, suspicious = encoded_size(self._values)
            if suspicious:
                self._values = {name: to_cel(value) for name, value in self._values.items()}
            else:
                self._doubles = (None,)
            if "event" in self._values:
                self._values = {**self._values, _EVENT_MAP: self._values["event"]}


def activate(values: Mapping[str, object]) -> Activation:
    """Values for expressions: plain JSON, datetimes for variables declared `timestamp`."""
    return Activation(values)


@dataclass(frozen=True, slots=True)
class Expression:
    """A CEL expression that compiled. `result` is its static type, `references` the fields it reads."""

    text: str
    result: VarType
    references: tuple[Reference, ...]
    _compiled: cel.Expression = field(repr=False, compare=False)
    _environment: cel.Env = field(repr=False, compare=False)
    _tree: Tree = field(repr=False, compare=False)

    @classmethod
    def compile(cls, text: str, variables: Mapping[str, VarType], *, boolean: bool = False) -> Expression:
        """Compile `text`; with `boolean` its result must be (or may turn out to be) a bool.

        Raises `ExpressionError` for a syntax error, an unknown name, or types that do not fit.
        """
        environment = _environment(tuple(sorted(variables.items())))
        source = _HAS_TIME.sub(_rename, text) if VarType.event in variables.values() else text
        try:
            compiled = environment.compile(source)
        except (RuntimeError, TypeError) as error:  # TypeError: the text has lone surrogates
            raise compile_error(str(error), text, variables) from error
        tree = read_tree(compiled.serialize())
        result = _result(compiled.return_type().name())
        _check(tree, result, variables, boolean=boolean)
        references = tuple(
            ("event", *path[1:]) if path[0] == _EVENT_MAP else path for path in tree.references
        )
        return cls(text, result, references, compiled, environment, tree)

    def evaluate(self, activation: Activation) -> JSON:
        """The result as plain JSON. Raises `EvaluationError`."""
        path = self._tree.path
        if path is not None:
            value = activation.field(path)
            return time_text(value) if isinstance(value, datetime) else value
        value = self._run(activation)
        plain = value.plain_value()
        if isinstance(plain, str) and value.type() == cel.Type.ERROR:
            raise EvaluationError(reason(plain))
        return from_cel(plain)

    def test(self, activation: Activation) -> bool:
        """The result of a condition. Raises `EvaluationError`, also when it is no bool."""
        value = self._run(activation)
        plain = value.plain_value()
        if plain is True or plain is False:
            return plain
        if value.type() == cel.Type.ERROR:
            if (again := activation.with_doubles()) is not None:
                return self.test(again)
            raise EvaluationError(reason(str(plain)))
        raise EvaluationError(f"the result is of type {value.type().name().lower()}, not bool")

    def _run(self, activation: Activation) -> cel.Value:
        given = activation.of(self._environment)
        if self._tree.multiplies:
            _check_work(self._tree, activation)
        try:
            return self._compiled.eval(given)
        except RuntimeError as error:
            raise EvaluationError(reason(str(error))) from error


def _rename(found: re.Match[str]) -> str:
    return f"{found['has']}{_EVENT_MAP}" if found["has"] else found[0]


def _result(name: str) -> VarType:
    kind = name.partition("<")[0]
    try:
        return _RESULTS.get(kind) or VarType(kind.lower())
    except ValueError:
        raise ExpressionError("a result of this type has no JSON form") from None


def _check(tree: Tree, result: VarType, variables: Mapping[str, VarType], *, boolean: bool) -> None:
    if boolean and result not in (VarType.bool, VarType.any):
        raise ExpressionError(f"this must be true or false, it is of type {result}")
    if result in (VarType.bytes, VarType.type):
        raise ExpressionError(f"a result of type {result} has no JSON form")
    for name in sorted(tree.bound & {variable.split(".")[0] for variable in variables}):
        raise ExpressionError(f"a macro's variable cannot be named {name!r}: that name is taken")
    for pattern in tree.patterns:
        if pattern is None:
            raise ExpressionError(
                "matches() takes a pattern written out: a computed one could cost without bound"
            )
        _check_pattern(pattern)


def _check_pattern(pattern: str) -> None:
    probe = _environment((("pattern", VarType.string),))
    value = probe.compile("''.matches(pattern)").eval(probe.Activation({"pattern": pattern}))
    if value.type() == cel.Type.ERROR:
        raise ExpressionError(f"matches(): {reason(str(value.plain_value()))}")


def _check_work(tree: Tree, activation: Activation) -> None:
    size = activation.size()
    if tree.depth == 0:
        if size > _CONTAINS_LIMIT:
            raise EvaluationError(
                f"contains() with a computed argument on {size} bytes of data; the limit is {_CONTAINS_LIMIT}"
            )
        return
    if size * _STEP_LIMIT <= _WORK_LIMIT:
        return
    steps = min(_STEP_LIMIT, max(activation.longest(), tree.longest_literal) ** tree.depth)
    if size * steps > _WORK_LIMIT:
        raise EvaluationError(f"too much work: {steps} steps of macros over {size} bytes of data")


def _longest(value: Any) -> int:
    items: list[Any]
    if isinstance(value, dict):
        items = list(cast(dict[str, Any], value).values())
    elif isinstance(value, list):
        items = cast(list[Any], value)
    else:
        return 0
    return max(
        len(items), max((_longest(item) for item in items if isinstance(item, (dict, list))), default=0)
    )
