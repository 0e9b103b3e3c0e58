"""From looks to a batch, and what is remembered until it is durable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import structlog

from connectors.file.fingerprint import Signature, decode
from connectors.file.look import Look, Seen
from connectors.file.record import Outcome, Recorder
from connectors.file.scan import Scanner
from eventflow.event import Record
from eventflow.source import Batch, Known, Mark, Receipt, SourceContext

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Handed:
    """What is true of a path once its batch is durable: its stat is `now`, and no longer `was`."""

    path: bytes
    now: Signature | None
    was: Signature | None


class Handover:
    """Asks the ledger about looks and makes batches of what is new."""

    def __init__(self, context: SourceContext, recorder: Recorder, scanner: Scanner) -> None:
        self._context = context
        self._recorder = recorder
        self._scanner = scanner
        self._handed: dict[UUID, list[Handed]] = {}

    @property
    def open(self) -> int:
        """Files of batches that nobody has committed or refused yet."""
        return sum(map(len, self._handed.values()))

    async def batch(self, looks: Mapping[bytes, Look]) -> Batch | None:
        """None where the ledger agrees with all of them. Raises `SourceUnavailable` where the root went."""
        known = await self._context.known(list(looks))
        if any(look.seen is Seen.gone and path in known for path, look in looks.items()):
            await self._scanner.in_order()
        self._say_what_vanished(looks)
        outcomes = [(look, self._recorder.decide(look, known.get(path))) for path, look in looks.items()]
        handed = [_handed(look, known.get(look.path)) for look, _ in outcomes]
        batch = put_together([outcome for _, outcome in outcomes])
        if batch is None:
            for each in handed:
                self._agree(each)
        else:
            self._handed[batch.id] = handed
        return batch

    def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> list[bytes]:
        """What was handed over is in the ledger, but for the marks that lost: those paths are returned."""
        told = [mark for mark in batch.marks if mark.record is not None]
        lost = {mark.item for mark in told if receipts[mark.record or 0] is None}
        for handed in self._handed.pop(batch.id, ()):
            if handed.path not in lost:
                self._agree(handed)
        return list(lost)

    def refused(self, batch: Batch) -> list[bytes]:
        """The paths of a batch that did not commit."""
        return [handed.path for handed in self._handed.pop(batch.id, ())]

    def _agree(self, handed: Handed) -> None:
        if handed.was and handed.was != handed.now:
            self._scanner.agreed.discard(handed.path, handed.was)
        if handed.now:
            self._scanner.agreed.add(handed.path, handed.now)

    def _say_what_vanished(self, looks: Mapping[bytes, Look]) -> None:
        vanished = [path for path, look in looks.items() if look.seen is Seen.gone and look.reason]
        if vanished:
            shown = vanished[0].decode(errors="backslashreplace")
            log.info("files_vanished", source=self._recorder.source, count=len(vanished), first=shown)


def put_together(outcomes: Sequence[Outcome]) -> Batch | None:
    """One batch of all that is new; None where nothing is."""
    records: list[Record] = []
    marks: list[Mark] = []
    for outcome in outcomes:
        if outcome.mark is None:
            continue
        if outcome.record is None:
            marks.append(outcome.mark)
        else:
            marks.append(replace(outcome.mark, record=len(records)))
            records.append(outcome.record)
    return Batch(records, marks=marks) if marks else None


def _handed(look: Look, known: Known | None) -> Handed:
    there = look.seen in (Seen.whole, Seen.broken)
    was = decode(known.fingerprint).signature if known else None
    return Handed(look.path, look.signature if there else None, was)
