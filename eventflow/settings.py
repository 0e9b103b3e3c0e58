"""Settings of a process, from `EVENTFLOW_*` variables. Everything else is in rule files or in Postgres."""

from __future__ import annotations

import os
from datetime import timedelta
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from eventflow.errors import UsageError
from eventflow.units import Duration

DEFAULT_HTTP: Final = "127.0.0.1:8642"


class LogFormat(StrEnum):
    """`console` is for people, `json` for what collects logs."""

    console = "console"
    json = "json"


def data_home() -> Path:
    """Where a program keeps a user's data (XDG Base Directory Specification)."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "eventflow"


def _folder(value: Any) -> Any:
    return Path(value).expanduser().absolute() if isinstance(value, str) and value else value


class Settings(BaseSettings):
    """One field per variable: `EVENTFLOW_LEASE` is `lease`. An empty variable counts as not set."""

    model_config = SettingsConfigDict(env_prefix="EVENTFLOW_", env_ignore_empty=True, frozen=True)

    database_url: Annotated[str | None, Field(pattern=r"^postgres(ql)?://")] = None
    http: str = DEFAULT_HTTP
    data: Annotated[Path, BeforeValidator(_folder)] = Field(default_factory=data_home)
    log: LogFormat = LogFormat.console
    lease: Duration = timedelta(seconds=30)
    grace: Duration = timedelta(seconds=30)
    retention: Duration = timedelta(days=30)
    allow_unsafe_durability: bool = False

    @property
    def http_explicit(self) -> bool:
        """Whether the address was asked for by name: then a busy port is an error."""
        return "http" in self.model_fields_set

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on. Raises `UsageError`."""
        host, colon, port = self.http.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
            raise UsageError(f"EVENTFLOW_HTTP: cannot use {self.http!r}; it takes {_TAKES['http']}")
        return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - `:8642` asks for all addresses


_TAKES: Final = {
    "database_url": "a URL such as postgresql://me:secret@db.example:5432/flows",
    "log": "console or json",
    "http": f"HOST:PORT, such as {DEFAULT_HTTP}",
    "data": "the path of a folder",
    "lease": "a duration such as 30s",
    "grace": "a duration such as 30s",
    "retention": "a duration such as 30d",
    "allow_unsafe_durability": "true or false",
}


_NOT_OURS: Final = frozenset(f"EVENTFLOW_{name}" for name in ("RUN_ID", "TASK", "ATTEMPT", "IDEMPOTENCY_KEY"))
"""What shell tasks are given; one of them may be an eventflow command."""


def load_settings() -> Settings:
    """Read the environment. Raises `UsageError` naming every variable that cannot be used."""
    try:
        settings = Settings()
    except ValidationError as error:
        raise UsageError("\n".join(_sentence(problem["loc"]) for problem in error.errors())) from None
    _ = settings.address  # a wrong one is found before anything has started
    return settings


def unknown_variables() -> dict[str, str | None]:
    """Variables that look like settings and are none, each with the setting it may have been meant for."""
    known = {f"EVENTFLOW_{name.upper()}" for name in Settings.model_fields}
    strangers = {name for name in os.environ if name.startswith("EVENTFLOW_")} - known - _NOT_OURS
    return {
        name: next(iter(get_close_matches(name, known, n=1)), None)
        for name in sorted(strangers)
        if not name.startswith("EVENTFLOW_TEST_")
    }


def _sentence(place: tuple[int | str, ...]) -> str:
    name = str(place[0])
    variable = f"EVENTFLOW_{name.upper()}"
    # A URL may hold a password: what was given is not repeated.
    given = "" if name == "database_url" else f" {os.environ.get(variable)!r}"
    return f"{variable}: cannot use{given or ' it'}; it takes {_TAKES[name]}"
