"""A run's parameters: what is given, checked against what the workflow declares.

They are stored as JSON: a date and a datetime as ISO 8601 text, a duration as `20s`; a task that gets one
as its argument gets `datetime.date`, `datetime.datetime` or `datetime.timedelta`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from difflib import get_close_matches
from typing import Final

from eventflow.errors import UsageError
from eventflow.event import JSON
from eventflow.expression import time_text
from eventflow.units import duration_text, parse_duration
from eventflow.workflow.definition import ParamType, Workflow


class ParamError(UsageError):
    """A parameter that is missing, that nobody declared, or that has the wrong type."""


class _Refused(ValueError):
    """The value is not of the type."""


def bind(workflow: Workflow, values: Mapping[str, JSON]) -> dict[str, JSON]:
    """The parameters a run starts with: converted, defaults filled in, in declared order.

    Raises `ParamError` naming the parameter and the workflow.
    """
    for name in values:
        if name not in workflow.params:
            near = get_close_matches(name, workflow.params, n=1)
            meant = f"; did you mean '{near[0]}'?" if near else ""
            raise ParamError(f"workflow '{workflow.name}' has no parameter '{name}'{meant}")
    bound: dict[str, JSON] = {}
    for param in workflow.params.values():
        if param.name not in values:
            if param.required:
                raise ParamError(f"parameter '{param.name}' of workflow '{workflow.name}' is missing")
            bound[param.name] = None if param.default is None else convert(param.type, param.default)
            continue
        try:
            bound[param.name] = convert(param.type, values[param.name])
        except _Refused as error:
            raise ParamError(f"parameter '{param.name}' of workflow '{workflow.name}' {error}") from None
    return bound


def conversion_error(kind: ParamType, value: JSON) -> str | None:
    """Why `value` cannot be a parameter of this type, as the end of a sentence; None where it can."""
    try:
        convert(kind, value)
    except _Refused as error:
        return str(error)
    return None


def convert(kind: ParamType, value: JSON) -> JSON:
    """`value` in the stored form of its type. Raises `ValueError`; strict: `"1"` is no int, true is not 1."""
    return _CONVERT[kind](value)


def _exactly(name: str, *types: type) -> Callable[[JSON], JSON]:
    def check(value: JSON) -> JSON:
        if type(value) in types:
            return value
        raise _Refused(f"must be {name}, not {_describe(value)}")

    return check


def _int(value: JSON) -> int:
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():
        return int(value)  # CEL's arithmetic on JSON numbers gives doubles
    raise _Refused(f"must be an int, not {_describe(value)}")


def _float(value: JSON) -> float:
    if type(value) in (int, float):
        try:
            return float(value)
        except OverflowError:
            raise _Refused("is beyond the range of a float") from None
    raise _Refused(f"must be a float, not {_describe(value)}")


def _date(value: JSON) -> str:
    """ISO text of a date, or of a moment at midnight UTC (CEL has no dates)."""
    if isinstance(value, str):
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            moment = _moment(value)
            if moment is not None and moment.time() == _MIDNIGHT:
                return moment.date().isoformat()
    raise _Refused(f"must be a date such as 2026-01-31, not {_describe(value)}")


def _datetime(value: JSON) -> str:
    moment = _moment(value) if isinstance(value, str) else None
    if moment is None:
        raise _Refused(
            f"must be a datetime with an offset such as 2026-01-31T06:00:00Z, not {_describe(value)}"
        )
    return time_text(moment)


def _duration(value: JSON) -> str:
    span = parse_duration(value)
    if span is None:
        raise _Refused(f"must be a duration such as 500ms, 20s, 5m, 6h or 7d, not {_describe(value)}")
    return duration_text(span)


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, OverflowError):  # the first and the last day leave the calendar on their way to UTC
        return None


_MIDNIGHT: Final = datetime.min.time()

_CONVERT: Final[Mapping[ParamType, Callable[[JSON], JSON]]] = {
    ParamType.string: _exactly("a string", str),
    ParamType.int: _int,
    ParamType.float: _float,
    ParamType.bool: _exactly("true or false", bool),
    ParamType.date: _date,
    ParamType.datetime: _datetime,
    ParamType.duration: _duration,
    ParamType.list: _exactly("a list", list),
    ParamType.map: _exactly("a map", dict),
    ParamType.json: lambda value: value,
}


def _describe(value: JSON) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f"the text {value[:40]!r}" + ("..." if len(value) > 40 else "")
        case list():
            return "a list"
        case dict():
            return "a map"
        case _:
            return f"the number {value!r}"[:60]
