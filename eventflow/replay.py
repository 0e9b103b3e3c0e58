"""A dead letter's way back in: once per replay, whoever else is at it; and that of an event which is none.

Stage `decode` or `match` comes back as a new event, for all rules, through the outbox. Stage `start`,
`task` or `run` re-fires its rule only, with the current rule set: else rules that succeeded would run
again. The letter is locked first and marked in the same transaction, so a crash in the middle leaves
either both or neither.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import NAMESPACE_OID, UUID, uuid5

import msgspec

from eventflow.errors import EventflowError, RevisionChanged, Undecodable
from eventflow.event import Event, Lineage, new_uid
from eventflow.ingest import Rules
from eventflow.matching.effects import Decision, Taken
from eventflow.matching.match import decide_one
from eventflow.matching.rule import Rule
from eventflow.reread import Rereader, event_of
from eventflow.rulefile.ruleset import RuleSet
from eventflow.store import dead_letters, effects, intake, outbox, runs
from eventflow.store.dead_letters import Stage, StoredLetter
from eventflow.store.pool import Connection, Pool
from eventflow.store.signals import Signal, tell
from eventflow.store.views import runs as run_views

_OUR_SUFFIX: Final = re.compile(r"![0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.\d+$")
_AGAIN: Final = "; --again sends it once more"


class ReplayRefused(EventflowError):
    """The letter cannot be sent in as it is; it stays open."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a letter became: a new event (`event` is its id), a firing of `rule`, or a run of `workflow`."""

    letter: UUID
    event: str | None = None
    rule: str | None = None
    workflow: str | None = None

    @property
    def kind(self) -> str:
        return "event" if self.event else "firing" if self.rule else "run"

    @property
    def sentence(self) -> str:
        """For a person: `sent in as event 'a#1!...'`."""
        if self.event:
            return f"sent in as event {self.event!r}"
        return f"rule '{self.rule}' fired again" if self.rule else f"workflow '{self.workflow}' started again"


async def replay_event(pool: Pool, ruleset: RuleSet, uid: UUID) -> str:
    """Send a stored event in again as a new one, for all rules of the current set; the new event's id.

    Its generation is the time in microseconds: nothing stands in the database that could count them. Raises
    `ReplayRefused` where the stored bytes do not decode with `ruleset`, `UsageError` where its row is gone.
    """
    async with pool.acquire() as conn:
        try:
            event = (await Rereader(ruleset, pool).taken(conn, uid)).event
        except Undecodable as error:
            raise ReplayRefused(f"event {uid} does not decode any more: {error.reason}") from error
        again = msgspec.structs.replace(
            event,
            id=f"{_OUR_SUFFIX.sub('', event.id)}!{uid}.{time.time_ns() // 1000}",
            lineage=_begun_anew(event.lineage),
            dedupe=None,
            replayof=str(uid),
        )
        await outbox.put(conn, [again])
        await tell(conn, Signal.outbox)
    return again.id


class _DryRun(Exception):
    """Ends the transaction of a dry run; `replayed` is what would have been."""

    def __init__(self, replayed: Replayed) -> None:
        self.replayed = replayed


class Replay:
    """Sends letters in again. `type_` is for letters of stage `decode` that do not know their type."""

    def __init__(
        self,
        pool: Pool,
        rules: Rules,
        *,
        type_: str | None = None,
        again: bool = False,
        dry_run: bool = False,
    ) -> None:
        self._pool = pool
        self._rules = rules
        self._type = type_
        self._again = again
        self._dry_run = dry_run

    async def send(self, letter_id: UUID) -> Replayed:
        """One letter, in one transaction. Raises `ReplayRefused` or `LetterNotOpen`: nothing has changed."""
        while True:
            try:
                return await self._send(letter_id)
            except RevisionChanged:
                await self._rules.refresh()
            except _DryRun as dry:
                return dry.replayed

    async def _send(self, letter_id: UUID) -> Replayed:
        ruleset = self._rules.current
        async with self._pool.acquire() as conn:
            async with intake.batch_transaction(conn):
                now = await intake.check_revision(conn, ruleset.revision)
                letter = await dead_letters.lock(conn, letter_id, again=self._again, hint=_AGAIN)
                replayed = await self._write(conn, letter, ruleset, now)
                await dead_letters.replayed(conn, letter)
                if self._dry_run:
                    raise _DryRun(replayed)
            for signal in (Signal.outbox, Signal.tasks):
                await tell(conn, signal)
        return replayed

    async def _write(
        self, conn: Connection, letter: StoredLetter, ruleset: RuleSet, now: datetime
    ) -> Replayed:
        if letter.stage in (Stage.decode, Stage.match):
            event = self._event(letter, ruleset)
            await outbox.put(conn, [event])
            return Replayed(letter.id, event=event.id)
        if letter.rule is None:
            return await _start_by_hand(conn, letter, ruleset, now)
        taken = await self._taken(conn, letter, ruleset, now)
        await _fire(conn, letter, _rule(letter, ruleset), taken, ruleset, now)
        return Replayed(letter.id, rule=letter.rule)

    # ------------------------------------------------------------------ as a new event

    def _event(self, letter: StoredLetter, ruleset: RuleSet) -> Event:
        """The letter as an event of its original source, with an identity that no other replay has."""
        kept = letter.attributes
        made = self._record(letter, ruleset) or self._as_json(letter, ruleset)
        # A connector makes an id up where the sender gave none; it would name nothing that ever was.
        first = kept.id or (made.id if made.dedupe else "")
        this = f"{letter.id}.{letter.replays + 1}"
        return msgspec.structs.replace(
            made,
            id=f"{_OUR_SUFFIX.sub('', first)}!{this}" if first else this,
            type=self._type or kept.type or made.type,
            lineage=_begun_anew(kept.lineage),
            dedupe=None,
            replayof=str(letter.id),
        )

    def _as_json(self, letter: StoredLetter, ruleset: RuleSet) -> Event:
        kept = letter.attributes
        type_ = self._type or kept.type
        if type_ is None:
            raise ReplayRefused("nothing says what type of event it is; give --type")
        data = self._data(letter, ruleset)
        return event_of(letter.source or "", "", type_, kept.subject, kept, letter.raw, data)

    def _record(self, letter: StoredLetter, ruleset: RuleSet) -> Event | None:
        record = Rereader(ruleset, self._pool).record(letter.source or "", letter.raw, letter.attributes.meta)
        if record is None or isinstance(record, Event):
            return record
        raise _undecodable(letter, record.reason)

    def _data(self, letter: StoredLetter, ruleset: RuleSet) -> object:
        try:
            return Rereader(ruleset, self._pool).data(letter.source or "", letter.raw, letter.attributes)
        except Undecodable as error:
            raise _undecodable(letter, error.reason) from error

    # ------------------------------------------------------------------ as a firing of its rule

    async def _taken(self, conn: Connection, letter: StoredLetter, ruleset: RuleSet, now: datetime) -> Taken:
        """The event that the rule fires on: as stored, or with the edit in place of its data."""
        if letter.event_uid is None:
            raise ReplayRefused(f"it names no event for rule '{letter.rule}' to fire on")
        kept = letter.attributes
        event = event_of(
            letter.source or "", kept.id or str(letter.event_uid), kept.type or "", kept.subject, kept,
            letter.raw, self._data(letter, ruleset),
        )  # fmt: skip
        return Taken(msgspec.structs.replace(event, lineage=_begun_anew(kept.lineage)), letter.event_uid, now)


def _begun_anew(lineage: Lineage | None) -> Lineage | None:
    """The chain of rules stays, so that a loop stays one; its depth begins anew with the person's wish."""
    return None if lineage is None else msgspec.structs.replace(lineage, depth=0)


def _undecodable(letter: StoredLetter, reason: str) -> ReplayRefused:
    as_edited = "the edited bytes are" if letter.was_edited else "the bytes still are"
    return ReplayRefused(f"{as_edited} no event: {reason}; `eventflow dlq edit {letter.id}` mends them")


def _rule(letter: StoredLetter, ruleset: RuleSet) -> Rule:
    for rule in ruleset.rules:
        if rule.name == letter.rule:
            return rule
    hint = f"; `eventflow runs retry {letter.run_id}` runs the old one again" if letter.run_id else ""
    raise ReplayRefused(
        f"rule '{letter.rule}' is not in the current rule set (revision {ruleset.revision}){hint}"
    )


async def _fire(
    conn: Connection, letter: StoredLetter, rule: Rule, taken: Taken, ruleset: RuleSet, now: datetime
) -> None:
    """Decide for this rule alone; write its firing under an id of this replay's own."""
    firing_id = uuid5(NAMESPACE_OID, f"{letter.id} {letter.replays + 1}")
    decision = decide_one(ruleset, rule, taken, firing_id)
    if decision.letters:
        raise ReplayRefused(
            f"rule '{rule.name}' fails again: {decision.letters[0].reason}; mend the rule and apply it, "
            f"or the letter with `eventflow dlq edit {letter.id}`"
        )
    if not decision.firings:
        raise ReplayRefused(
            f"rule '{rule.name}' does not fire on it any more; "
            f"`eventflow explain {taken.uid} {rule.name}` says why"
        )
    await effects.write(
        conn, source=taken.event.source, partition="", now=now, revision=ruleset.revision,
        decision=Decision([], decision.firings, [], decision.counts), roots=ruleset.roots, replayof=letter.id,
    )  # fmt: skip


async def _start_by_hand(conn: Connection, letter: StoredLetter, ruleset: RuleSet, now: datetime) -> Replayed:
    """A run that no rule started has the parameters it was given as its bytes."""
    if letter.run_id is None:
        raise ReplayRefused("it names neither a rule nor a run")
    name = (await run_views.run(conn, letter.run_id))["workflow"]
    workflow = ruleset.workflows.get(name)
    if workflow is None:
        raise ReplayRefused(
            f"workflow '{name}' is not in the current rule set (revision {ruleset.revision}); "
            f"`eventflow runs retry {letter.run_id}` runs the old one again"
        )
    new = runs.NewRun(
        new_uid(), name, ruleset.revision, letter.raw, tuple(ruleset.roots(name)), created=now, due=now
    )
    await runs.start_runs(conn, [new])
    return Replayed(letter.id, workflow=name)
