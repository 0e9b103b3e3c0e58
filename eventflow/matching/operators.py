"""The operators of a condition: what each takes, and when it holds for one value.

Types are strict: `"1"` is not 1, true is not 1, 1 equals 1.0, null is a value. An operator never holds
for a value of a type it is not about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final, cast

from eventflow.event import JSON
from eventflow.glob import GlobError, compile_glob

# The extra `regex`; absent, a rule that uses it does not load.
re2: Any = import_module("re2") if find_spec("re2") else None

_RE2_MEMORY: Final = 8 * 1024 * 1024
NUMBERS: Final = (int, float)

EXPRESSIONS: Final[Mapping[str, str]] = {
    "identical": "v is a",
    "text": "v == a",
    "number": "v == a and v.__class__ is not bool",
    "one_of": "v.__class__ is not dict and ((v,) if v.__class__ is bool else v) in a",
    "prefix": "v.__class__ is str and v.startswith(a)",
    "suffix": "v.__class__ is str and v.endswith(a)",
    "contains": "v.__class__ is str and a in v",
    "folded": "v.__class__ is str and v.casefold() == a",
    "glob": "v.__class__ is str and a.search(v)",
    "predicate": "v.__class__ is str and a(v)",
    "gt": "(v.__class__ is int or v.__class__ is float) and v > a",
    "gte": "(v.__class__ is int or v.__class__ is float) and v >= a",
    "lt": "(v.__class__ is int or v.__class__ is float) and v < a",
    "lte": "(v.__class__ is int or v.__class__ is float) and v <= a",
    "between": "(v.__class__ is int or v.__class__ is float) and a[0] <= v < a[1]",
    "not": "not a.test(v)",
    "exists": "True",
}
"""What each kind of test asks of `v`, a value that is there and is no array, with the argument `a`.

Written once as Python: here they become functions, in `checks` parts of larger ones. No text of a rule
ever gets into them.
"""


def _function(expression: str) -> Callable[[Any, Any], Any]:
    return eval(f"lambda v, a: {expression}")  # noqa: S307 - of the constants above


_TESTS: Final = {kind: _function(expression) for kind, expression in EXPRESSIONS.items()}


class OperatorError(ValueError):
    """An argument that does not fit its operator. `path` leads from the argument to what is wrong."""

    def __init__(self, message: str, *path: str | int, on_key: bool = False) -> None:
        self.message = message
        self.path = path
        self.on_key = on_key
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Operator:
    """`argument` is as written; `kind` names the expression and `given` is its `a`.

    `exists` is no question about a value: its test is true and the condition looks at `argument`.
    """

    name: str
    argument: JSON
    kind: str
    given: Any = field(repr=False, compare=False)

    def test(self, value: JSON) -> bool:
        """Whether it holds for a value that is there and is no array."""
        return bool(_TESTS[self.kind](value, self.given))


def compile_operator(name: str, argument: JSON) -> Operator:
    """Raises `OperatorError`."""
    compiler = _COMPILERS.get(name)
    if compiler is None:
        near = [_ELSEWHERE[name]] if name in _ELSEWHERE else get_close_matches(name, _COMPILERS, n=1)
        meant = f"did you mean {near[0]!r}?" if near else f"there are {' '.join(_COMPILERS)}"
        raise OperatorError(f"unknown operator {name!r}; {meant}", on_key=True)
    return compiler(name, argument)


def type_name(value: JSON) -> str:
    """The JSON type of a value."""
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "list"
        case _:
            return "map"


def hash_key(value: JSON) -> Any:
    """A key under which equal means what `eq` means: true and 1 apart, 1 and 1.0 together."""
    return (value,) if value.__class__ is bool else value


def _eq(name: str, argument: JSON) -> Operator:
    scalar = _scalar(name, argument)
    if isinstance(scalar, bool) or scalar is None:
        return Operator(name, argument, "identical", scalar)
    return Operator(name, argument, "text" if isinstance(scalar, str) else "number", scalar)


def _in(name: str, argument: JSON) -> Operator:
    return Operator(name, argument, "one_of", frozenset(hash_key(one) for one in _scalars(name, argument)))


def _not(name: str, argument: JSON) -> Operator:
    if isinstance(argument, dict):
        inner = _negated(cast(dict[str, Any], argument))
    elif isinstance(argument, list):
        inner = _in(name, argument)
    else:
        inner = _eq(name, argument)
    return Operator(name, argument, "not", inner)


def _negated(argument: Mapping[str, Any]) -> Operator:
    if len(argument) != 1:
        raise OperatorError("not takes a value, a list of values, or one operator")
    name, inner = next(iter(argument.items()))
    if name == "exists":
        raise OperatorError("not needs the field present; write exists: false instead", name, on_key=True)
    try:
        return compile_operator(name, inner)
    except OperatorError as error:
        raise OperatorError(error.message, name, *error.path, on_key=error.on_key) from error


def _part(name: str, argument: JSON) -> Operator:
    return Operator(name, argument, name, _text(name, argument))


def _ieq(name: str, argument: JSON) -> Operator:
    return Operator(name, argument, "folded", _text(name, argument).casefold())


def _glob(name: str, argument: JSON) -> Operator:
    try:
        return Operator(name, argument, "glob", compile_glob(_text(name, argument)))
    except GlobError as error:
        raise OperatorError(str(error)) from error


def _regex(name: str, argument: JSON) -> Operator:
    """RE2 only: Python's `re` needs exponential time for some patterns."""
    text = _text(name, argument)
    if re2 is None:
        raise OperatorError("regex needs RE2, which is not installed: pip install 'eventflow[regex]'")
    options = re2.Options()
    options.max_mem = _RE2_MEMORY
    options.log_errors = False
    try:
        return Operator(name, argument, "predicate", re2.compile(text, options).search)
    except re2.error as error:
        raise OperatorError(f"not a regular expression of RE2: {_re2_message(error)}") from error


def _re2_message(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)


def _order(name: str, argument: JSON) -> Operator:
    return Operator(name, argument, name, _number(name, argument))


def _between(name: str, argument: JSON) -> Operator:
    if not isinstance(argument, list) or len(cast(list[Any], argument)) != 2:
        raise OperatorError("between takes two numbers [lo, hi], and means lo <= value < hi")
    low, high = (_number(name, bound, at) for at, bound in enumerate(cast(list[Any], argument)))
    return Operator(name, argument, "between", (low, high))


def _cidr(name: str, argument: JSON) -> Operator:
    listed: list[Any] = cast(list[Any], argument) if isinstance(argument, list) else [argument]
    if not listed:
        raise OperatorError("cidr needs at least one network")
    networks = [_network(item, at, listed=listed is argument) for at, item in enumerate(listed)]
    return Operator(name, argument, "predicate", partial(_within, networks))


def _network(text: Any, at: int, *, listed: bool) -> IPv4Network | IPv6Network:
    path = (at,) if listed else ()
    if not isinstance(text, str):
        raise OperatorError('cidr takes a network such as "10.0.0.0/8", or a list of them', *path)
    try:
        return ip_network(text, strict=False)
    except ValueError as error:
        raise OperatorError(f"cidr: {error}", *path) from error


def _within(networks: list[IPv4Network | IPv6Network], text: str) -> bool:
    """An IPv4 address written as IPv6 is not in an IPv4 network; leading zeros are no address."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return any(address in network for network in networks)


def _exists(name: str, argument: JSON) -> Operator:
    if not isinstance(argument, bool):
        raise OperatorError("exists takes true or false")
    return Operator(name, argument, "exists", argument)


def _scalar(name: str, argument: JSON, *path: int) -> JSON:
    if isinstance(argument, (list, dict)):
        raise OperatorError(
            f"{name} takes a text, number, true, false or null, no {type_name(argument)}", *path
        )
    return _finite(argument, *path)


def _scalars(name: str, argument: JSON) -> list[JSON]:
    if not isinstance(argument, list):
        raise OperatorError(f"{name} takes a list of values")
    if not argument:
        raise OperatorError(f"{name} needs at least one value: an empty list holds for nothing")
    return [_scalar(name, item, at) for at, item in enumerate(cast(list[Any], argument))]


def _text(name: str, argument: JSON) -> str:
    if not isinstance(argument, str):
        raise OperatorError(f"{name} takes a text, not a {type_name(argument)}")
    return argument


def _number(name: str, argument: JSON, *path: int) -> int | float:
    if isinstance(argument, bool) or not isinstance(argument, NUMBERS):
        raise OperatorError(f"{name} takes numbers, not a {type_name(argument)}", *path)
    _finite(argument, *path)
    return argument


def _finite(argument: JSON, *path: int) -> JSON:
    if isinstance(argument, float) and not math.isfinite(argument):
        raise OperatorError("no event holds NaN or infinity", *path)
    return argument


_COMPILERS: Final[Mapping[str, Callable[[str, JSON], Operator]]] = {
    "eq": _eq,
    "in": _in,
    "not": _not,
    "prefix": _part,
    "suffix": _part,
    "contains": _part,
    "glob": _glob,
    "regex": _regex,
    "ieq": _ieq,
    "gt": _order,
    "gte": _order,
    "lt": _order,
    "lte": _order,
    "between": _between,
    "cidr": _cidr,
    "exists": _exists,
}

_ELSEWHERE: Final[Mapping[str, str]] = {
    "=": "eq", "==": "eq", "equal": "eq", "equals": "eq", "is": "eq", "ne": "not", "neq": "not", "!=": "not",
    "anything-but": "not", ">": "gt", ">=": "gte", "ge": "gte", "<": "lt", "<=": "lte", "le": "lte",
    "startsWith": "prefix", "starts_with": "prefix", "endsWith": "suffix", "ends_with": "suffix",
    "matches": "regex", "like": "glob", "wildcard": "glob", "range": "between", "iequals": "ieq",
    "equals-ignore-case": "ieq", "any_of": "in", "one_of": "in", "present": "exists", "includes": "contains",
}  # fmt: skip
"""What other tools call our operators."""
