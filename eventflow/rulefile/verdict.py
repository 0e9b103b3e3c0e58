"""What a case expects against what was observed: which line of it fails, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from eventflow.event import JSON, encode_json
from eventflow.matching.effects import Letter
from eventflow.matching.explain import nearest_miss
from eventflow.matching.match import ends_chain
from eventflow.rulefile.cases import Case, Expectation
from eventflow.rulefile.nodes import shorten
from eventflow.rulefile.ruleset import RuleSet
from eventflow.rulefile.trial import Emitted, Fired, Observed, observe, variations

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a case ended. `failures` are lines for people, none where it passed; `seed` repeats it."""

    case: Case
    seed: int
    variation: str
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.failures


def judge(case: Case, ruleset: RuleSet, seed: int) -> Verdict:
    """Run a case with all its variations, up to the first that fails."""
    for variation in variations(case, seed):
        failures = _failures(case, ruleset, observe(ruleset, variation))
        if failures:
            return Verdict(case, seed, variation.label, tuple(failures))
    return Verdict(case, seed, "", ())


def _failures(case: Case, ruleset: RuleSet, observed: Observed) -> list[str]:
    expected_fires = [one for one in case.expect if one.word == "fire"]
    expected_emits = [one for one in case.expect if one.word == "emit"]
    missing_fires, other_fires = _pair(expected_fires, observed.fired, _is_fire)
    missing_emits, other_emits = _pair(expected_emits, observed.emitted, _is_emit)
    missing_fires, other_failed = _pair(missing_fires, _failed(observed), _is_failed)
    lines: list[str] = []
    for expectation in missing_fires:
        lines += _missing_fire(expectation, other_fires, ruleset, observed, case)
    for expectation in missing_emits:
        lines += _missing_emit(expectation, other_emits, case)
    for fired in other_fires:
        lines.append(f"not expected: {_show_fire(fired)}{_forbidden(case, 'no_fire', fired.rule)}")
    for emitted in other_emits:
        lines.append(f"not expected: {_show_emit(emitted)}{_forbidden(case, 'no_emit', emitted.type)}")
    for letter in other_failed:
        lines.append(
            f"not expected: rule '{letter.rule.name}' made a dead letter ({letter.stage}): {letter.reason}"
        )
    return lines + _contradictions(case, observed)


def _failed(observed: Observed) -> list[Letter]:
    """Triggers that were satisfied, but whose `with` failed: `fire` means the trigger.

    A `where` that ended in an error satisfied nothing, nor does an event at the end of its causal chain.
    """
    return [
        letter
        for letter in observed.letters
        if letter.stage == "start" and not ends_chain(letter.taken.event)
    ]


def _contradictions(case: Case, observed: Observed) -> list[str]:
    """`no_fire` and `no_emit` for what happened, but was no surprise: another line expects it."""
    fired = {one.rule for one in observed.fired}
    emitted = {one.type for one in observed.emitted}
    wanted = {(one.word, one.name) for one in case.expect}
    return [
        f"{_at(one, case)}expected {one.word} {one.name}, but another line expects it, and it happened"
        for one in case.expect
        if (one.word == "no_fire" and one.name in fired and ("fire", one.name) in wanted)
        or (one.word == "no_emit" and one.name in emitted and ("emit", one.name) in wanted)
    ]


def _pair(
    expected: Sequence[Expectation], observed: Sequence[T], fits: Callable[[Expectation, T], bool]
) -> tuple[list[Expectation], list[T]]:
    """Give every expectation an observation of its own where that is possible; what is left over of both.

    Augmenting paths (Kuhn): an expectation that names little must not take what another one needs.
    """
    owner: dict[int, int] = {}
    for start in range(len(expected)):
        _augment(start, expected, observed, fits, owner)
    placed = set(owner.values())
    missing = [one for index, one in enumerate(expected) if index not in placed]
    return missing, [one for index, one in enumerate(observed) if index not in owner]


def _augment(
    start: int,
    expected: Sequence[Expectation],
    observed: Sequence[T],
    fits: Callable[[Expectation, T], bool],
    owner: dict[int, int],
) -> None:
    """Find an observation for one more expectation, moving earlier ones to others of theirs on the way."""
    reached: dict[int, int] = {}
    holds = {expectation: index for index, expectation in owner.items()}
    todo = [start]
    for expectation in todo:
        for index, one in enumerate(observed):
            if index in reached or not fits(expected[expectation], one):
                continue
            reached[index] = expectation
            if index in owner:
                todo.append(owner[index])
                continue
            taken: int | None = index
            while taken is not None:
                taker = reached[taken]
                owner[taken], taken = taker, holds.get(taker)
            return


def _is_fire(expectation: Expectation, fired: Fired) -> bool:
    values = expectation.values
    return (
        fired.rule == expectation.name
        and (expectation.at is None or expectation.at == fired.at)
        and ("key" not in values or values["key"] is None)
        and ("with" not in values or _holds(values["with"], fired.inputs))
    )


def _is_failed(expectation: Expectation, letter: Letter) -> bool:
    values = expectation.values
    return (
        letter.rule.name == expectation.name
        and (expectation.at is None or expectation.at == letter.taken.ingested)
        and values.get("key") is None
        and "with" not in values
    )


def _is_emit(expectation: Expectation, emitted: Emitted) -> bool:
    values = expectation.values
    return (
        emitted.type == expectation.name
        and (expectation.at is None or expectation.at == emitted.at)
        and ("data" not in values or _holds(values["data"], emitted.data))
    )


def _holds(expected: JSON, actual: JSON) -> bool:
    """Named keys must be equal, unnamed ones are free; anything but a mapping is compared whole."""
    if isinstance(expected, dict) and isinstance(actual, Mapping):
        named, given = cast(dict[str, Any], expected), cast(Mapping[str, Any], actual)
        return all(key in given and equal(value, given[key]) for key, value in named.items())
    return equal(expected, actual)


def equal(one: JSON, other: JSON) -> bool:
    """JSON equality: 1 equals 1.0, true is not 1, "1" is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        left, right = cast(dict[str, Any], one), cast(dict[str, Any], other)
        return left.keys() == right.keys() and all(equal(value, right[key]) for key, value in left.items())
    if isinstance(one, list) and isinstance(other, list):
        mine, theirs = cast(list[Any], one), cast(list[Any], other)
        return len(mine) == len(theirs) and all(map(equal, mine, theirs))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return one == other and isinstance(one, str) == isinstance(other, str)


def _missing_fire(
    expectation: Expectation, others: Sequence[Fired], ruleset: RuleSet, observed: Observed, case: Case
) -> list[str]:
    lines = [f"{_at(expectation, case)}expected {_show_expectation(expectation)}"]
    same = [one for one in others if one.rule == expectation.name]
    if same:
        return lines + [f"  fired instead: {_show_fire(one)}" for one in same]
    if times := sum(one.rule == expectation.name for one in observed.fired):
        return [*lines, f"  it fired {'once' if times == 1 else f'{times} times'}, as other lines expect"]
    rule = next(rule for rule in ruleset.rules if rule.name == expectation.name)
    miss = nearest_miss(rule, [taken.event for taken in observed.taken])
    return [*lines, f"  it did not fire: {miss}"]


def _missing_emit(expectation: Expectation, others: Sequence[Emitted], case: Case) -> list[str]:
    lines = [f"{_at(expectation, case)}expected {_show_expectation(expectation)}"]
    same = [one for one in others if one.type == expectation.name]
    if same:
        return lines + [f"  emitted instead: {_show_emit(one)}" for one in same]
    return [*lines, "  no event of that type was emitted" + ("" if not others else ", but others were")]


def _forbidden(case: Case, word: str, name: str) -> str:
    line = next((one.mark.line for one in case.expect if one.word == word and one.name == name), None)
    return "" if line is None else f" (line {line}: {word} {name})"


def _at(expectation: Expectation, case: Case) -> str:
    return f"{case.file}:{expectation.mark.line}: "


def _show_expectation(expectation: Expectation) -> str:
    shown = [f"{expectation.word} {expectation.name}"]
    shown += [f"{word} {_json(value)}" for word, value in expectation.values.items()]
    if expectation.at is not None:
        shown.append(f"at {expectation.at.isoformat()}")
    return " ".join(shown)


def _show_fire(fired: Fired) -> str:
    return (
        f"fire {fired.rule} with {_json(fired.inputs)} at {fired.at.isoformat()} (event {fired.event.type})"
    )


def _show_emit(emitted: Emitted) -> str:
    return f"emit {emitted.type} data {_json(emitted.data)} at {emitted.at.isoformat()} (rule {emitted.rule})"


def _json(value: JSON) -> str:
    return shorten(encode_json(value).decode(), 400)
