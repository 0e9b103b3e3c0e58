"""The words of a file source in a rule file."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from connectors.file.pattern import PathPattern
from eventflow.source import Duration

_HOLE = "{path}"


class Settle(BaseModel):
    """When a file counts as whole: unchanged for `quiet`, or once its `marker` is there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    quiet: Duration | None = None
    marker: str | None = None

    @field_validator("marker")
    @classmethod
    def _one_hole(cls, marker: str | None) -> str | None:
        if marker is None:
            return None
        if marker.count(_HOLE) != 1 or marker == _HOLE:
            raise ValueError('a marker is a name made from {path}, such as "{path}.done"')
        if marker.startswith("/") or ".." in marker.split("/"):
            raise ValueError("a marker stays below the source's folder")
        return marker

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.quiet is None) == (self.marker is None):
            raise ValueError('say either {quiet: 2s} or {marker: "{path}.done"}')
        return self


class FileConfig(BaseModel):
    """A folder, what of it to take, and when.

    `path` is relative to the rule file. `removed` asks for `file.removed` events. `watch: poll` never
    uses inotify; `auto` uses it where it works. `rescan` is how often the folder is compared with the
    ledger whatever the kernel said.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(min_length=1)
    initial: Literal["process", "ignore"]
    pattern: str = "**"
    settle: Settle = Field(default=Settle(quiet=timedelta(seconds=2)), examples=[{"quiet": "2s"}])
    identity: Literal["content", "stat"] = "content"
    removed: bool = Field(default=False, strict=True)
    watch: Literal["auto", "poll"] = "auto"
    rescan: Duration = timedelta(seconds=60)

    @field_validator("path", "pattern")
    @classmethod
    def _no_holes(cls, text: str) -> str:
        if "${" in text:
            raise ValueError("there is nothing to fill a ${} with here; write it out")
        return text

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        PathPattern(pattern)
        return pattern

    @field_validator("rescan")
    @classmethod
    def _positive(cls, rescan: timedelta) -> timedelta:
        if rescan <= timedelta(0):
            raise ValueError("rescan must be longer than nothing")
        return rescan
