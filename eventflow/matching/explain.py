"""Why a rule takes an event, or does not: the compiled pattern, evaluated without stopping early.

    Explanation(rule, matched, findings, where)
      findings: `from` first where the rule has it, then one `Finding` for each condition of `match`
      where:    the CEL condition as one opaque predicate

`explanation.lines()` is for people, `explanation.as_json()` for `--json`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from heapq import nsmallest
from typing import Any, Final, Literal, cast

import msgspec

from eventflow.event import JSON, Event
from eventflow.expression import (
    Activation,
    EvaluationError,
    Expression,
    Reference,
    activate,
    event_values,
    time_text,
)
from eventflow.matching.conditions import AllOf, AnyElement, AnyOf, Compare, Condition, NoneOf
from eventflow.matching.path import elements, reach
from eventflow.matching.rule import Rule

_SHOWN: Final = 80

Kind = Literal["condition", "all_of", "any_of", "none_of", "any"]


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One condition and whether it holds.

    `condition`: `path` leads to `actual` (several values through an array, none: the field is missing)
    and `operator` and `argument` say what was asked. Several operators are one condition with `argument`
    as their map and `operator` null, each of them again in `parts`.
    `any`: `path` leads to the elements in `actual`, `parts` are the conditions on the nearest of them.
    Combinators have `parts` only.
    """

    holds: bool
    kind: Kind = "condition"
    path: str | None = None
    operator: str | None = None
    argument: JSON = None
    actual: tuple[JSON, ...] = ()
    parts: tuple[Finding, ...] = ()

    def failures(self) -> int:
        """How many conditions would have to change for this one to hold, at least."""
        if self.holds:
            return 0
        if not self.parts or self.kind == "none_of":
            return 1
        each = [part.failures() for part in self.parts]
        return max(1, min(each) if self.kind == "any_of" else sum(each))

    def lines(self, indent: str = "") -> Iterator[str]:
        """`data.rows gte 1000: got 812`, failed ones marked, parts further in."""
        yield f"{indent}{'ok  ' if self.holds else 'FAIL'} {self.text()}"
        for part in self.parts:
            yield from part.lines(indent + "  ")

    def text(self) -> str:
        """The condition in one line, without its parts."""
        if self.kind == "any":
            return f"any element of {self.path}: {len(self.actual)} there"
        if self.kind != "condition":
            return self.kind
        asked = " ".join(word for word in (self.path, self.operator, _show(self.argument)) if word)
        return f"{asked}: {self._got()}"

    def reason(self) -> str:
        """Why it does not hold, in one line."""
        if self.kind == "condition":
            return self.text()
        if self.kind == "none_of":
            return "none_of, but " + ", ".join(part.text() for part in self.parts if part.holds)
        failed = ", ".join(part.reason() for part in self.parts if not part.holds)
        return f"{self.text()} ({failed})" if failed else self.text()

    def _got(self) -> str:
        if not self.actual:
            return "missing"
        return _shorten("got " + ", ".join(_show(value) for value in self.actual))


class Field(msgspec.Struct, frozen=True):
    """A field that `where` names. `found` is false where the event does not have it."""

    path: str
    found: bool
    value: JSON = None

    def text(self) -> str:
        """`event.data.rows = 812`."""
        return f"{self.path} = {_show(self.value)}" if self.found else f"{self.path} is missing"


class WhereFinding(msgspec.Struct, frozen=True):
    """The CEL condition: its text, its result or (None) its error, and the fields it names."""

    text: str
    result: bool | None
    error: str | None
    fields: tuple[Field, ...]

    def lines(self) -> Iterator[str]:
        """The verdict, then a line for each field."""
        outcome = f"error: {self.error}" if self.error is not None else "true" if self.result else "false"
        yield f"{'ok  ' if self.result else 'FAIL'} where {self.text}: {outcome}"
        for field in self.fields:
            yield f"       {field.text()}"


class Explanation(msgspec.Struct, frozen=True):
    """One rule and one event. `matched`: `from`, `match` and `where` all hold; a loop may still stop it."""

    rule: str
    matched: bool
    findings: tuple[Finding, ...]
    where: WhereFinding | None

    @property
    def failures(self) -> int:
        """How many conditions do not hold."""
        where = 0 if self.where is None or self.where.result else 1
        return where + sum(finding.failures() for finding in self.findings)

    @property
    def held(self) -> int:
        """How many conditions at the top hold."""
        return sum(finding.holds for finding in self.findings)

    def as_json(self) -> Mapping[str, JSON]:
        """Plain JSON with the names of the fields as keys; what is at its default is left out of findings."""
        return cast(Mapping[str, JSON], msgspec.to_builtins(self))

    def lines(self) -> Iterator[str]:
        """For people: the rule's name and verdict, then each condition."""
        yield f"{self.rule}: {'matches' if self.matched else 'does not match'}"
        for finding in self.findings:
            yield from finding.lines("  ")
        if self.where is not None:
            yield from ("  " + line for line in self.where.lines())

    def reasons(self) -> str:
        """Why it does not match, in one line."""
        said = [finding.reason() for finding in self.findings if not finding.holds]
        if self.where is not None and not self.where.result:
            fields = ", ".join(field.text() for field in self.where.fields)
            why = self.where.error if self.where.error is not None else "it is false"
            said.append(f"where {self.where.text}: {why}" + (f" ({fields})" if fields else ""))
        return "; ".join(said)


def explain(rule: Rule, event: Event, ingested: datetime | None = None) -> Explanation:
    """Every condition of `rule` on `event`. `ingested` is for a `where` that reads it."""
    return _explain(rule, event, activate(event_values(event, ingested)))


def nearest(
    rules: Sequence[Rule], event: Event, *, ingested: datetime | None = None, limit: int = 5
) -> list[Explanation]:
    """The rules that nearly matched, nearest first: fewest failures, then most that held, then file order.

    Rules that match are not among them, nor those of which nothing holds.
    """
    activation = activate(event_values(event, ingested))
    explained = (_explain(rule, event, activation) for rule in rules)
    missed = (one for one in explained if not one.matched and one.held)
    return nsmallest(limit, missed, key=lambda one: (one.failures, -one.held))


def nearest_miss(rule: Rule, events: Sequence[Event]) -> str:
    """Why `rule` took none of `events`: the one that came nearest, in one line."""
    if not events:
        return "no event came"
    near, event = min(
        ((explain(rule, event), event) for event in events),
        key=lambda pair: (pair[0].failures, -pair[0].held),
    )
    of = f"event {event.type} {_show(event.subject or event.id)}"
    if near.matched:
        return f"{of} matches it, so something after the match held it back"
    return f"{'nearest is ' if len(events) > 1 else ''}{of}: {near.reasons()}"


def _explain(rule: Rule, event: Event, activation: Activation) -> Explanation:
    findings = [_find(condition, event) for condition in rule.pattern.conditions]
    if rule.sources is not None:
        holds, names = event.source in rule.sources, sorted(rule.sources)
        findings.insert(0, Finding(holds, path="from", operator="in", argument=names, actual=(event.source,)))
    where = _where(rule.where, activation) if rule.where is not None else None
    matched = all(finding.holds for finding in findings) and (where is None or where.result is True)
    return Explanation(rule.name, matched, tuple(findings), where)


def _find(condition: Condition, root: JSON | Event) -> Finding:
    match condition:
        case Compare():
            return _find_compare(condition, root)
        case AnyElement():
            return _find_element(condition, root)
        case AllOf():
            kind: Kind = "all_of"
        case AnyOf():
            kind = "any_of"
        case NoneOf():
            kind = "none_of"
    parts = tuple(_find(part, root) for part in condition.parts)
    return Finding(condition.holds(root), kind, parts=tuple(_unwrap(part) for part in parts))


def _unwrap(finding: Finding) -> Finding:
    """A branch of one condition is that condition."""
    return finding.parts[0] if finding.kind == "all_of" and len(finding.parts) == 1 else finding


def _find_compare(condition: Compare, root: JSON | Event) -> Finding:
    reached = reach(root, condition.path)
    path, actual = condition.path.text, tuple(reached)
    each = [
        Finding(Compare(condition.path, (one,)).verdict(reached), path=path, operator=one.name,
                argument=one.argument, actual=actual)
        for one in condition.operators
    ]  # fmt: skip
    if len(each) == 1:
        return each[0]
    asked = {one.name: one.argument for one in condition.operators}
    return Finding(condition.verdict(reached), path=path, argument=asked, actual=actual, parts=tuple(each))


def _find_element(condition: AnyElement, root: JSON | Event) -> Finding:
    path = condition.path.text
    values = [element for value in reach(root, condition.path) for element in elements(value)]
    if not values:
        return Finding(False, "any", path)
    tried = [tuple(_find(part, value) for part in condition.inner.parts) for value in values]
    best = min(tried, key=lambda parts: sum(part.failures() for part in parts))
    return Finding(condition.holds(root), "any", path, actual=tuple(values), parts=best)


def _where(expression: Expression, activation: Activation) -> WhereFinding:
    fields = tuple(_field(reference, activation) for reference in expression.references)
    try:
        return WhereFinding(expression.text, expression.test(activation), None, fields)
    except EvaluationError as error:
        return WhereFinding(expression.text, None, str(error), fields)


def _field(reference: Reference, activation: Activation) -> Field:
    path = ".".join(reference)
    try:
        value = activation.field(reference)
    except EvaluationError:
        return Field(path, False)
    return Field(path, True, time_text(value) if isinstance(value, datetime) else value)


def _show(value: Any) -> str:
    return _shorten(msgspec.json.encode(value).decode())


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
