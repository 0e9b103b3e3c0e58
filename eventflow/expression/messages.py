"""The CEL library's messages, in our words where they are plainer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from eventflow.expression.values import ExpressionError

_POSITION: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_STATUS: Final = re.compile(r"^[A-Z_]+: | \[[A-Z_]+\]$")
_MISSING: Final = re.compile(
    r'Key not found in map : "?(.*?)"?|No value with name "(.*)" found in Activation'
)


def compile_error(text: str, source: str, variables: Iterable[str]) -> ExpressionError:
    """What the library says about `source`, with the position of the first error."""
    found = _POSITION.search(text)
    if found is None:
        bad = "incompatible function arguments" in text
        return ExpressionError("text that is not valid Unicode" if bad else reason(text))
    line, column = int(found[1]), max(int(found[2]), 1)
    message = found[3].partition(" (in container")[0].removeprefix("Syntax error: ")
    if message.startswith("undeclared reference to"):
        name = message.split("'")[1].partition(".")[0]
        # The library points at the dot behind an unknown name.
        begin = source.split("\n")[line - 1].rfind(name, 0, column)
        return ExpressionError(_unknown(name, variables), line, begin + 1 if begin >= 0 else column)
    if message.startswith("mismatched input"):
        message = message.partition(" expecting ")[0]
    return ExpressionError(message, line, column)


def reason(text: str) -> str:
    """Why an evaluation ended in an error, without the library's status codes."""
    text = _STATUS.sub("", text.strip())
    if found := _MISSING.fullmatch(text):
        return f"missing field {found[1] or found[2]!r}"
    if text == "Applying SELECT to non-message type":
        return "a field was asked of something that is no map"
    if found := re.match(r"No matching overloads? found : (.*)", text):
        return f"types that do not fit: {found[1]}"
    return text


def _unknown(name: str, variables: Iterable[str]) -> str:
    near = get_close_matches(name, {variable.partition(".")[0] for variable in variables}, n=1)
    return f"unknown name {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
