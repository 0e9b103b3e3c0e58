"""The rule set that the database holds, compiled for commands that need to know what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from difflib import get_close_matches

from eventflow.errors import UsageError
from eventflow.rulefile.connectors import find_connectors
from eventflow.rulefile.load import load
from eventflow.rulefile.ruleset import RuleSet
from eventflow.store import rulesets
from eventflow.store.pool import Pool


async def current(pool: Pool) -> RuleSet:
    """The current revision. Raises `UsageError` where none was ever applied."""
    async with pool.acquire() as conn:
        revision = await rulesets.current_revision(conn)
    if revision == 0:
        raise UsageError("this database holds no rule set yet; `eventflow apply PATH` brings one in")
    return await at(pool, revision)


async def at(pool: Pool, revision: int) -> RuleSet:
    """One revision that exists."""
    async with pool.acquire() as conn:
        stored = await rulesets.read(conn, revision)
    return await asyncio.to_thread(
        load, stored.files, folder=stored.folder, connectors=find_connectors(), revision=revision
    )


def unknown(kind: str, name: str, known: Iterable[str], where: str) -> UsageError:
    """`unknown workflow 'lod-orders' in revision 3; did you mean 'load-orders'?`"""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    if near:
        hint = f"did you mean {near[0]!r}?"
    elif names:
        hint = f"it has {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
    else:
        hint = f"it has no {kind}s"
    return UsageError(f"unknown {kind} {name!r} in {where}; {hint}")
