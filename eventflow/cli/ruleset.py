"""The rule set that the database holds, compiled for commands that need to know what it says."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from eventflow.errors import UsageError
from eventflow.revisions import Revisions
from eventflow.rulefile.connectors import find_connectors
from eventflow.rulefile.ruleset import RuleSet
from eventflow.settings import load_settings
from eventflow.store.pool import Pool


async def revisions(pool: Pool) -> Revisions:
    """The rule sets of this database, the current one read. Raises `UsageError` where there is none."""
    found = await stored(pool)
    if found.current.revision == 0:
        raise UsageError("this database holds no rule set yet; `eventflow apply PATH` brings one in")
    return found


async def stored(pool: Pool) -> Revisions:
    """The same; where there is none, the empty rule set of revision 0 is current."""
    # Commands execute no task, so the folder where code would be unpacked stays as it is.
    found = Revisions(pool, find_connectors(), load_settings().data / "code")
    await found.refresh()
    return found


async def current(pool: Pool) -> RuleSet:
    """The current revision. Raises `UsageError` where none was ever applied."""
    return (await revisions(pool)).current


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
