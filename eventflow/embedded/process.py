"""What runs under a pid: pid files outlive their process, and pids are given out again."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")


def command_line(pid: int) -> str | None:
    """The arguments of a running process, separated by blanks; None where it is gone or a zombie.

    A zombie is dead: it holds no file and no memory, and waits only for a parent that may never ask.
    """
    if _PROC.joinpath("self").exists():
        return _from_proc(pid)
    return _from_ps(pid)


def _from_proc(pid: int) -> str | None:
    try:
        stat = _PROC.joinpath(str(pid), "stat").read_text(errors="replace")
        arguments = _PROC.joinpath(str(pid), "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in parentheses and may hold blanks; the state follows it.
    state = stat.rpartition(")")[2].split()[0]
    return None if state in "ZX" else arguments.replace(b"\0", b" ").decode(errors="surrogateescape")


def _from_ps(pid: int) -> str | None:
    shown = subprocess.run(
        ["ps", "-ww", "-o", "state=,command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, command = shown.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else command.strip()
