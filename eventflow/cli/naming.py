"""From what a person calls an event to its uid; and where it is something else, a sentence that says what."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from uuid import UUID

from eventflow.cli.ruleset import current
from eventflow.errors import SourceError, UsageError
from eventflow.sources import context_of
from eventflow.store.dead_letters import find_letter
from eventflow.store.pool import Connection, Pool
from eventflow.store.views.causes import find_firing
from eventflow.store.views.events import find_event
from eventflow.store.views.ids import UnknownName
from eventflow.store.views.runs import find_run

if TYPE_CHECKING:
    from eventflow.source import Locating


async def event_named(pool: Pool, name: str) -> UUID:
    """The uid of the event that `name` stands for.

    Raises `UsageError`. Where `name` is a dead letter, a run, a firing, or a file that a source has not taken
    in, it says so.
    """
    async with pool.acquire() as conn:
        try:
            return await find_event(conn, name)
        except UnknownName as error:
            unknown = error
        instead = await _something_else(conn, name)
    instead = instead or await _file(pool, name)
    raise (UsageError(instead) if instead else unknown)


async def _something_else(conn: Connection, name: str) -> str | None:
    for find, what, command in (
        (find_letter, "no event but a dead letter", "eventflow dlq show {}"),
        (find_run, "no event but a run", "eventflow runs show {}"),
        (find_firing, "no event but a firing", "eventflow firings --json"),
    ):
        try:
            found = await find(conn, name)
        except UsageError:
            continue
        return f"{name!r} is {what}; `{command.format(found)}` says more"
    return None


async def _file(pool: Pool, name: str) -> str | None:
    """What the sources that know their items by name say of it."""
    ruleset = await current(pool)
    told: list[str] = []
    for spec in ruleset.sources.values():
        if not hasattr(spec.factory, "locate"):
            continue
        source = cast("Locating", spec.factory(spec.name, spec.config, context_of(spec, pool)))
        try:
            reason = await source.locate(name)
        except SourceError as error:
            reason = f"cannot be asked: {error}"
        if reason:
            told.append(f"source '{spec.name}': {reason}")
    return f"no event {name!r}; {'; '.join(told)}" if told else None
