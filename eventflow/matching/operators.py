"""The operators of a condition: what each takes, and when it holds for one value.

Types are strict: `"1"` is not 1, true is not 1, 1 equals 1.0, null is a value. An operator never holds
for a value of a type it is not about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final, cast

from eventflow.event import JSON
from eventflow.glob import Glob, GlobError, compile_glob

# The extra `regex`; absent, a rule that uses it does not load.
re2: Any = import_module("re2") if find_spec("re2") else None

Test = Callable[[Any], bool]

_RE2_MEMORY: Final = 8 * 1024 * 1024
NUMBERS: Final = (int, float)


class OperatorError(ValueError):
    """An argument that does not fit its operator. `path` leads from the argument to what is wrong."""

    def __init__(self, message: str, *path: str | int, on_key: bool = False) -> None:
        self.message = message
        self.path = path
        self.on_key = on_key
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Operator:
    """`argument` is as written. `test(value)` is for one value that is there and is no array.

    `exists` is no question about a value: its `test` is true and the condition looks at `argument`.
    `about` names the type of the values it may hold for; "any" where it is about all.
    """

    name: str
    argument: JSON
    about: str
    test: Test = field(repr=False, compare=False)
    glob: Glob | None = field(default=None, repr=False, compare=False)
    inner: Operator | None = None


def compile_operator(name: str, argument: JSON) -> Operator:
    """Raises `OperatorError`."""
    compiler = _COMPILERS.get(name)
    if compiler is None:
        near = get_close_matches(name, _COMPILERS, n=1)
        meant = f"did you mean {near[0]!r}?" if near else f"there are {' '.join(_COMPILERS)}"
        raise OperatorError(f"unknown operator {name!r}; {meant}", on_key=True)
    return compiler(name, argument)


def fits(operator: Operator, value: JSON) -> bool:
    """Whether the operator is about values of this type."""
    return operator.about in ("any", type_name(value))


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


def equals(value: JSON, wanted: JSON) -> bool:
    """Strict equality of scalars; numbers compare by value, exactly, whatever their size."""
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    return value == wanted


def _eq(name: str, argument: JSON) -> Operator:
    scalar = _scalar(name, argument)
    if isinstance(scalar, bool) or scalar is None:
        return Operator(name, argument, "any", lambda value: value is scalar)
    if isinstance(scalar, str):
        return Operator(name, argument, "any", lambda value: value == scalar)
    return Operator(name, argument, "any", lambda value: value == scalar and value.__class__ is not bool)


def _in(name: str, argument: JSON) -> Operator:
    scalars = _scalars(name, argument)
    wanted = frozenset(_hashed(scalar) for scalar in scalars)

    def test(value: Any) -> bool:
        return not isinstance(value, dict) and _hashed(value) in wanted

    return Operator(name, argument, "any", test)


def _hashed(scalar: Any) -> Any:
    """A key that keeps true and 1 apart, which Python holds for equal."""
    return (scalar,) if scalar.__class__ is bool else scalar


def _not(name: str, argument: JSON) -> Operator:
    if isinstance(argument, dict):
        inner = _negated(cast(dict[str, Any], argument))
    elif isinstance(argument, list):
        inner = _in(name, argument)
    else:
        inner = _eq(name, argument)
    test = inner.test
    return Operator(name, argument, "any", lambda value: not test(value), inner=inner)


def _negated(argument: Mapping[str, Any]) -> Operator:
    if len(argument) != 1:
        raise OperatorError("not takes a value, a list of values, or one operator")
    name, inner = next(iter(argument.items()))
    if name == "exists":
        raise OperatorError("not needs the field present; write exists: false instead", name, on_key=True)
    if name == "not":
        raise OperatorError("not inside not; write what is wanted", name, on_key=True)
    try:
        return compile_operator(name, inner)
    except OperatorError as error:
        raise OperatorError(error.message, name, *error.path, on_key=error.on_key) from error


def _prefix(name: str, argument: JSON) -> Operator:
    text = _text(name, argument)
    return Operator(name, argument, "string", lambda value: value.__class__ is str and value.startswith(text))


def _suffix(name: str, argument: JSON) -> Operator:
    text = _text(name, argument)
    return Operator(name, argument, "string", lambda value: value.__class__ is str and value.endswith(text))


def _contains(name: str, argument: JSON) -> Operator:
    text = _text(name, argument)
    return Operator(name, argument, "string", lambda value: value.__class__ is str and text in value)


def _ieq(name: str, argument: JSON) -> Operator:
    folded = _text(name, argument).casefold()
    return Operator(
        name, argument, "string", lambda value: value.__class__ is str and value.casefold() == folded
    )


def _glob(name: str, argument: JSON) -> Operator:
    try:
        glob = compile_glob(_text(name, argument))
    except GlobError as error:
        raise OperatorError(str(error)) from error
    match = glob.match
    return Operator(
        name, argument, "string", lambda value: value.__class__ is str and match(value), glob=glob
    )


def _regex(name: str, argument: JSON) -> Operator:
    """RE2 only: Python's `re` needs exponential time for some patterns."""
    text = _text(name, argument)
    if re2 is None:
        raise OperatorError("regex needs RE2, which is not installed: pip install 'eventflow[regex]'")
    options = re2.Options()
    options.max_mem = _RE2_MEMORY
    options.log_errors = False
    try:
        search: Callable[[str], object] = re2.compile(text, options).search
    except re2.error as error:
        raise OperatorError(f"not a regular expression of RE2: {_re2_message(error)}") from error
    return Operator(
        name, argument, "string", lambda value: value.__class__ is str and search(value) is not None
    )


def _re2_message(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)


def _order(name: str, argument: JSON) -> Operator:
    limit = _number(name, argument)
    tests: dict[str, Test] = {
        "gt": lambda value: value > limit,
        "gte": lambda value: value >= limit,
        "lt": lambda value: value < limit,
        "lte": lambda value: value <= limit,
    }
    return Operator(name, argument, "number", _for_numbers(tests[name]))


def _between(name: str, argument: JSON) -> Operator:
    if not isinstance(argument, list) or len(cast(list[Any], argument)) != 2:
        raise OperatorError("between takes two numbers [lo, hi], and means lo <= value < hi")
    low, high = (_number(name, bound, at) for at, bound in enumerate(cast(list[Any], argument)))
    if low >= high:
        raise OperatorError(f"between [{low}, {high}] holds for nothing: lo must be below hi")
    return Operator(name, argument, "number", _for_numbers(lambda value: low <= value < high))


def _for_numbers(test: Test) -> Test:
    return lambda value: (value.__class__ is int or value.__class__ is float) and test(value)


def _cidr(name: str, argument: JSON) -> Operator:
    listed: list[Any] = cast(list[Any], argument) if isinstance(argument, list) else [argument]
    if not listed:
        raise OperatorError("cidr needs at least one network")
    networks = [_network(item, at, listed=listed is argument) for at, item in enumerate(listed)]
    return Operator(
        name, argument, "string", lambda value: value.__class__ is str and _within(value, networks)
    )


def _network(text: Any, at: int, *, listed: bool) -> IPv4Network | IPv6Network:
    path = (at,) if listed else ()
    if not isinstance(text, str):
        raise OperatorError('cidr takes a network such as "10.0.0.0/8", or a list of them', *path)
    try:
        return ip_network(text, strict=False)
    except ValueError as error:
        raise OperatorError(f"cidr: {error}", *path) from error


def _within(text: str, networks: list[IPv4Network | IPv6Network]) -> bool:
    """An IPv4 address written as IPv6 is not in an IPv4 network; leading zeros are no address."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return any(address in network for network in networks)


def _exists(name: str, argument: JSON) -> Operator:
    if not isinstance(argument, bool):
        raise OperatorError("exists takes true or false")
    return Operator(name, argument, "any", lambda value: True)


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
    "prefix": _prefix,
    "suffix": _suffix,
    "contains": _contains,
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
