"""`${secret.NAME}` in the words of a connector's block, filled in where the word is used."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

SECRET_HOLE: Final = re.compile(r"\$\{\s*secret\.([A-Za-z_][A-Za-z0-9_]*)\s*\}")
"""Group 1 is the secret's name."""


def fill(text: str, secret: Callable[[str], str]) -> str:
    """`text` with every `${secret.NAME}` replaced by `secret(NAME)`, whose errors pass through."""
    return SECRET_HOLE.sub(lambda found: secret(found[1]), text)
