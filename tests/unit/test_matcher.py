"""The matcher: `from`, order, groups, what is wanted of eventflow's own events, and no dear event."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest

from eventflow.event import EVENTFLOW_SOURCE, Event
from eventflow.matching.index import Matcher
from eventflow.matching.pattern import compile_pattern
from eventflow.matching.rule import Rule


def rule(name: str, match: dict[str, Any], sources: Sequence[str] | None = None) -> Rule:
    return Rule(name, None if sources is None else frozenset(sources), compile_pattern(match))


def event(data: Any = None, *, source: str = "s", type_: str = "t", subject: str | None = None) -> Event:
    return Event(source, "1", type_, data, b"", subject)


def names(matcher: Matcher, one: Event) -> list[str]:
    return [found.name for found in matcher.match(one)]


def test_rules_come_in_file_order_each_once_whatever_they_are_filed_under() -> None:
    kinds: list[dict[str, Any]] = [
        {"data.x": ["a", "b", "c"]},
        {"subject": {"glob": "**/seg/**"}},
        {},
        {"type": "t", "data.x": {"prefix": "a"}},
        {"any_of": [{"data.x": "a"}, {"subject": {"prefix": "seg/"}}, {"data.y": {"ieq": "A"}}]},
        {"data.x": {"suffix": "a"}},
        {"type": ["t", "u"]},
    ]
    rules = [rule(f"{n}-{k}", kind) for n in range(5) for k, kind in enumerate(kinds)]
    several = event({"x": ["a", "b"], "y": "a"}, subject="seg/a/seg/b")
    assert names(Matcher(rules), several) == [one.name for one in rules]


def test_from_is_the_configured_source_and_not_the_senders() -> None:
    matcher = Matcher(
        [rule("any", {}), rule("s", {}, ["s"]), rule("t", {}, ["t"]), rule("st", {}, ["s", "t"])]
    )
    assert names(matcher, event(source="s")) == ["any", "s", "st"]
    assert names(matcher, event(source="t")) == ["any", "t", "st"]
    assert names(matcher, event(source="u")) == ["any"]
    assert names(matcher, Event("u", "1", "t", None, b"", sender="s")) == ["any"]


def test_from_and_type_meet_in_every_combination() -> None:
    rules = [
        rule("neither", {}), rule("from", {}, ["s"]), rule("type", {"type": "t"}),
        rule("both", {"type": "t"}, ["s"]), rule("lists", {"type": ["t", "u"]}, ["s", "r"]),
        rule("prefix", {"type": {"prefix": "t"}}, ["s"]),
        rule("more", {"type": {"in": ["t", "u"], "not": "u"}}),
    ]  # fmt: skip
    matcher = Matcher(rules)
    every = ["neither", "from", "type", "both", "lists", "prefix", "more"]
    assert names(matcher, event(source="s", type_="t")) == every
    assert names(matcher, event(source="s", type_="u")) == ["neither", "from", "lists"]
    assert names(matcher, event(source="r", type_="t")) == ["neither", "type", "lists", "more"]
    assert names(matcher, event(source="x", type_="x")) == ["neither"]


def test_a_rule_with_very_many_types_and_sources_is_found() -> None:
    types, sources = [f"t{n}" for n in range(100)], [f"s{n}" for n in range(100)]
    matcher = Matcher([rule("many", {"type": types}, sources)])
    assert names(matcher, event(source="s99", type_="t99")) == ["many"]
    assert names(matcher, event(source="s99", type_="x")) == []


def test_prefixes_of_many_lengths_are_found() -> None:
    texts = ["x" * length for length in range(1, 60)]
    matcher = Matcher([rule(text, {"data.p": {"prefix": text}}) for text in texts])
    assert names(matcher, event({"p": "x" * 30 + "y"})) == texts[:30]
    ends = Matcher([rule(text, {"data.p": {"suffix": text}}) for text in texts])
    assert names(ends, event({"p": "y" + "x" * 30})) == texts[:30]


def test_types_that_senders_make_up_are_not_remembered_without_end() -> None:
    matcher = Matcher([rule("any", {"type": {"prefix": "made-up"}})])
    for number in range(10_050):
        assert names(matcher, event(type_=f"made-up-{number}")) == ["any"]
    assert len(matcher._plans) <= 10_000  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("match", "sources", "wanted"),
    [
        ({}, None, True),
        ({"type": "eventflow.run.failed"}, None, True),
        ({"type": "eventflow.run.failed"}, ["s"], False),
        ({"type": "eventflow.run.failed"}, ["s", EVENTFLOW_SOURCE], True),
        ({"type": "eventflow.run.succeeded"}, None, False),
        ({"type": {"prefix": "eventflow."}, "data.x": 1}, None, True),
        ({"type": {"not": "eventflow.run.failed"}}, None, False),
        ({"none_of": [{"type": {"glob": "eventflow.**"}}]}, None, False),
        ({"none_of": [{"type": {"glob": "eventflow.**"}, "data.x": 1}]}, None, True),
        ({"any_of": [{"type": "a"}, {"data.x": 1}]}, None, True),
        ({"any_of": [{"type": "a"}, {"type": "b", "data.x": 1}]}, None, False),
        ({"any": {"in": "data.l", "match": {"type": "a"}}}, None, True),
        ({"data.x": 1}, [EVENTFLOW_SOURCE], True),
    ],
)
def test_an_outcome_is_wanted_if_some_rule_may_take_it(
    match: dict[str, Any], sources: list[str] | None, wanted: bool
) -> None:
    matcher = Matcher([rule("r", match, sources), rule("other", {"type": "x"})])
    assert matcher.wants("eventflow.run.failed") is wanted
    assert matcher.wants("eventflow.run.failed") is wanted


def test_no_rules_match_nothing() -> None:
    assert Matcher([]).match(event()) == []
    assert not Matcher([]).wants("t")


def test_hostile_events_are_no_dearer_than_their_size() -> None:
    rules = [rule(f"p{n}", {"subject": {"prefix": f"landing/ds{n}/"}}) for n in range(200)]
    rules += [rule(f"g{n}", {"subject": {"glob": f"**/ds{n}/**/*a*b"}}) for n in range(200)]
    rules += [rule(f"s{n}", {"data.x": {"suffix": f"/x{n}"}, "data.l": n}) for n in range(200)]
    matcher = Matcher(rules)
    events = [
        event(subject="ds1/" * 20_000),
        event(subject="a" * 100_000),
        event({"x": ["ds1/" * 100 + "/x1"] * 1_000, "l": list(range(10_000))}),
        event({"x": {"x": {"x": {}}}, "l": [[[[1]]]]}),
    ]
    matcher.match(events[0])
    started = time.process_time()
    for one in events:
        matcher.match(one)
    assert time.process_time() - started < 2
