"""`${secret.NAME}` in a rule file: from the environment, or from a file that the environment names."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import structlog

from eventflow.errors import SourceUnavailable

log = structlog.get_logger()

_BOM = "\ufeff"


def secret(name: str) -> str:
    """The value of NAME, or the content of the file that NAME_FILE names, without its last newline.

    Read at every use, so a rotated secret needs no restart. White space around it is part of it, which is
    logged once. Raises `SourceUnavailable` naming it.
    """
    value = os.environ.get(name)
    if value is not None:
        return value
    path = os.environ.get(f"{name}_FILE")
    if path is None:
        raise SourceUnavailable(
            f"secret {name} is not set; set {name}, or {name}_FILE to a file that holds it"
        )
    try:
        value = Path(path).read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeError) as error:
        raise SourceUnavailable(f"secret {name}: cannot read {path}: {error}") from error
    if value.startswith(_BOM) or value != value.strip():
        _doubt(name, path)
    return value


@cache
def _doubt(name: str, path: str) -> None:
    hint = "it begins with a byte order mark, or white space stands around it; write the file without"
    log.warning("secret_in_doubt", secret=name, file=path, hint=hint)
