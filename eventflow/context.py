"""What the core hands to a source when it is made: its ledger, secrets, expressions, time and beginning."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime

from eventflow.errors import Undecodable
from eventflow.event import JSON
from eventflow.expression import EvaluationError, Expression, VarType, activate
from eventflow.rulefile.ruleset import SourceSpec
from eventflow.secret import secret
from eventflow.source import Known, Predicate, SourceContext
from eventflow.store import intake, ownership
from eventflow.store.pool import Pool


def predicate(text: str, variables: Sequence[str]) -> Predicate:
    """Compile a connector's expression; evaluated, it raises `Undecodable` where it ends in an error."""
    compiled = Expression.compile(text, dict.fromkeys(variables, VarType.any))

    def evaluate(values: Mapping[str, JSON]) -> JSON:
        try:
            return compiled.evaluate(activate(values))
        except EvaluationError as error:
            raise Undecodable(f"{text}: {error}") from error

    return evaluate


def machine_time() -> datetime:
    """For commands, which decide nothing by it."""
    return datetime.now(UTC)


def context_of(spec: SourceSpec, pool: Pool, now: Callable[[], datetime] = machine_time) -> SourceContext:
    """What the core hands to the source that `spec` configures."""

    async def known(items: Sequence[bytes]) -> Mapping[bytes, Known]:
        async with pool.acquire() as conn:
            return await intake.known(conn, spec.name, items)

    async def known_all() -> AsyncIterator[tuple[bytes, Known]]:
        after: bytes | None = b""
        while after is not None:
            async with pool.acquire() as conn:
                page, after = await intake.known_page(conn, spec.name, after)
            for entry in page:
                yield entry

    async def began_with(partitions: Sequence[str]) -> Collection[str]:
        async with pool.acquire() as conn:
            return await ownership.began_with(conn, spec.name, partitions)

    return SourceContext(spec.folder, known, known_all, secret, predicate, now, began_with)


def context_without_store(spec: SourceSpec) -> SourceContext:
    """The same for `check`, which has no database: the ledger is empty, and nothing has begun."""

    async def known(items: Sequence[bytes]) -> Mapping[bytes, Known]:
        return {}

    async def known_all() -> AsyncIterator[tuple[bytes, Known]]:
        return
        yield

    async def began_with(partitions: Sequence[str]) -> Collection[str]:
        return partitions

    return SourceContext(spec.folder, known, known_all, secret, predicate, machine_time, began_with)
