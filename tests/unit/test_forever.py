"""A loop that goes on through everything it raises ends all the same when it is told to."""

from __future__ import annotations

import asyncio

import pytest

from eventflow.forever import forever


async def test_an_error_on_the_way_out_does_not_undo_a_cancellation() -> None:
    begun = asyncio.Event()

    async def step() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("the loop is closed")

    loop = asyncio.create_task(forever("test", step))
    await begun.wait()
    loop.cancel()
    done, _ = await asyncio.wait([loop], timeout=5)
    assert done
    assert loop.cancelled()


async def test_an_error_of_a_step_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventflow.forever._FAILED_SECONDS", 0)
    twice = asyncio.Event()
    calls: list[int] = []

    async def step() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("once")
        twice.set()
        await asyncio.Event().wait()

    loop = asyncio.create_task(forever("test", step))
    await asyncio.wait_for(twice.wait(), 5)
    loop.cancel()
    await asyncio.wait([loop])
    assert loop.cancelled()
