"""A pattern on one event: `match` in a rule file, compiled.

Errors and hints carry the way to their place in the document, so that the rule-file loader can show
file, line and column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, cast

from eventflow.errors import UsageError
from eventflow.event import JSON, Event
from eventflow.matching.conditions import AllOf, AnyElement, AnyOf, Compare, Condition, NoneOf
from eventflow.matching.operators import Operator, OperatorError, compile_operator
from eventflow.matching.path import Path, PathError, near_attribute, parse_event_path, parse_path

DocumentPath = tuple[str | int, ...]
"""Keys and indexes from the `match` map to a place in it."""

COMBINATORS: Final = ("any_of", "all_of", "none_of")
_ARRAY_NAME: Final = re.compile(r"(?:.*[^su]s|list|array|set)", re.IGNORECASE)
_NO_ARRAY_NAME: Final = re.compile(r".*(?:is|os|ws|bs)", re.IGNORECASE)


class PatternError(UsageError):
    """A pattern that does not compile. `path` leads to what is wrong; `on_key`: the key, not its value."""

    def __init__(self, path: DocumentPath, message: str, *, on_key: bool = False) -> None:
        self.path = path
        self.message = message
        self.on_key = on_key
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Hint:
    """Something doubtful at `path` of the document; `on_key`: about the key, not its value."""

    path: DocumentPath
    message: str
    on_key: bool = True


@dataclass(frozen=True, slots=True)
class Pattern:
    """Every condition holds. No conditions: any event. `hints` are for `check`."""

    conditions: tuple[Condition, ...] = ()
    hints: tuple[Hint, ...] = field(default=(), compare=False)

    def matches(self, event: Event) -> bool:
        """Whether the event is what the pattern says; the meaning that the index must agree with."""
        return all(condition.holds(event) for condition in self.conditions)

    def conditions_on(self, path: str) -> tuple[Compare, ...]:
        """Every comparison with this path of the event, however deep in combinators, in file order."""
        return tuple(one for one in _comparisons(self.conditions) if one.path.text == path)


def _comparisons(conditions: tuple[Condition, ...]) -> Iterator[Compare]:
    for condition in conditions:
        match condition:
            case Compare():
                yield condition
            case AllOf() | AnyOf() | NoneOf():
                yield from _comparisons(condition.parts)
            case AnyElement():
                pass  # its paths start at an element


def compile_pattern(match: JSON) -> Pattern:
    """Compile the value of `match`, a map; an empty one is a pattern for any event. Raises `PatternError`."""
    if match == {}:
        return Pattern()
    hints: list[Hint] = []
    conditions = _Compiler(hints).match(match, (), inside=False)
    return Pattern(conditions, tuple(hints))


class _Compiler:
    """Goes down the document; collects hints on the way."""

    def __init__(self, hints: list[Hint]) -> None:
        self._hints = hints

    def match(self, match: JSON, at: DocumentPath, *, inside: bool) -> tuple[Condition, ...]:
        """`inside` an `any` paths start at the element, elsewhere at the event."""
        if not isinstance(match, dict):
            raise PatternError(at, "a match is a map of paths to conditions")
        if not match:
            raise PatternError(at, "an empty match holds for everything; leave it out, or say what must hold")
        return tuple(
            self._entry(key, value, (*at, key), inside=inside)
            for key, value in cast(dict[Any, Any], match).items()
        )

    def _entry(self, key: Any, value: JSON, at: DocumentPath, *, inside: bool) -> Condition:
        if not isinstance(key, str):
            raise PatternError(at, f"a path is a text, not {key!r}", on_key=True)
        if key in COMBINATORS:
            return self._combinator(key, value, at, inside=inside)
        if key == "any":
            return self._any(value, at, inside=inside)
        return self._compare(self._path(key, at, inside=inside, on_key=True), value, at)

    def _combinator(self, name: str, value: JSON, at: DocumentPath, *, inside: bool) -> Condition:
        if not isinstance(value, list) or not value:
            raise PatternError(at, f"{name} takes a list of at least one match")
        parts = tuple(
            AllOf(self.match(item, (*at, index), inside=inside))
            for index, item in enumerate(cast(list[Any], value))
        )
        return {"any_of": AnyOf, "all_of": AllOf, "none_of": NoneOf}[name](parts)

    def _any(self, value: JSON, at: DocumentPath, *, inside: bool) -> Condition:
        words = cast(dict[Any, Any], value) if isinstance(value, dict) else {}
        for word in words:
            if word not in ("in", "match"):
                raise PatternError((*at, word), f"unknown word {word!r}; any takes in and match", on_key=True)
        if "in" not in words or "match" not in words:
            raise PatternError(at, "any takes {in: PATH, match: {...}}")
        if not isinstance(words["in"], str):
            raise PatternError((*at, "in"), "in takes the path of an array")
        path = self._path(words["in"], (*at, "in"), inside=inside, on_key=False)
        return AnyElement(path, AllOf(self.match(words["match"], (*at, "match"), inside=True)))

    def _path(self, text: str, at: DocumentPath, *, inside: bool, on_key: bool) -> Path:
        try:
            path = parse_path(text) if inside else parse_event_path(text)
        except PathError as error:
            raise PatternError(at, str(error), on_key=on_key) from error
        if not inside and (near := near_attribute(path)):
            self._hints.append(Hint(at, f"{text!r} is read as an extension; did you mean {near!r}?"))
        return path

    def _compare(self, path: Path, value: JSON, at: DocumentPath) -> Condition:
        """A scalar is equality, a list is any of its values, a map is all of its operators."""
        if isinstance(value, dict):
            if not value:
                raise PatternError(at, "a condition without an operator says nothing")
            operators = tuple(
                self._operator(name, argument, (*at, name))
                for name, argument in cast(dict[Any, Any], value).items()
            )
        else:
            operators = (self._operator("in" if isinstance(value, list) else "eq", value, at),)
        self._hint(path, operators, at)
        return Compare(path, operators)

    def _operator(self, name: Any, argument: JSON, at: DocumentPath) -> Operator:
        try:
            return compile_operator(str(name), argument)
        except OperatorError as error:
            raise PatternError((*at, *error.path), error.message, on_key=error.on_key) from error

    def _hint(self, path: Path, operators: tuple[Operator, ...], at: DocumentPath) -> None:
        names = {operator.name for operator in operators}
        last = path.segments[-1]
        if "not" in names and _ARRAY_NAME.fullmatch(last) and not _NO_ARRAY_NAME.fullmatch(last):
            message = f"not means that some element of {path} is not that; none_of says that no element is"
            self._hints.append(Hint(at, message))
        if len(operators) > 1 and any(op.name == "exists" and not op.argument for op in operators):
            self._hints.append(Hint(at, "exists: false beside other operators never holds"))
        for operator in operators:
            if operator.name == "between" and operator.given[0] >= operator.given[1]:
                self._hints.append(Hint(at, "between [lo, hi] never holds: lo is not below hi"))
