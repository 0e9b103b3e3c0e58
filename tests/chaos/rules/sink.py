"""The tasks of the kill run: they write to a file outside eventflow's database, and wait for the disk."""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any


def write(ctx: Any, rule: str, key: str, phase: str) -> dict[str, int]:
    """One line, appended whole and flushed to the disk; the task's result names the attempt that made it."""
    line = {
        "rule": rule, "key": key, "run": str(ctx.run_id), "task": ctx.task, "attempt": ctx.attempt,
        "idempotency": ctx.idempotency_key, "phase": phase,
    }  # fmt: skip
    file = os.open(os.environ["CHAOS_SINK"], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
        os.fsync(file)
    finally:
        os.close(file)
    return {"attempt": ctx.attempt}


async def note(ctx: Any, rule: str, key: str) -> dict[str, int]:
    write(ctx, rule, key, "start")
    await asyncio.sleep(0)
    return write(ctx, rule, key, "end")


def work(ctx: Any, rule: str, key: str) -> dict[str, int]:
    write(ctx, rule, key, "start")
    time.sleep(0.02)
    return write(ctx, rule, key, "end")


def profile(ctx: Any, rule: str, key: str, path: str) -> dict[str, int]:
    return work(ctx, rule, key)


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
    """Longer than a lease and a rescue leave, so that two attempts overlap when their node was stopped."""
    write(ctx, rule, key, "start")
    await asyncio.sleep(2.5)
    return write(ctx, rule, key, "end")


def slow_process(ctx: Any, rule: str, key: str) -> dict[str, int]:
    write(ctx, rule, key, "start")
    time.sleep(2.5)
    return write(ctx, rule, key, "end")
