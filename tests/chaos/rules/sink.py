"""The tasks of the kill run: they write to a file outside eventflow's database."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any


def write(ctx: Any, rule: str, key: str, phase: str, content: str = "") -> dict[str, int]:
    """One line, appended whole; the task's result names the attempt that made it.

    Not flushed to the disk: what the kernel has outlives every process, and no machine is switched off.
    """
    line = {
        "rule": rule, "key": key, "run": str(ctx.run_id), "task": ctx.task, "attempt": ctx.attempt,
        "idempotency": ctx.idempotency_key, "phase": phase, "at": time.time(), "process": _node(),
        "content": content,
    }  # fmt: skip
    file = os.open(os.environ["CHAOS_SINK"], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)
    return {"attempt": ctx.attempt}


def _node() -> int:
    """The pid of the node: an `async def` task runs on a thread of it, a `def` task in a child of it."""
    beside = threading.current_thread() is not threading.main_thread()
    return os.getpid() if beside else os.getppid()


async def note(ctx: Any, rule: str, key: str) -> dict[str, int]:
    write(ctx, rule, key, "start")
    await asyncio.sleep(0)
    return write(ctx, rule, key, "end")


def work(ctx: Any, rule: str, key: str) -> dict[str, int]:
    write(ctx, rule, key, "start")
    time.sleep(0.02)
    return write(ctx, rule, key, "end")


def profile(ctx: Any, rule: str, key: str, path: str) -> dict[str, int]:
    """Reads the file. A version that came and went before a later attempt may be gone."""
    write(ctx, rule, key, "start")
    file = Path(path)
    content = hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else ""
    return write(ctx, rule, key, "end", content)


async def load(ctx: Any, rule: str, key: str, seen: int) -> dict[str, int]:
    if seen < 1:
        raise ValueError(f"the result of the task before is not an attempt: {seen}")
    return await note(ctx, rule, key)


async def flaky(ctx: Any, rule: str, key: str) -> dict[str, int]:
    """The first attempt fails; a crash instead of it is forgiven."""
    write(ctx, rule, key, "start")
    if ctx.attempt == 1:
        raise ConnectionError("the first attempt always fails")
    return write(ctx, rule, key, "end")


async def poison(ctx: Any, rule: str, key: str) -> dict[str, int]:
    write(ctx, rule, key, "start")
    raise ValueError("this one always fails")


async def slow(ctx: Any, rule: str, key: str) -> dict[str, int]:
    """Longer than a lease: its lease must be renewed, and two attempts overlap when its node was stopped."""
    write(ctx, rule, key, "start")
    await asyncio.sleep(4)
    return write(ctx, rule, key, "end")


def slow_process(ctx: Any, rule: str, key: str) -> dict[str, int]:
    write(ctx, rule, key, "start")
    time.sleep(4)
    return write(ctx, rule, key, "end")
