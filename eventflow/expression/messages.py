"""The CEL library's messages, in our words where they are plainer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Final

from eventflow.expression.values import ExpressionError

_POSITION: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_STATUS: Final = re.compile(r"^[A-Z_]+: | \[[A-Z_]+\]$")
_MISSING: Final = re.compile(
    r'Key not found in map : "?(.*?)"?|No value with name "(.*)" found in Activation'
)
_OVERLOAD: Final = re.compile(r"No matching overloads? found : ([^\s(]+)(?:\((.*)\))?")
_APPLIED: Final = re.compile(r"found no matching overload for '(.+)' applied to '\((.*)\)'")
_METHOD: Final = re.compile(r"\.\s*(\w+)\s*\(?$")

_INSTEAD: Final[Mapping[str, str]] = {
    "and": "&&",
    "or": "||",
    "not": "!",
    "is": "==",
    "=": "==",
    "&": "&&",
    "|": "||",
}
"""What other languages write, and what CEL writes."""
_NAMED: Final[Mapping[str, str]] = {
    "none": "null", "nil": "null", "true": "true", "false": "false",
    "len": "size", "length": "size", "count": "size", "str": "string", "float": "double",
    "startswith": "startsWith", "endswith": "endsWith", "includes": "contains",
}  # fmt: skip
_CALLABLE: Final = (
    "startsWith", "endsWith", "contains", "matches", "size", "has", "all", "exists", "exists_one", "map",
    "filter", "int", "double", "string", "bool", "timestamp", "duration",
)  # fmt: skip
"""Functions and macros of CEL, for did-you-mean."""
_TYPES: Final[Mapping[str, str]] = {
    "string": "a string", "int64": "an int", "int": "an int", "uint64": "a uint", "double": "a double",
    "bool": "a bool", "list": "a list", "map": "a map", "null_type": "null", "bytes": "bytes",
    "dyn": "any value", "google.protobuf.Timestamp": "a timestamp", "google.protobuf.Duration": "a duration",
}  # fmt: skip
_MANY: Final = 12


def compile_error(text: str, source: str, variables: Iterable[str]) -> ExpressionError:
    """What the library says about `source`, with the position of the first error."""
    found = _POSITION.search(text)
    if found is None:
        bad = "incompatible function arguments" in text
        return ExpressionError("text that is not valid Unicode" if bad else reason(text))
    line, column = int(found[1]), max(int(found[2]), 1)
    row = (source.split("\n")[line - 1 :] or [""])[0]
    message = found[3].partition(" (in container")[0]
    if message.startswith("undeclared reference to"):
        path = message.split("'")[1]
        name = path.partition(".")[0]
        # The library points at the dot behind an unknown name, and at the bracket behind a function's.
        begin = row.rfind(name, 0, column)
        called = row[begin + len(path) :].lstrip().startswith("(") if begin >= 0 else False
        said = _unknown_function(name) if called or _METHOD.search(row[:column]) else ""
        return ExpressionError(said or _unknown(path, variables), line, begin + 1 if begin >= 0 else column)
    if message.startswith("Syntax error: "):
        return _syntax_error(message.removeprefix("Syntax error: "), row, line, column)
    if applied := _APPLIED.fullmatch(message):
        message = f"types that do not fit: {_misfit(applied[1], applied[2])}"
    return ExpressionError(message, line, column)


def reason(text: str) -> str:
    """Why an evaluation ended in an error, without the library's status codes."""
    text = _STATUS.sub("", text.strip())
    if found := _MISSING.fullmatch(text):
        return f"missing field {found[1] or found[2]!r}"
    if text == "Applying SELECT to non-message type":
        return "a field was asked of something that is no map"
    if found := _OVERLOAD.match(text):
        return f"types that do not fit: {_misfit(found[1], found[2])}"
    return text


def _syntax_error(message: str, row: str, line: int, column: int) -> ExpressionError:
    """The parser's words about one place, as a sentence, and where what it is about begins."""
    before = re.search(r"(\w+)\s*$", row[: column - 1])
    if before is not None and before[1].lower() == "not":
        return ExpressionError("CEL has no 'not'; write '!'", line, before.start() + 1)
    if row[max(column - 2, 0) : column] == "<>":
        return ExpressionError("CEL has no '<>'; write '!='", line, column - 1)
    word = re.compile(r"\w+|\S").search(row, column - 1)
    return ExpressionError(_sentence(message, word[0] if word else ""), line, column)


def _sentence(message: str, shown: str) -> str:
    if shown.lower() in _INSTEAD:
        return f"CEL has no '{shown}' here; write '{_INSTEAD[shown.lower()]}'"
    if shown in ("'", '"'):
        return f"the text that begins with {shown} has no end"
    if missing := re.match(r"missing ('.')", message):
        return f"{missing[1]} is missing"
    if "'<EOF>'" in message:
        return "the expression ends too early"
    if re.match(r"(mismatched|extraneous) input|token recognition error|no viable alternative", message):
        return f"{shown!r} cannot stand here"
    return message


def _misfit(function: str, arguments: str | None) -> str:
    """`_>_` and `string, int64` as "`>` between a string and an int"."""
    name = function.replace("@", "").strip("_").replace("_[_]", "[]").replace("[_]", "[]")
    types = [_TYPES.get(one.partition("<")[0], one) for one in (arguments or "").split(", ") if one]
    if function == "<jump_condition>":
        return "the condition before `?` is no bool"
    if function in ("_&&_", "_||_", "!_"):
        return f"`{name}` takes true or false"
    if len(types) == 2 and function.startswith(("_", "@")):
        return f"`{name}` between {types[0]} and {types[1]}"
    shown = f"`{name}`" if function.endswith("_") or function.startswith("@") else f"{name}()"
    return f"{shown} of {' and '.join(types)}" if types else shown


def _unknown_function(name: str) -> str:
    near = _NAMED.get(name.lower()) or next(iter(get_close_matches(name, _CALLABLE, n=1)), None)
    if near == name:
        return f"{name}() does not take these arguments"
    return f"unknown function {name!r}" + (f"; did you mean {near!r}?" if near else "")


def _unknown(path: str, variables: Iterable[str]) -> str:
    name = path.partition(".")[0]
    known = list(variables)
    names = list(dict.fromkeys(variable.partition(".")[0] for variable in known))
    if name in names:
        below = [variable for variable in known if variable.startswith(f"{name}.")]
        return f"unknown name {path!r}; here you may read {', '.join(below)}"
    if name in ("data", "meta") and "event" in names:
        return f"unknown name {name!r}; did you mean 'event.{path}'?"
    near = _NAMED.get(name.lower()) or next(iter(get_close_matches(name, names, n=1)), None)
    if near:
        return f"unknown name {name!r}; did you mean {near!r}?"
    listed = ", ".join(names[:_MANY])
    return f"unknown name {name!r}" + (f"; here you may read {listed}" if listed else "")
