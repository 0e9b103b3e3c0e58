"""Why a rule took an event, or not: every condition with its value, and the rules that came near."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from eventflow.event import Event
from eventflow.expression import Expression, VarType
from eventflow.matching.explain import Explanation, Field, Finding, explain, nearest, nearest_miss
from eventflow.matching.pattern import compile_pattern
from eventflow.matching.rule import Rule


def rule(
    name: str, match: dict[str, Any], sources: Sequence[str] | None = None, where: str | None = None
) -> Rule:
    compiled = Expression.compile(where, {"event": VarType.event}, boolean=True) if where else None
    return Rule(name, None if sources is None else frozenset(sources), compile_pattern(match), compiled)


def event(data: Any = None, subject: str | None = None, **more: Any) -> Event:
    return Event(source="landing", id="7", type="file.arrived", data=data, raw=b"", subject=subject, **more)


def only(explanation: Explanation) -> Finding:
    (finding,) = explanation.findings
    return finding


def test_each_condition_names_its_path_operator_argument_and_value() -> None:
    found = explain(rule("r", {"type": "file.arrived", "data.rows": {"gte": 1000}}), event({"rows": 812}))
    assert not found.matched
    assert found.findings == (
        Finding(True, "condition", "type", "eq", "file.arrived", ("file.arrived",)),
        Finding(False, "condition", "data.rows", "gte", 1000, (812,)),
    )
    assert (found.failures, found.held) == (1, 1)
    assert list(found.lines()) == [
        "r: does not match",
        '  ok   type eq "file.arrived": got "file.arrived"',
        "  FAIL data.rows gte 1000: got 812",
    ]


def test_from_is_a_condition_like_others() -> None:
    finding = only(explain(rule("r", {}, ["b", "a"]), event()))
    assert finding == Finding(False, "condition", "from", "in", ["a", "b"], ("landing",))


def test_a_missing_field_is_not_null() -> None:
    missing = only(explain(rule("r", {"data.x": None}), event({})))
    assert (missing.holds, missing.actual) == (False, ())
    assert missing.text() == "data.x eq null: missing"
    null = only(explain(rule("r", {"data.x": None}), event({"x": None})))
    assert (null.holds, null.actual) == (True, (None,))


def test_several_operators_are_one_condition_for_one_element() -> None:
    finding = only(explain(rule("r", {"data.x": {"gt": 1, "lt": 4}}), event({"x": [0, 5]})))
    assert not finding.holds
    assert finding.argument == {"gt": 1, "lt": 4}
    assert [part.holds for part in finding.parts] == [True, True]


def test_combinators_show_every_branch() -> None:
    match = {"any_of": [{"data.a": 1}, {"data.b": 1, "data.c": 1}], "none_of": [{"data.d": 1}]}
    any_of, none_of = explain(rule("r", match), event({"b": 1, "d": 1})).findings
    assert (any_of.kind, any_of.holds) == ("any_of", False)
    assert [(part.kind, part.holds) for part in any_of.parts] == [("condition", False), ("all_of", False)]
    assert [part.holds for part in any_of.parts[1].parts] == [True, False]
    assert any_of.failures() == 1
    assert (none_of.holds, none_of.failures()) == (False, 1)
    assert none_of.reason() == "none_of, but data.d eq 1: got 1"


def test_any_shows_the_nearest_element() -> None:
    match = {"any": {"in": "data.l", "match": {"a": 1, "b": 2}}}
    finding = only(explain(rule("r", match), event({"l": [{"c": 0}, {"a": 1, "b": 3}]})))
    assert [(part.path, part.holds) for part in finding.parts] == [("a", True), ("b", False)]
    assert finding.reason() == "any element of data.l: 2 there (b eq 2: got 3)"
    assert only(explain(rule("r", match), event({}))).failures() == 1


def test_where_is_one_predicate_with_the_fields_it_names() -> None:
    one = rule("r", {"type": "file.arrived"}, where='event.data.rows % 2 == 0 && event.subject != "x"')
    found = explain(one, event({"rows": 3}, subject="y"))
    assert found.where is not None
    assert (found.matched, found.where.result, found.where.error) == (False, False, None)
    assert found.where.fields == (Field("event.data.rows", True, 3), Field("event.subject", True, "y"))
    assert explain(one, event({"rows": 4}, subject="y")).matched


def test_an_error_in_where_is_shown_and_matches_nothing() -> None:
    found = explain(rule("r", {}, where="event.data.rows > 1"), event({}))
    assert found.where is not None
    assert (found.where.result, found.where.error) == (None, "missing field 'rows'")
    assert found.where.fields == (Field("event.data.rows", False),)
    assert list(found.lines())[1:] == [
        "  FAIL where event.data.rows > 1: error: missing field 'rows'",
        "         event.data.rows is missing",
    ]


def test_where_may_read_times() -> None:
    now = datetime(2026, 1, 1, 6, tzinfo=UTC)
    one = rule("r", {}, where="event.ingested > event.time")
    found = explain(one, event(time=now), ingested=now)
    assert found.where is not None
    assert found.where.result is False
    assert found.where.fields[0] == Field("event.ingested", True, "2026-01-01T06:00:00Z")


def test_an_explanation_is_json() -> None:
    match = {"data.x": {"gt": 10**40}, "any": {"in": "data.l", "match": {"a": 1}}}
    found = explain(rule("r", match, where="true"), event({"x": 10**41, "l": [{"a": [1, None]}]}))
    assert found.matched
    decoded = msgspec.json.decode(msgspec.json.encode(found.as_json()))
    assert set(decoded) == {"rule", "matched", "findings", "where"}
    assert decoded["findings"][0] == {
        "holds": True, "path": "data.x", "operator": "gt", "argument": 10**40, "actual": [10**41]
    }  # fmt: skip


def test_nearest_are_the_rules_with_fewest_failures_that_do_not_match() -> None:
    rules = [
        rule("other-type", {"type": "x"}),
        rule("matches", {"type": "file.arrived"}),
        rule("far", {"type": "file.arrived", "data.a": 1, "data.b": 1}),
        rule("near", {"type": "file.arrived", "data.a": 1}),
        rule("nearer", {"type": "file.arrived", "data.c": 1, "data.a": 1}),
        rule("where", {"type": "file.arrived"}, where="event.data.c == 2"),
    ]
    found = nearest(rules, event({"c": 1}))
    assert [one.rule for one in found] == ["nearer", "near", "where", "far"]
    assert [one.rule for one in nearest(rules, event({"c": 1}), limit=1)] == ["nearer"]


def test_the_nearest_miss_is_one_line() -> None:
    one = rule("r", {"type": "file.arrived", "data.rows": {"gte": 10}}, where="event.data.ok")
    assert nearest_miss(one, []) == "no event came"
    events = [event({}), event({"rows": 5, "ok": True}, subject="a.csv")]
    assert nearest_miss(one, events) == 'nearest is event file.arrived "a.csv": data.rows gte 10: got 5'
    assert "something after the match" in nearest_miss(one, [event({"rows": 10, "ok": True})])
    broken = nearest_miss(one, [event({"rows": 10, "ok": False})])
    assert broken == 'event file.arrived "7": where event.data.ok: it is false (event.data.ok = false)'


def test_long_values_are_cut_for_people_and_not_in_json() -> None:
    found = explain(rule("r", {"data.x": "y"}), event({"x": "x" * 500}))
    assert max(map(len, found.lines())) < 150
    assert found.as_json()["findings"][0]["actual"] == ("x" * 500,)
