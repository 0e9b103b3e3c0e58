"""Test files (`NAME.test.yaml`) -> cases: what happens, and what must follow from it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from eventflow.errors import RuleSetError
from eventflow.event import EVENTFLOW_SOURCE, JSON, Event, encode_json
from eventflow.rulefile.block import Block
from eventflow.rulefile.nodes import ListNode, MapNode, Mark, Node, ScalarNode, kind, plain_value, shorten
from eventflow.rulefile.report import Report, in_order
from eventflow.rulefile.ruleset import RuleSet
from eventflow.rulefile.words import CASE, CASE_EVENT, CASE_FILE, EXPECTED, GIVEN, VARIATIONS
from eventflow.rulefile.yaml import read_yaml

DAY = date(2026, 1, 1)
"""The day that a time of day such as `06:00` stands for, in UTC."""

_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Given:
    """One thing that happens, at the instant `at`: an event, or (None) the clock arrives there."""

    at: datetime
    event: Event | None


@dataclass(frozen=True, slots=True)
class Expectation:
    """One line of `expect`. `word` is fire, no_fire, emit or no_emit; `name` the rule or the event's type.

    `values` are the named keys, which must be equal: with and key, or data; `at` likewise.
    """

    word: str
    name: str
    values: Mapping[str, JSON]
    at: datetime | None
    mark: Mark


@dataclass(frozen=True, slots=True)
class Case:
    """One case. `shuffles` and `splits` are how many variations of it must end the same way."""

    name: str
    file: str
    line: int
    given: tuple[Given, ...]
    expect: tuple[Expectation, ...]
    shuffles: int = 0
    splits: int = 0


@dataclass(frozen=True, slots=True)
class _Names:
    """What cases may refer to. None: the set did not load, so nobody knows."""

    sources: Collection[str] | None
    rules: Collection[str] | None


def read_cases(files: Mapping[str, bytes], ruleset: RuleSet | None) -> list[Case]:
    """All cases of the test files, in order; names are not checked where the set itself did not load.

    Raises `RuleSetError` with every problem of the files.
    """
    report = Report("")
    names = _Names(ruleset.sources, {rule.name for rule in ruleset.rules}) if ruleset else _Names(None, None)
    cases = [case for file in sorted(files) for case in _read_file(files[file], report.of(file), names)]
    if report.problems:
        raise RuleSetError(in_order(report.problems))
    return cases


def _read_file(content: bytes, report: Report, names: _Names) -> list[Case]:
    root, _ = read_yaml(content, report.error)
    if root is None or (isinstance(root, ScalarNode) and root.value is None):
        return []
    if not isinstance(root, MapNode):
        report.error(root, f"a test file is a mapping with 'cases'; this is {kind(root)}")
        return []
    top = Block(report, "test file", root.mark, root)
    top.check_words(CASE_FILE)
    found: list[Case] = []
    lines: dict[str, int] = {}
    for index, block in enumerate(_blocks(top, "cases", "case {}"), 1):
        given = block.text("name")
        if given in lines:
            message = f"the case in line {lines[given]} has this name already"
            named = Block(report, f"case '{shorten(given)}'", block.mark, block.node)
            named.error(block.node.entries["name"].value, message)
        elif given is not None:
            lines[given] = block.mark.line
        name = given or f"case {index}"
        named = Block(report, f"case '{shorten(name)}'", block.mark, block.node)
        found.append(_case(named, name, names))
    return found


def _blocks(parent: Block, word: str, what: str) -> list[Block]:
    """The mappings of a list; anything else in it is reported."""
    node = parent.get(word)
    if node is None:
        return []
    if not isinstance(node, ListNode):
        parent.error(node, f"'{word}' must be a list, not {kind(node)}")
        return []
    found: list[Block] = []
    for index, item in enumerate(node.items, 1):
        if isinstance(item, MapNode):
            found.append(Block(parent.report, f"{parent.what}, {what.format(index)}", item.mark, item))
        else:
            parent.error(item, f"'{word}' takes mappings, not {kind(item)}")
    return found


def _case(block: Block, name: str, names: _Names) -> Case:
    block.check_words(CASE)
    clock = _Clock()
    given = [
        _given(one, index, clock, names) for index, one in enumerate(_blocks(block, "given", "given {}"), 1)
    ]
    expect = [_expectation(one, names) for one in _blocks(block, "expect", "expect {}")]
    also = block.block("also", form="{shuffle: 20}")
    if also is not None:
        also.check_words(VARIATIONS)
    shuffles = also.whole("shuffle", 0, 10_000) if also else None
    splits = also.whole("splits", 0, 10_000) if also else None
    return Case(
        name,
        block.report.file,
        block.mark.line,
        tuple(one for one in given if one is not None),
        tuple(one for one in expect if one is not None),
        shuffles or 0,
        splits or 0,
    )


@dataclass(slots=True)
class _Clock:
    """The case's time: it begins with the first `at` and never goes back."""

    now: datetime | None = None

    def read(self) -> datetime:
        return self.now or datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)


def _given(block: Block, index: int, clock: _Clock, names: _Names) -> Given | None:
    block.check_words(GIVEN)
    if "advance" in block:
        for word in ("at", "from", "event"):
            if word in block:
                block.error(block.node.entries[word].key, f"'{word}' does not go with 'advance'")
        _advance(block, clock)
        return Given(clock.read(), None)
    _set_clock(block, clock)
    source = _source(block, names)
    inner = block.block("event", form="{type: file.arrived, data: {...}}")
    if inner is None or source is None:
        return None
    event = _event(inner, source, f"given-{index}", clock)
    return None if event is None else Given(clock.read(), event)


def _advance(block: Block, clock: _Clock) -> None:
    try:
        clock.now = clock.read() + (block.duration("advance") or timedelta(0))
    except OverflowError:
        block.error(block.node.entries["advance"].value, "'advance' leads beyond the year 9999")


def _set_clock(block: Block, clock: _Clock) -> None:
    node = block.get("at")
    at = None if node is None else _moment(block, "at", node)
    if node is None or at is None:
        clock.now = clock.read()
        return
    if clock.now is not None and at < clock.now:
        block.error(node, f"'at' goes back in time: it is {clock.now.isoformat()} by then")
        return
    clock.now = at


def _moment(block: Block, word: str, node: Node) -> datetime | None:
    """RFC 3339 with an offset, or a time of day on 2026-01-01 UTC."""
    text = node.value if isinstance(node, ScalarNode) else None
    if isinstance(text, str):
        found = _TIME_OF_DAY.fullmatch(text)
        if found:
            hour, minute, second = (int(part or 0) for part in found.groups())
            return datetime(DAY.year, DAY.month, DAY.day, hour, minute, second, tzinfo=UTC)
        try:
            if _RFC3339.fullmatch(text):
                return datetime.fromisoformat(text.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # a month 13, or a day that no calendar has: reported like any other text
    block.error(
        node, f"'{word}' must be like 2026-01-01T06:00:00Z, or \"06:00\" on that day in UTC; not {kind(node)}"
    )
    return None


def _source(block: Block, names: _Names) -> str | None:
    if "from" in block:
        name = block.text("from")
        if name is None or names.sources is None or name in names.sources or name == EVENTFLOW_SOURCE:
            return name
        message = block.report.unknown("source", name, [*names.sources, EVENTFLOW_SOURCE])
        block.error(block.node.entries["from"].value, f"from: {message}")
        return None
    sources = names.sources or ()
    if len(sources) > 1:
        block.error(block.mark, f"'from' is missing: the set has the sources {', '.join(sorted(sources))}")
        return None
    return next(iter(sources), EVENTFLOW_SOURCE)


def _event(block: Block, source: str, identity: str, clock: _Clock) -> Event | None:
    block.check_words(CASE_EVENT)
    type_, subject, given_id = block.text("type"), block.text("subject"), block.text("id")
    time_node, meta = block.get("time"), block.block("meta")
    time = clock.read() if time_node is None else _moment(block, "time", time_node)
    data_node = block.get("data")
    data: JSON = None if data_node is None else plain_value(data_node)
    try:
        raw = encode_json(data)
    except ValueError as error:
        block.error(block.mark, f"data: {error}")
        return None
    if type_ is None:
        return None
    return Event(
        source=source,
        id=given_id or identity,
        type=type_,
        data=data,
        raw=raw,
        subject=subject,
        time=time,
        meta=plain_value(meta.node) if meta else {},
    )


def _expectation(block: Block, names: _Names) -> Expectation | None:
    block.check_words(EXPECTED)
    words = [word for word in EXPECTED.any_of if word in block]
    if len(words) != 1 or "open" in block:
        if len(words) > 1:
            block.error(
                block.node.entries[words[1]].key, f"has both '{words[0]}' and '{words[1]}'; write two entries"
            )
        return None
    word = words[0]
    name = block.text(word)
    if name is None:
        return None
    if word in ("fire", "no_fire") and names.rules is not None and name not in names.rules:
        block.error(
            block.node.entries[word].value, f"{word}: {block.report.unknown('rule', name, names.rules)}"
        )
    _check_fits(block, word, ALLOWED_BESIDE[word])
    at_node = block.get("at")
    at = None if at_node is None else _moment(block, "at", at_node)
    values = {
        key: plain_value(entry.value) for key, entry in block.entries() if key in ("with", "key", "data")
    }
    return Expectation(word, name, values, at, block.mark)


ALLOWED_BESIDE: Mapping[str, Collection[str]] = {
    "fire": ("key", "with", "at"),
    "no_fire": (),
    "emit": ("data", "at"),
    "no_emit": (),
}
"""The keys that each kind of expectation may name."""


def _check_fits(block: Block, word: str, allowed: Collection[str]) -> None:
    for key, entry in block.entries():
        if key != word and key in EXPECTED.now and key not in allowed:
            block.error(entry.key, f"'{key}' does not go with '{word}'")
