"""Logs: one line per fact, whatever a name in it holds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from eventflow.settings import LogFormat

SAY = r"""
import logging, sys, structlog
from eventflow.log import configure_logging
from eventflow.settings import LogFormat

configure_logging(LogFormat(sys.argv[1]))
hostile = "a\x1b[2Jb\nfake\x85c\u202ed"
structlog.get_logger().warning("taken", path=hostile, paths=[hostile], n=1)
logging.getLogger("library").warning("from a library: %s", hostile)
try:
    raise ValueError(hostile)
except ValueError:
    structlog.get_logger().exception("loop_failed")
"""


@pytest.mark.parametrize("form", list(LogFormat))
def test_names_from_outside_steer_no_terminal_and_forge_no_line(form: LogFormat) -> None:
    ran = subprocess.run([sys.executable, "-c", SAY, form], capture_output=True, check=True)
    said = ran.stderr.decode()
    assert not [c for c in said if not c.isprintable() and c != "\n"]
    lines = said.splitlines()
    assert "taken" in lines[0]
    assert "from a library" in lines[1]
    assert "loop_failed" in lines[2]
    assert "Traceback" in said
