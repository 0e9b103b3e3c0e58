"""What an unquoted word of YAML 1.2 means (core schema, https://yaml.org/spec/1.2.2/#103-core-schema).

`yes`, `on`, `06:00` and `2026-01-01` are text and `017` is 17: YAML 1.1, which PyYAML resolves, says
otherwise, so it is not asked.
"""

from __future__ import annotations

import math
import re

MAX_DIGITS = 100
"""The longest integer that matching compares exactly."""

Value = None | bool | int | float | str

_WORDS: dict[str, Value] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_NOT_NUMBERS = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_MAY_BE_SPECIAL = frozenset("0123456789+-.~tTfFnN")

TAGS = frozenset({"null", "bool", "int", "float", "str"})
"""The scalar tags of the core schema, by what follows `tag:yaml.org,2002:`."""


class ScalarError(ValueError):
    """The word is no value that a rule file may hold; the message says why."""


def plain(text: str) -> Value:
    """The value of an unquoted scalar.

    Raises `ScalarError` for `.nan`, `.inf`, numbers too long to be exact or too large to be finite.
    """
    if text and text[0] not in _MAY_BE_SPECIAL:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _DECIMAL.fullmatch(text):
        return _integer(text, 10)
    if _OTHER_BASE.fullmatch(text):
        return _integer(text, 0)
    if _NOT_NUMBERS.fullmatch(text):
        raise ScalarError(f"{text} is no number that can be compared; write it in quotes if text is meant")
    if _FLOAT.fullmatch(text):
        return _float(text)
    return text


def tagged(kind: str, text: str) -> Value:
    """The value of a scalar with the core tag `!!kind`. Raises `ScalarError` where the text is none."""
    if kind == "str":
        return text
    value = plain(text)
    if kind == "float" and type(value) is int:
        return float(value)
    expected = {"null": type(None), "bool": bool, "int": int, "float": float}[kind]
    if type(value) is not expected:
        raise ScalarError(f"{text!r} is not a value of the tag !!{kind}")
    return value


def _integer(text: str, base: int) -> int:
    if len(text) > MAX_DIGITS + 3 or len(text.lstrip("+-0")) > MAX_DIGITS:
        raise ScalarError(f"a number of {len(text)} digits; {MAX_DIGITS} is the most")
    return int(text, base)


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ScalarError(f"{text} is larger than any finite number")
    return value
