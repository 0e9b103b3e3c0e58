"""What a person calls things: from a name to the event, and a helpful sentence where there is none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast
from uuid import UUID

from eventflow.cli.ruleset import current, stored, unknown
from eventflow.context import context_of
from eventflow.errors import RuleSetError, SourceError, UsageError
from eventflow.event import EVENTFLOW_SOURCE
from eventflow.store.dead_letters import find_letter, find_place
from eventflow.store.pool import Connection, Pool
from eventflow.store.views.causes import find_firing
from eventflow.store.views.events import View, find_event, seen
from eventflow.store.views.ids import UnknownName
from eventflow.store.views.runs import find_run

if TYPE_CHECKING:
    from eventflow.offers import Locating


async def event_named(pool: Pool, name: str) -> UUID:
    """The uid of the event that `name` stands for.

    Raises `UsageError`. Where `name` is a dead letter, a run, a firing, the place of a record that became a
    dead letter, or a file that a source has not taken in, it says so.
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
        (find_place, "no event but a dead letter", "eventflow dlq show {}"),
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


async def listed(
    pool: Pool,
    question: Callable[[Connection], Awaitable[View]],
    *,
    source: str | None = None,
    rule: str | None = None,
    workflow: str | None = None,
) -> View:
    """The rows that a list command asks for; where there is none, its filters must name what there is.

    Raises as `refuse_unknown`.
    """
    async with pool.acquire() as conn:
        rows = await question(conn)
    if not rows:
        await refuse_unknown(pool, source=source, rule=rule, workflow=workflow)
    return rows


async def refuse_unknown(
    pool: Pool, *, source: str | None = None, rule: str | None = None, workflow: str | None = None
) -> None:
    """Raise `UsageError` for a name that neither the current rule set nor the past has."""
    if source is rule is workflow is None:
        return
    try:
        ruleset = (await stored(pool)).current
    except RuleSetError:  # it needs something that is not on this machine
        return
    async with pool.acquire() as conn:
        past = await seen(conn, source=source, rule=rule, workflow=workflow)
    for kind, name, known in (
        ("source", source, {EVENTFLOW_SOURCE, *ruleset.sources}),
        ("rule", rule, {one.name for one in ruleset.rules}),
        ("workflow", workflow, {*ruleset.workflows}),
    ):
        if name is not None and name not in known and not past[kind]:
            raise unknown(kind, name, known, f"revision {ruleset.revision} and in the past")
