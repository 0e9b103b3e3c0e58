"""An event out of Postgres beside the rules that it met: what each of them did, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from eventflow.event import Event
from eventflow.matching.explain import Explanation, explain, nearest
from eventflow.matching.rule import Rule
from eventflow.reread import Rereader
from eventflow.rulefile.ruleset import RuleSet
from eventflow.store.effects import decode_attributes
from eventflow.store.pool import Connection, Pool
from eventflow.store.views import causes
from eventflow.store.views import events as views

Outcome = Literal["fired", "matched", "not matched"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One rule. `matched` is a rule whose conditions hold and that has no firing: `sentence` says why."""

    rule: str
    outcome: Outcome
    sentence: str
    firings: Sequence[dict[str, Any]]
    explanation: Explanation


@dataclass(frozen=True, slots=True)
class Explained:
    """`event` are the words of the events view; `verdicts` those that fired first, then the nearest."""

    event: dict[str, Any]
    revision: int
    verdicts: Sequence[Verdict]
    letters: Sequence[dict[str, Any]]
    cause: dict[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        """One object: event, cause, revision, rules, dead_letters."""
        return {
            "event": self.event,
            "cause": self.cause,
            "revision": self.revision,
            "rules": [
                {
                    **verdict.explanation.as_json(),
                    "outcome": verdict.outcome,
                    "why": verdict.sentence,
                    "firings": verdict.firings,
                }
                for verdict in self.verdicts
            ],
            "dead_letters": self.letters,
        }


async def matched_revision(conn: Connection, uid: UUID) -> int:
    """The revision of the rule set that the event's batch was matched with; 0 where there was none yet."""
    return int((await views.event(conn, uid))["revision"])


async def explain_stored(
    pool: Pool, ruleset: RuleSet, uid: UUID, *, only: str | None = None, limit: int | None = 5
) -> Explained:
    """What the event set off, and the `limit` rules that came nearest to it (None: every rule)."""
    async with pool.acquire() as conn:
        row = await views.event(conn, uid)
        firings = await causes.set_off(conn, uid)
        letters = await views.letters_of(conn, uid)
        cause = await causes.cause(
            conn, row["source"], row["type"], row["data"], decode_attributes(row["attributes"])
        )
        taken = await Rereader(ruleset, pool).taken(conn, uid)
    fired = {firing["rule"] for firing in firings}
    rules = [rule for rule in ruleset.rules if only in (None, rule.name)]
    explained = {rule.name: explain(rule, taken.event, taken.ingested) for rule in rules}
    shown = [rule for rule in rules if rule.name in fired or explained[rule.name].matched]
    rest = [rule for rule in rules if rule not in shown]
    if only is None and limit is not None:
        near = nearest(rest, taken.event, ingested=taken.ingested, limit=limit)
        names = {one.rule: position for position, one in enumerate(near)}
        rest = sorted((rule for rule in rest if rule.name in names), key=lambda rule: names[rule.name])
    return Explained(
        {name: row[name] for name in ("uid", "ingested", "source", "type", "subject", "id", "class")},
        ruleset.revision,
        [_verdict(rule, explained[rule.name], taken.event, firings, letters) for rule in [*shown, *rest]],
        [letter for letter in letters if only in (None, letter["rule"])],
        cause,
    )


def _verdict(
    rule: Rule, explanation: Explanation, event: Event, firings: views.View, letters: views.View
) -> Verdict:
    mine = [firing for firing in firings if firing["rule"] == rule.name]
    if mine:
        return Verdict(rule.name, "fired", "fired", mine, explanation)
    if not explanation.matched:
        return Verdict(rule.name, "not matched", "did not fire", mine, explanation)
    why = _what_held_it_back(rule, event, [letter for letter in letters if letter["rule"] == rule.name])
    return Verdict(rule.name, "matched", why, mine, explanation)


def _what_held_it_back(rule: Rule, event: Event, letters: views.View) -> str:
    if letters:
        return f"matched, and became dead letter {letters[0]['id']}"
    lineage = event.lineage
    if lineage is not None and lineage.rules.count(rule.name) > rule.reentry:
        chain = " -> ".join(lineage.rules)
        return f"matched, and the loop guard held it back: it is in its own causal chain ({chain})"
    return "would fire; the rule was not like this when the event came"
