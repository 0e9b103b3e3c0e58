"""`${secret.NAME}` in a rule file: from the environment, or from a file that the environment names."""

from __future__ import annotations

import os
from pathlib import Path

from eventflow.errors import SourceUnavailable


def secret(name: str) -> str:
    """The value of NAME, or the content of the file that NAME_FILE names, without its last newline.

    Read at every use, so a rotated secret needs no restart. Raises `SourceUnavailable` naming it.
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
        return Path(path).read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeError) as error:
        raise SourceUnavailable(f"secret {name}: cannot read {path}: {error}") from error
