"""Pausing a source and letting it go on: where it stood, or over a gap that is written down."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from eventflow.cli.positions import position_text
from eventflow.cli.ruleset import current, unknown
from eventflow.context import context_of
from eventflow.errors import UsageError
from eventflow.event import EVENTFLOW_SOURCE, encode_json
from eventflow.offers import Resumable, Resumption
from eventflow.rulefile.ruleset import SourceSpec
from eventflow.store import pauses
from eventflow.store.pauses import Held
from eventflow.store.pool import Pool
from eventflow.store.signals import Signal, tell


@dataclass(frozen=True, slots=True)
class Move:
    """A partition that goes on elsewhere: where, and the range as JSON text. No range: it goes back."""

    partition: str
    after: str
    missing: str | None


@dataclass(frozen=True, slots=True)
class GoingOn:
    """How many partitions go on, those of them that do so elsewhere, and whether one had stopped at a gap."""

    count: int
    moves: Sequence[Move] = ()
    at_gap: bool = False


async def pause_source(pool: Pool, name: str) -> int:
    """Hold the source back; how many of its partitions were not paused already. Raises `UsageError`."""
    await configured(pool, name)
    async with pool.acquire() as conn:
        count = await pauses.pause(conn, name)
        await tell(conn, Signal.ruleset)
    return count


async def resume_source(pool: Pool, name: str, where: str | None, partition: str | None) -> GoingOn:
    """Let the source go on, at the position named `where` if that is given. Raises `UsageError`."""
    spec = await configured(pool, name)
    await _opened(pool, name)
    async with pool.acquire() as conn:
        held = await pauses.held(conn, name)
    if partition is not None:
        held = [one for one in held if one.partition == partition]
        if not held:
            raise UsageError(f"source '{name}': partition '{partition}' is neither paused nor stopped")
    at_gap = any(one.missing is not None for one in held)
    if where is None:
        async with pool.acquire() as conn:
            count = await pauses.resume(conn, name, partition)
            await tell(conn, Signal.ruleset)
        return GoingOn(count, at_gap=at_gap)
    return await _elsewhere(pool, spec, held, where)


async def _elsewhere(pool: Pool, spec: SourceSpec, held: Sequence[Held], where: str) -> GoingOn:
    held = [one for one in held if one.state == "stopped"] or held
    if not held:
        raise UsageError(
            f"source '{spec.name}' is neither paused nor stopped: --from moves only what nobody reads; "
            f"`eventflow sources pause {spec.name}` first"
        )
    if not hasattr(spec.factory, "resume_at"):
        raise UsageError(
            f"source '{spec.name}': --from is not for the connector '{spec.connector}'; "
            f"`eventflow sources resume {spec.name}` goes on where it stood"
        )
    source = cast("Resumable", spec.factory(spec.name, spec.config, context_of(spec, pool)))
    moves: list[tuple[Held, Resumption]] = [
        (one, await source.resume_at(one.partition, one.cursor, where)) for one in held
    ]
    async with pool.acquire() as conn:
        await pauses.resume_at(conn, spec.name, moves, _who())
        await tell(conn, Signal.ruleset)
    return GoingOn(len(moves), [_move(one, to, spec.factory) for one, to in moves])


def _move(held: Held, to: Resumption, factory: object = None) -> Move:
    missing = None if to.missing is None else encode_json(to.missing).decode()
    return Move(held.partition, position_text(factory, encode_json(to.cursor).decode()), missing)


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


async def configured(pool: Pool, name: str) -> SourceSpec:
    """The source of that name in the current rule set. Raises `UsageError`."""
    if name == EVENTFLOW_SOURCE:
        raise UsageError(
            f"source '{name}' is eventflow's own events and what is replayed: every node takes them in, "
            "and it is neither paused nor resumed nor set up"
        )
    ruleset = await current(pool)
    spec = ruleset.sources.get(name)
    if spec is None:
        raise unknown("source", name, ruleset.sources, f"revision {ruleset.revision}")
    return spec


async def _opened(pool: Pool, name: str) -> None:
    async with pool.acquire() as conn:
        if not await pauses.partitions(conn, name):
            raise UsageError(f"source '{name}' was never opened; `eventflow serve` does that")
