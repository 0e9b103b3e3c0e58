"""Python's collector of reference cycles, set for a process that makes records by the thousand.

Records are trees: they are freed the moment nobody holds them, without any collector. But each batch holds
tens of thousands of maps and lists, and by its default settings the collector looks through all of them
several times before the batch is committed: a third of the time that a record takes.
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG: Final = 50_000
"""Containers made, less those freed, between two looks at the young ones; Python's default is 700.

Much more saves nothing more, and what cycles hold is held for longer.
"""


def collect_rarely() -> None:
    """For the whole process: leave out what is there now, and look at the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 10, 10)
