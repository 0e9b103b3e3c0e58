"""Connectors, found through the entry points `eventflow.sources`: ours and everybody else's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points

from eventflow.errors import UsageError
from eventflow.source import Source

GROUP = "eventflow.sources"


class ConnectorUnavailable(UsageError):
    """A connector is known but does not import here."""


class Connectors(Mapping[str, type[Source]]):
    """Connector classes by name, imported when first asked for: a rule set pays for those it uses.

    Looking one up raises `ConnectorUnavailable` where a library it needs is missing.
    """

    def __init__(self, points: Mapping[str, EntryPoint]) -> None:
        self._points = points
        self._loaded: dict[str, type[Source]] = {}

    def __getitem__(self, name: str) -> type[Source]:
        if name not in self._loaded:
            self._loaded[name] = _load(self._points[name])
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._points

    def __iter__(self) -> Iterator[str]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)


def find_connectors() -> Mapping[str, type[Source]]:
    """Every connector installed here."""
    return Connectors({point.name: point for point in entry_points(group=GROUP)})


def _load(point: EntryPoint) -> type[Source]:
    try:
        loaded: type[Source] = point.load()
    except ImportError as error:
        package = point.dist.name if point.dist else "its package"
        extra = point.extras[0] if point.extras else point.name
        raise ConnectorUnavailable(
            f"connector '{point.name}' does not import here: {error}; install {package}[{extra}]"
        ) from error
    return loaded
