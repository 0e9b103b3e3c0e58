"""Paths into an event: `data.after.id`, odd segments quoted (`data."a.b"`), arrays walked through.

A path has no array index. Where it meets an array it goes on in every element, arrays inside arrays
likewise, so one path may lead to several values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, cast

from eventflow.event import JSON, Event
from eventflow.expression import time_text

ATTRIBUTES: Final = (
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "data",
    "meta",
)
_PLAIN_SEGMENT: Final = re.compile(r"[\w-]+")
_QUOTED_SEGMENT: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(r'\\(["\\])')
_EXTENSION: Final = re.compile(r"[a-z0-9]+")


class PathError(ValueError):
    """A path that cannot be read."""


class Missing:
    """The type of `MISSING`: no value, which is not null."""

    def __repr__(self) -> str:
        return "missing"


MISSING: Final = Missing()


@dataclass(frozen=True, slots=True)
class Path:
    """`text` as written, `segments` without quotes."""

    text: str
    segments: tuple[str, ...]

    def __str__(self) -> str:
        return self.text


def parse_path(text: str) -> Path:
    """Read a path that starts anywhere. Raises `PathError`."""
    segments: list[str] = []
    at = 0
    while True:
        if found := _QUOTED_SEGMENT.match(text, at):
            segments.append(_ESCAPED.sub(r"\1", found[1]))
        elif found := _PLAIN_SEGMENT.match(text, at):
            segments.append(found[0])
        else:
            raise PathError(_unreadable(text, at))
        at = found.end()
        if at == len(text):
            return Path(text, tuple(segments))
        if text[at] != ".":
            raise PathError(_unreadable(text, at))
        at += 1


def parse_event_path(text: str) -> Path:
    """Read a path that starts at an event: an attribute, an extension, or into `data` or `meta`."""
    path = parse_path(text)
    first, deep = path.segments[0], len(path.segments) > 1
    if first in ("data", "meta"):
        return path
    if first in ATTRIBUTES:
        if deep:
            raise PathError(f"{first!r} has no fields, so {text!r} leads nowhere")
        return path
    if first == "ingested":
        raise PathError("'ingested' is not known to a pattern; use `where` or a window")
    if deep or not _EXTENSION.fullmatch(first):
        near = get_close_matches(first, ATTRIBUTES, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else f"; did you mean 'data.{text}'?"
        raise PathError(f"a path starts with an attribute of the event, and {first!r} is none{meant}")
    return path


def near_attribute(path: Path) -> str | None:
    """The attribute that an extension's name looks like a slip of."""
    if path.segments[0] in ATTRIBUTES:
        return None
    near = get_close_matches(path.segments[0], ATTRIBUTES, n=1, cutoff=0.7)
    return near[0] if near else None


def reach(root: JSON | Event, path: Path) -> list[JSON]:
    """Every value `path` leads to, arrays at its end not yet opened. Empty: the field is missing.

    `root` is an event, or for paths inside `any` the array's element.
    """
    segments = path.segments
    if isinstance(root, Event):
        values, segments = [attribute(root, segments[0])], segments[1:]
    else:
        values = [root]
    for segment in segments:
        values = [
            cast(dict[str, Any], element).get(segment, MISSING)
            for value in values
            for element in elements(value)
            if isinstance(element, dict)
        ]
    return [value for value in values if value is not MISSING]


def elements(value: JSON) -> Iterator[JSON]:
    """The elements of an array, arrays inside it opened too; of anything else the value itself."""
    if isinstance(value, list):
        for element in cast(list[Any], value):
            yield from elements(element)
    else:
        yield value


def attribute(event: Event, name: str) -> JSON | Missing:
    """An attribute or extension of an event. `source` is the sender's own where it gave one."""
    if name == "source":
        return event.sender or event.source
    if name == "time":
        return MISSING if event.time is None else time_text(event.time)
    if name in ATTRIBUTES:
        value = getattr(event, name)
        return MISSING if value is None and name != "data" else value
    return event.extensions.get(name, MISSING)


def _unreadable(text: str, at: int) -> str:
    if text[at : at + 1] == "[":
        return f"{text!r}: a path has no array index; a condition on an array holds if one element does"
    if at == len(text) or text[at] == ".":
        return f"{text!r}: a path is names with single dots between them"
    if text[at] == '"':
        return f"{text!r}: a quoted segment that is not closed"
    return f'{text!r}: {text[at]!r} needs quotes, as in data."a b"'
