"""Loops that go on through everything they raise: each of them logs once that Postgres is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import structlog

from eventflow.store.failures import is_disconnect

log = structlog.get_logger()

Step = Callable[[], Awaitable[None]]

_AWAY_SECONDS: Final = 0.2
_FAILED_SECONDS: Final = 1.0
_BACK_AFTER_SECONDS: Final = 5.0


async def forever(name: str, step: Step) -> NoReturn:
    """Run `step` again and again, through lost connections and through its own bugs, until cancelled.

    So none of a process's loops ends with another's trouble. A step that has run for a while counts as
    Postgres being back, for one that never returns by itself.
    """
    away = False
    task = asyncio.current_task()
    while True:
        began = asyncio.get_running_loop().time()
        try:
            await step()
            away = False
            if task is not None and task.cancelling():
                raise asyncio.CancelledError  # the step has swallowed it
        except Exception as error:
            # Raised on the way out, it must not undo the cancellation.
            if task is not None and task.cancelling():
                log.warning("loop_ended", loop=name, error=repr(error))
                raise asyncio.CancelledError from error
            away = away and asyncio.get_running_loop().time() - began < _BACK_AFTER_SECONDS
            if not is_disconnect(error):
                log.exception("loop_failed", loop=name)
                await asyncio.sleep(_FAILED_SECONDS)
                continue
            if not away:
                log.warning("postgres_away", loop=name, error=repr(error))
            away = True
            await asyncio.sleep(_AWAY_SECONDS)
