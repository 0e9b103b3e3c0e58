"""What connectors bring, found through entry points, ours and everybody else's: sources and kinds of task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from eventflow.errors import UsageError
from eventflow.rulefile.words import TASK
from eventflow.source import Source
from eventflow.task import Kind

GROUP = "eventflow.sources"
TASK_GROUP = "eventflow.tasks"

Brought = TypeVar("Brought")


class ConnectorUnavailable(UsageError):
    """A connector is known but does not import here."""


class Connectors(Mapping[str, type[Brought]]):
    """Classes by name, imported when first asked for: a rule set pays for those it uses.

    Looking one up raises `ConnectorUnavailable` where a library it needs is missing.
    """

    def __init__(self, points: Mapping[str, EntryPoint], what: str = "connector") -> None:
        self._points = points
        self._what = what
        self._loaded: dict[str, type[Brought]] = {}

    def __getitem__(self, name: str) -> type[Brought]:
        if name not in self._loaded:
            self._loaded[name] = self._load(self._points[name])
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._points

    def __iter__(self) -> Iterator[str]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)

    def _load(self, point: EntryPoint) -> type[Brought]:
        try:
            loaded: type[Brought] = point.load()
        except ImportError as error:
            package = point.dist.name if point.dist else "its package"
            extra = point.extras[0] if point.extras else point.name
            raise ConnectorUnavailable(
                f"{self._what} '{point.name}' does not import here: {error}; install {package}[{extra}]"
            ) from error
        return loaded


def find_connectors() -> Mapping[str, type[Source]]:
    """Every connector installed here."""
    return Connectors[Source]({point.name: point for point in entry_points(group=GROUP)})


@cache
def find_kinds() -> Mapping[str, type[Kind]]:
    """Every kind of task installed here; a word that tasks have anyway keeps its meaning."""
    points = {point.name: point for point in entry_points(group=TASK_GROUP) if point.name not in TASK.now}
    return Connectors[Kind](points, "kind of task")
