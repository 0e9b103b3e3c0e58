"""How an event becomes a run: one batch, one transaction. Read this page first.

    source.batches() -> own -> what is new -> decide -> write -> COMMIT -> source.committed()

A batch comes from a source partition that this node owns, from the senders of a pushed source, or from
the outbox of eventflow's own events. One Postgres transaction moves the position, finds what is new,
and writes everything it sets off. Only after COMMIT does the source hear of it. Whatever goes wrong
before, the block runs again with the same batch: deciding is pure, so nothing can happen twice.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol, TypeVar
from uuid import UUID

import structlog

from eventflow.errors import OwnershipLost, RevisionChanged, SourceUnavailable
from eventflow.event import Broken, Event, Record, new_uid
from eventflow.matching.effects import Decision, Taken
from eventflow.matching.match import WHERE_ERROR, decide
from eventflow.rulefile.ruleset import RuleSet
from eventflow.source import Batch, Receipt, Source
from eventflow.store import effects, intake, outbox, ownership
from eventflow.store.failures import is_conflict, is_disconnect, is_refusal
from eventflow.store.intake import AlreadyCommitted, batch_transaction, savepoint
from eventflow.store.ownership import Claim
from eventflow.store.pool import Connection, Pool
from eventflow.store.signals import Signal, Signals

log = structlog.get_logger()

OUTBOX_BATCH: Final = 1_000
MAX_CONFLICTS: Final = 5

Receipts = list[Receipt | None]
T = TypeVar("T")


class Rules(Protocol):
    """The rule set that batches match with; `refresh` when Postgres says it was replaced."""

    @property
    def current(self) -> RuleSet: ...
    async def refresh(self) -> RuleSet: ...


@dataclass(slots=True)
class Work:
    """One batch on its way through the transaction, and what every retry of it must keep the same.

    `receipts` are made once, so that an attempt whose answer was lost named the same rows as the next.
    `careful` is set after Postgres refused the data: then the guilty record is searched for.
    """

    source: str
    partition: str
    batch: Batch
    claim: Claim | None = None
    receipts: Receipts = field(default_factory=list[Receipt | None])
    careful: bool = False

    def __post_init__(self) -> None:
        self.receipts = [intake.receipt(record, new_uid()) for record in self.batch.records]


@dataclass(frozen=True, slots=True)
class Fresh:
    """Records of a batch that are new, each with the uid of its row."""

    records: Sequence[tuple[Record, UUID]]

    def events(self, now: datetime) -> list[Taken]:
        return [Taken(record, uid, now) for record, uid in self.records if isinstance(record, Event)]

    def broken(self) -> list[tuple[Broken, UUID]]:
        return [(record, uid) for record, uid in self.records if isinstance(record, Broken)]


class Ingest:
    """The path of every batch, whoever brings it. One instance per process, safe for many partitions."""

    def __init__(self, pool: Pool, lease: timedelta, rules: Rules, signals: Signals) -> None:
        self._pool = pool
        self._lease = lease
        self._rules = rules
        self._signals = signals
        self._where_failed: set[str] = set()

    # ------------------------------------------------------------------ who brings batches

    async def run_partition(self, source: Source, claim: Claim) -> None:
        """Read, commit and acknowledge a partition that this node owns, until it is lost or stops.

        Raises `OwnershipLost`, or what the source raises.
        """
        async with aclosing(source.batches(claim.partition, claim.cursor)) as batches:
            async for batch in batches:
                await source.committed(batch, await self._until_durable(batch, claim))

    async def run_pushed(self, name: str, source: Source) -> None:
        """Commit what senders push, and answer them; they repeat themselves when told that it failed."""
        async with aclosing(source.batches("", None)) as batches:
            async for batch in batches:
                try:
                    receipts = await self._commit(Work(name, "", batch))
                except Exception as error:
                    log.warning("batch_refused", source=name, records=len(batch.records), error=repr(error))
                    await source.refused(batch, error)
                except asyncio.CancelledError:
                    await source.refused(batch, SourceUnavailable(f"source '{name}' is being stopped"))
                    raise
                else:
                    await source.committed(batch, receipts)

    async def run_outbox(self, poll_seconds: float = 1.0) -> None:
        """Take in eventflow's own events, woken by a signal, with slow polling as the net."""
        news = self._signals.event(Signal.outbox)
        while True:
            news.clear()
            while await self._take_outbox():
                pass
            # Not `wait_for`: in Python 3.11 it loses a cancellation that comes together with the news.
            with suppress(TimeoutError):
                async with asyncio.timeout(poll_seconds):
                    await news.wait()

    # ------------------------------------------------------------------ one transaction

    async def _take_in(self, work: Work) -> Receipts:
        """The transaction. Its round trips: position, what is new (if asked), COPY, all the rest."""
        rules = self._rules.current
        async with self._pool.acquire() as conn, batch_transaction(conn):
            now = await self._move_position(conn, work, rules.revision)
            receipts = await self._what_is_new(conn, work, now)
            fresh = Fresh([
                (record, receipt.uid)
                for record, receipt in zip(work.batch.records, receipts, strict=True)
                if receipt and not receipt.duplicate
            ])  # fmt: skip
            decision = await self._write(conn, work, rules, now, fresh)
            repeated = sum(1 for receipt in receipts if receipt and receipt.duplicate)
            if repeated:
                await effects.count_duplicates(conn, work.source, work.partition, repeated)
        self._announce(work.source, decision, fresh.broken())
        return receipts

    async def _move_position(self, conn: Connection, work: Work, revision: int) -> datetime:
        if work.claim is None:
            return await intake.check_pushed(conn, work.source, revision)
        return await intake.advance(conn, work.claim, work.batch, self._lease, revision)

    async def _what_is_new(self, conn: Connection, work: Work, now: datetime) -> Receipts:
        receipts = list(work.receipts)
        if work.batch.marks:
            for lost in await intake.write_marks(conn, work.source, work.batch.marks, now):
                receipts[lost] = None
        repeats = await intake.duplicates(conn, work.source, work.batch, receipts)
        for index, first in repeats.items():
            receipts[index] = first
        return receipts

    async def _write(
        self, conn: Connection, work: Work, rules: RuleSet, now: datetime, fresh: Fresh
    ) -> Decision:
        """Decide and write. What was refused once is cut in halves until the guilty record stands alone."""
        if not work.careful:
            return await self._write_all(conn, work, rules, now, fresh)
        try:
            async with savepoint(conn):
                return await self._write_all(conn, work, rules, now, fresh)
        except Exception as error:
            if not is_refusal(error):
                raise
            if len(fresh.records) == 1:
                return await self._bury(conn, work, rules, now, fresh.records[0], error)
        middle = len(fresh.records) // 2
        first = await self._write(conn, work, rules, now, Fresh(fresh.records[:middle]))
        second = await self._write(conn, work, rules, now, Fresh(fresh.records[middle:]))
        return Decision(
            [*first.classes, *second.classes], [*first.firings, *second.firings],
            [*first.letters, *second.letters], first.counts + second.counts,
        )  # fmt: skip

    async def _bury(
        self, conn: Connection, work: Work, rules: RuleSet, now: datetime,
        guilty: tuple[Record, UUID], error: Exception,
    ) -> Decision:  # fmt: skip
        record, uid = guilty
        reason = f"Postgres refused it: {error}".replace("\x00", "\\x00")
        letter = Broken(record.source, record.raw, reason)
        return await self._write_all(conn, work, rules, now, Fresh([(letter, uid)]))

    async def _write_all(
        self, conn: Connection, work: Work, rules: RuleSet, now: datetime, fresh: Fresh
    ) -> Decision:
        events = fresh.events(now)
        decision = decide(rules, events)
        if events:
            await effects.write_events(conn, events, decision.classes, work.partition)
        if fresh.records:
            await effects.write(
                conn, source=work.source, partition=work.partition, now=now, revision=rules.revision,
                decision=decision, roots=rules.roots, broken=fresh.broken(), taken=len(fresh.records),
            )  # fmt: skip
        return decision

    def _announce(self, source: str, decision: Decision, broken: Sequence[tuple[Broken, UUID]] = ()) -> None:
        """After COMMIT: somebody may have a task to claim, an event to take in, or a mistake to mend."""
        if any(firing.start for firing in decision.firings):
            self._signals.send(Signal.tasks)
        if any(firing.emit for firing in decision.firings):
            self._signals.send(Signal.outbox)
        # Reasons may quote what arrived, and payloads are not logged: `dlq` and `explain` have them.
        letters = Counter((letter.stage, letter.rule.name) for letter in decision.letters)
        if broken:
            log.warning("dead_letters", source=source, stage="decode", number=len(broken))
        for (stage, rule), number in letters.items():
            log.warning("dead_letters", source=source, rule=rule, stage=stage, number=number)
        for rule, counter in decision.counts:
            if counter == WHERE_ERROR and rule not in self._where_failed:
                self._where_failed.add(rule)  # once: `rules` counts them
                log.warning("where_failed", source=source, rule=rule)

    # ------------------------------------------------------------------ until it is durable

    async def _commit(self, work: Work) -> Receipts:
        """Run the transaction until it commits or another try cannot mend what it raises."""

        async def take_in(careful: bool) -> Receipts:
            work.careful = careful
            return await self._take_in(work)

        try:
            return await self._mended(take_in)
        except AlreadyCommitted:
            return work.receipts

    async def _mended(self, transaction: Callable[[bool], Awaitable[T]]) -> T:
        """Run `transaction(careful)` again where that helps.

        With the new rule set where ours was replaced; after a pause where it lost a deadlock; carefully
        where Postgres refused the data.
        """
        careful, conflicts = False, 0
        while True:
            try:
                return await transaction(careful)
            except RevisionChanged:
                await self._rules.refresh()
            except Exception as error:
                if is_refusal(error) and not careful:
                    careful = True
                elif is_conflict(error) and conflicts < MAX_CONFLICTS:
                    conflicts += 1
                    await asyncio.sleep(random.uniform(0, 0.01 * 2**conflicts))  # noqa: S311 - jitter
                else:
                    raise

    async def _until_durable(self, batch: Batch, claim: Claim) -> Receipts:
        """Commit an owned partition's batch through lost connections. Raises `OwnershipLost`.

        A lost connection leaves the outcome unknown: claiming again bumps the epoch, which ends
        whatever is still in flight, and the row then tells which batch was the last to land.
        """
        work = Work(claim.source, claim.partition, batch, claim)
        while True:
            try:
                receipts = await self._commit(work)
            except Exception as error:
                if not is_disconnect(error):
                    raise
                where = {"source": claim.source, "partition": claim.partition}
                log.warning("connection_lost", **where, error=repr(error))
                if await self._claim_again(claim, batch):
                    return work.receipts
            else:
                claim.version, claim.batch_id = claim.version + 1, batch.id
                return receipts

    async def _claim_again(self, claim: Claim, batch: Batch) -> bool:
        """Own the partition anew once Postgres is back; True where the batch turns out to have landed."""
        again: Claim | None = None
        while again is None:
            try:
                async with self._pool.acquire() as conn:
                    again = await ownership.claim(
                        conn, claim.source, claim.partition, claim.node, self._lease, None
                    )
            except Exception as error:
                if not is_disconnect(error):
                    raise
                await asyncio.sleep(random.uniform(0.05, 0.25))  # noqa: S311 - jitter
            else:
                if again is None:
                    raise OwnershipLost(f"source '{claim.source}': another node owns '{claim.partition}' now")
        landed = again.batch_id == batch.id
        if not landed and again.version != claim.version:
            raise OwnershipLost(f"source '{claim.source}': '{claim.partition}' moved on without this node")
        claim.epoch, claim.version, claim.batch_id = again.epoch, again.version, again.batch_id
        return landed

    async def _take_outbox(self) -> int:
        """One batch of eventflow's own events, claimed and deleted in the transaction that takes it in."""
        return await self._mended(self._take_outbox_once)

    async def _take_outbox_once(self, careful: bool) -> int:
        rules = self._rules.current
        decided: list[tuple[str, Decision]] = []
        async with self._pool.acquire() as conn, batch_transaction(conn):
            now = await intake.check_revision(conn, rules.revision)
            events = await outbox.take(conn, OUTBOX_BATCH)
            for source in sorted({event.source for event in events}):  # one order: else two nodes deadlock
                mine = [event for event in events if event.source == source]
                work = Work(source, "outbox", Batch(mine), careful=careful)
                fresh = Fresh([(e, r.uid) for e, r in zip(mine, work.receipts, strict=True) if r])
                decided.append((source, await self._write(conn, work, rules, now, fresh)))
        for source, decision in decided:
            self._announce(source, decision)
        return len(events)
