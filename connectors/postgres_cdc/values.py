"""A column's text, as Postgres writes it, as a JSON value: by the OID of its type.

| type | value |
|---|---|
| boolean | true, false |
| smallint, integer, bigint, oid | an exact integer |
| real, double precision | a number; NaN and infinity as text |
| numeric | a number where that is exact (integers up to 100 digits, else 15 digits), else text |
| json, jsonb | what it says |
| bytea | base64 |
| timestamp, timestamptz | ISO 8601 with T; the latter in UTC with Z |
| arrays of these | lists |
| everything else | text |

The session must write ISO dates, UTC and hexadecimal bytea: `SETTINGS` in `replication.py`.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable
from typing import Any, Final

from eventflow.event import JSON, decode_json

Converter = Callable[[bytes], JSON]
"""Bytes in UTF-8 to a JSON value. Raises `ValueError` or `Undecodable` where they are none."""

_MAX_DIGITS: Final = 100
"""Of an integer: JSON with longer ones is not read."""
_EXACT_DIGITS: Final = 15
"""Every decimal number of so many digits comes back from a double as it was."""
_TIMESTAMP: Final = re.compile(r"\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?(\+00)?")
_C: Final = ord("C")
_INTEGER: Final = re.compile(rb"-?\d+")


# Methods of built-in types: a call into Python for each value of each row would be most of the work.
_text: Final[Converter] = bytes.decode
_boolean: Final[Converter] = b"t".__eq__


def _float(value: bytes) -> JSON:
    number = float(value)
    return number if math.isfinite(number) else _text(value)


def _numeric(value: bytes) -> JSON:
    if len(value) <= _EXACT_DIGITS:
        if b"." not in value:
            return int(value) if value[-1] <= 0x39 else _text(value)  # NaN and Infinity end in letters
        return float(value)
    if _INTEGER.fullmatch(value):
        return int(value) if len(value) <= _MAX_DIGITS else _text(value)
    digits = value.lstrip(b"-0.").rstrip(b"0").replace(b".", b"").rstrip(b"0")
    return float(value) if len(digits) <= _EXACT_DIGITS else _text(value)


def _json(value: bytes) -> JSON:
    """Two levels deeper than it stands alone, as in an event's data: it must be readable there."""
    return decode_json(b"[[%b]]" % value)[0][0]


def _bytea(value: bytes) -> JSON:
    return base64.b64encode(bytes.fromhex(value[2:].decode("ascii"))).decode("ascii")


def _timestamp(value: bytes) -> JSON:
    if value[10:11] != b" " or value[-1] == _C:  # infinity, a year of five digits, before the year 1
        return _odd_timestamp(value)
    return f"{value[:10].decode()}T{value[11:].decode()}"


def _timestamptz(value: bytes) -> JSON:
    if value[10:11] != b" " or value[-3:] != b"+00":
        return _odd_timestamp(value)
    return f"{value[:10].decode()}T{value[11:-3].decode()}Z"


def _odd_timestamp(value: bytes) -> JSON:
    text = value.decode()
    found = _TIMESTAMP.fullmatch(text)
    if not found:
        return text
    return text.removesuffix("+00").replace(" ", "T") + ("Z" if found[1] else "")


_BY_OID: Final[dict[int, Converter]] = {
    16: _boolean,
    17: _bytea,
    20: int, 21: int, 23: int, 26: int,
    114: _json, 3802: _json,
    700: _float, 701: _float,
    1700: _numeric,
    1114: _timestamp, 1184: _timestamptz,
}  # fmt: skip

_ELEMENT_OF: Final = {
    1000: 16, 1001: 17, 1016: 20, 1005: 21, 1007: 23, 1028: 26, 199: 114, 3807: 3802, 1021: 700, 1022: 701,
    1231: 1700, 1115: 1114, 1185: 1184,
    # As text: "char" name text bpchar varchar uuid date time timetz interval inet cidr macaddr money
    1002: 25, 1003: 25, 1009: 25, 1014: 25, 1015: 25, 2951: 25, 1182: 25, 1183: 25, 1270: 25, 1187: 25,
    1041: 25, 651: 25, 1040: 25, 791: 25,
}  # fmt: skip
"""Array types by OID, and the type of their elements. All separate elements by commas."""

_TOKEN: Final = re.compile(rb'[{},]|"((?:[^"\\]|\\.)*)"|([^{},"]+)', re.DOTALL)
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)


def converter(oid: int) -> Converter:
    """What makes a JSON value of a column of this type."""
    element = _ELEMENT_OF.get(oid)
    if element is None:
        return _BY_OID.get(oid, _text)
    convert = _BY_OID.get(element, _text)
    return lambda value: _array(value, convert)


def _array(value: bytes, convert: Converter) -> JSON:
    """Postgres' array literal, nested as deep as it has dimensions; bounds (`[2:3]={...}`) are dropped."""
    stack: list[list[Any]] = [[]]
    for token in _TOKEN.finditer(value, value.index(b"{")):
        match token[0]:
            case b"{":
                stack.append([])
            case b"}":
                inner = stack.pop()
                stack[-1].append(inner)
            case b",":
                pass
            case b"NULL":
                stack[-1].append(None)
            case bare if token[1] is None:
                stack[-1].append(convert(bare))
            case _:
                stack[-1].append(convert(_ESCAPED.sub(rb"\1", token[1])))
    return stack[0][0]
