"""`match`: every operator and combinator, as SPEC says them, on values one would not think of."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from eventflow.event import Event, decode_json
from eventflow.matching import operators
from eventflow.matching.index import Matcher
from eventflow.matching.pattern import Pattern, PatternError, compile_pattern
from eventflow.matching.rule import Rule


def event(data: Any = None, **attributes: Any) -> Event:
    given: dict[str, Any] = {
        "source": "landing",
        "id": "1",
        "type": "file.arrived",
        "data": data,
        "raw": b"",
    } | attributes
    return Event(**given)


def holds(match: dict[str, Any], data: Any = None, **attributes: Any) -> bool:
    """The pattern's own answer; the index must give the same, listed and in a table."""
    pattern, one = compile_pattern(match), event(data, **attributes)
    answer = pattern.matches(one)
    for number in (1, 5):
        found = Matcher([Rule(f"r{n}", None, pattern) for n in range(number)]).match(one)
        assert len(found) == (number if answer else 0)
    return answer


BIG = 10**40
HOLDS = [
    # equality is strict, numbers compare by value
    ("orders", "orders", True),
    ("1", 1, False),
    (1, "1", False),
    (1, 1.0, True),
    (1.0, 1, True),
    (1, True, False),
    (True, 1, False),
    (True, True, True),
    (False, 0, False),
    (0, False, False),
    (0, -0.0, True),
    (None, None, True),
    (None, False, False),
    (None, "", False),
    ("", "", True),
    ("", None, False),
    (BIG, BIG, True),
    (BIG, BIG + 1, False),
    (2**53 + 1, float(2**53), False),
    (2**53, float(2**53), True),
    ("a", {"a": 1}, False),
    # a list is any of
    (["eu", "us"], "us", True),
    (["eu", "us"], "apac", False),
    ([1, "x"], 1.0, True),
    ([1, "x"], True, False),
    ([None, 1], None, True),
    ([True], 1, False),
    # operators, all of them hold
    ({"eq": 1}, 1, True),
    ({"in": [1, 2]}, 2, True),
    ({"gt": 0, "lt": 10}, 5, True),
    ({"gt": 0, "lt": 10}, 10, False),
    ({"gt": 0, "lt": 10}, 0, False),
    ({"gte": 0, "lte": 10}, 10, True),
    ({"gt": 1}, "2", False),
    ({"gt": 0}, True, False),
    ({"lt": 1}, None, False),
    ({"gt": 2**53}, 2**53 + 1, True),
    ({"gt": float(2**53)}, 2**53 + 1, True),
    ({"lt": BIG}, BIG - 1, True),
    ({"lt": 1e308}, 10**400, False),
    ({"between": [1, 3]}, 1, True),
    ({"between": [1, 3]}, 3, False),
    ({"between": [1, 3]}, 2.999, True),
    ({"between": [0, 2]}, True, False),
    ({"prefix": "land"}, "landing", True),
    ({"prefix": ""}, "anything", True),
    ({"prefix": ""}, "", True),
    ({"prefix": ""}, 1, False),
    ({"prefix": "1"}, 1, False),
    ({"suffix": ".csv"}, "a.csv", True),
    ({"suffix": ".csv"}, "a.csv.gz", False),
    ({"contains": "b"}, "abc", True),
    ({"contains": "b"}, {"b": 1}, False),
    ({"prefix": "a", "suffix": "c"}, "abc", True),
    # ieq folds, and does no more than that
    ({"ieq": "STRASSE"}, "straße", True),
    ({"ieq": "straße"}, "STRASSE", True),
    ({"ieq": "İ"}, "i", False),
    ({"ieq": "é"}, "e\u0301", False),
    ({"ieq": "Σ"}, "ς", True),
    ({"ieq": "1"}, 1, False),
    # glob
    ({"glob": "*.csv"}, "a.csv", True),
    ({"glob": "*.csv"}, "x/a.csv", False),
    ({"glob": "a/**/b"}, "a/b", True),
    ({"glob": "[ab]"}, "a", False),
    ({"glob": "a"}, "a", True),
    # cidr
    ({"cidr": "10.0.0.0/8"}, "10.1.2.3", True),
    ({"cidr": "10.1.2.3/8"}, "10.9.9.9", True),
    ({"cidr": "10.0.0.0/8"}, "11.0.0.0", False),
    ({"cidr": "10.0.0.0/8"}, "::ffff:10.0.0.1", False),
    ({"cidr": "10.0.0.0/8"}, "010.0.0.1", False),
    ({"cidr": "10.0.0.0/8"}, "10.0.0.1 ", False),
    ({"cidr": "10.0.0.0/8"}, 167772161, False),
    ({"cidr": "2001:db8::/32"}, "2001:db8::1", True),
    ({"cidr": ["192.168.0.0/16", "2001:db8::/32"]}, "192.168.3.4", True),
    ({"cidr": "10.0.0.1"}, "10.0.0.1", True),
    # not: the field is there, and it is not that
    ({"not": "failed"}, "done", True),
    ({"not": "failed"}, "failed", False),
    ({"not": "failed"}, None, True),
    ({"not": None}, None, False),
    ({"not": 1}, True, True),
    ({"not": ["failed", "skipped"]}, "skipped", False),
    ({"not": ["failed", "skipped"]}, "done", True),
    ({"not": {"prefix": "a"}}, "abc", False),
    ({"not": {"prefix": "a"}}, 5, True),
    ({"not": {"gt": 5}}, "x", True),
    ({"not": {"gt": 5}}, 6, False),
    ({"not": {"cidr": "10.0.0.0/8"}}, "no address", True),
    ({"not": {"in": [1]}}, {"a": 1}, True),
    ({"not": {"not": "a"}}, "a", True),
    ({"not": {"not": "a"}}, "b", False),
    ({"between": [5, 5]}, 5, False),
    ({"between": [2, 1]}, 1, False),
    ({"not": "a", "prefix": "b"}, "bc", True),
    # arrays: one element holds for the whole condition, arrays inside likewise
    ("a", ["b", "a"], True),
    ("a", [["b", ["a"]]], True),
    ("a", [], False),
    ({"gt": 1, "lt": 4}, [0, 5], False),
    ({"gt": 1, "lt": 4}, [0, 3], True),
    ({"not": "a"}, ["a", "b"], True),
    ({"not": "a"}, ["a", "a"], False),
    ({"not": "a"}, [], False),
    ({"not": "a"}, [[]], False),
    (["x", "y"], ["z", "y"], True),
    ({"prefix": "a"}, [{"a": 1}, "ab"], True),
    # exists
    ({"exists": True}, None, True),
    ({"exists": True}, [], True),
    ({"exists": False}, None, False),
    ({"exists": True, "gt": 1}, 2, True),
    ({"exists": True, "gt": 1}, 1, False),
    ({"exists": False, "gt": 1}, 2, False),
]


@pytest.mark.parametrize(("condition", "value", "answer"), HOLDS)
def test_a_condition_holds_for_a_value(condition: Any, value: Any, answer: bool) -> None:
    assert holds({"data.x": condition}, {"x": value}) is answer


@pytest.mark.parametrize(
    "condition",
    ["a", None, ["a", None], {"not": "a"}, {"not": ["a"]}, {"not": {"gt": 1}}, {"prefix": ""}, {"glob": "**"},
     {"gt": 0}, {"exists": True}],
)  # fmt: skip
@pytest.mark.parametrize("data", [{}, {"y": 1}, None, 5, "x", [], [{}], [[{"y": 1}]]])
def test_nothing_holds_for_a_missing_field(condition: Any, data: Any) -> None:
    assert not holds({"data.x": condition}, data)
    assert holds({"data.x": {"exists": False}}, data)


def test_a_path_goes_through_maps_arrays_and_quoted_names() -> None:
    data = {"items": [{"sku": "a", "n": 1}, [{"sku": "b", "n": 2}], 7], "a.b": {'say "x"': 1, "ü-_1": 2}}
    assert holds({"data.items.sku": "b"}, data)
    assert holds({"data.items.sku": "a", "data.items.n": 2}, data)
    assert not holds({"data.items.sku": "c"}, data)
    assert not holds({"data.items.sku": {"exists": False}}, data)
    assert holds({"data.items.price": {"exists": False}}, data)
    assert holds({'data."a.b"."say \\"x\\""': 1}, data)
    assert holds({'data."a.b".ü-_1': 2}, data)
    assert holds({"data.7": "digits are a name"}, {"7": "digits are a name"})
    assert holds({"data.l.m.n.o": 1}, {"l": [{"m": {"n": {"o": 1}}}]})
    assert holds({"meta.l.m.n": 1}, meta={"l": [[{"m": {"n": [1]}}]]})


def test_attributes_extensions_and_meta_are_addressable() -> None:
    at = datetime(2026, 1, 1, 6, tzinfo=UTC)
    one: dict[str, Any] = {
        "subject": "a/b.csv", "time": at, "datacontenttype": "text/csv", "dataschema": "urn:x", "id": "7",
        "extensions": {"tenant": "blue", "level": 3}, "meta": {"headers": {"x-kind": ["a", "b"]}},
    }  # fmt: skip
    for match in (
        {"type": "file.arrived"}, {"type": {"prefix": "file."}}, {"subject": {"glob": "a/*.csv"}},
        {"id": "7"},
        {"time": "2026-01-01T06:00:00Z"}, {"datacontenttype": "text/csv"}, {"dataschema": "urn:x"},
        {"tenant": "blue"}, {"level": 3}, {"meta.headers.x-kind": "b"}, {"source": "landing"},
        {"type": ["file.changed", "file.arrived"], "subject": {"suffix": ".csv"}},
    ):  # fmt: skip
        assert holds(match, **one), match
    assert holds({"source": "urn:sender"}, sender="urn:sender")
    for match in (
        {"subject": None},
        {"subject": {"not": "x"}},
        {"time": {"exists": True}},
        {"tenant": "blue"},
    ):
        assert not holds(match), match
    assert holds({"subject": {"exists": False}, "tenant": {"exists": False}})


def test_data_itself_can_be_compared() -> None:
    assert holds({"data": "plain"}, "plain")
    assert holds({"data": 2}, [1, [2]])
    assert holds({"data": None})
    assert holds({"data": {"exists": True}})
    assert not holds({"data": {"not": 1}}, [])


COMBINED = [
    ({"any_of": [{"data.a": 1}, {"data.b": 1}]}, {"b": 1}, True),
    ({"any_of": [{"data.a": 1}, {"data.b": 1}]}, {"c": 1}, False),
    ({"all_of": [{"data.a": 1}, {"data.b": 1}]}, {"a": 1, "b": 1}, True),
    ({"all_of": [{"data.a": 1}, {"data.b": 1}]}, {"a": 1}, False),
    ({"none_of": [{"data.a": 1}, {"data.b": 1}]}, {"c": 1}, True),
    ({"none_of": [{"data.a": 1}, {"data.b": 1}]}, {"b": 1}, False),
    ({"none_of": [{"data.tags": "x"}]}, {"tags": ["y", "x"]}, False),
    ({"none_of": [{"data.tags": "x"}]}, {"tags": []}, True),
    ({"data.a": 1, "any_of": [{"data.b": 1}, {"data.c": {"gt": 1}}]}, {"a": 1, "c": 2}, True),
    ({"data.a": 1, "any_of": [{"data.b": 1}]}, {"b": 1}, False),
    ({"any_of": [{"none_of": [{"data.a": 1}]}, {"all_of": [{"data.a": 1}, {"data.b": 1}]}]}, {"a": 1}, False),
    ({"any_of": [{"data.a": 1}, {"any": {"in": "data.l", "match": {"x": 1}}}]}, {"l": [{"x": 1}]}, True),
    # one element for all of it
    ({"any": {"in": "data.l", "match": {"a": 1, "b": 2}}}, {"l": [{"a": 1}, {"b": 2}]}, False),
    ({"any": {"in": "data.l", "match": {"a": 1, "b": 2}}}, {"l": [{"a": 1}, [{"a": 1, "b": 2}]]}, True),
    ({"data.l.a": 1, "data.l.b": 2}, {"l": [{"a": 1}, {"b": 2}]}, True),
    ({"any": {"in": "data.l", "match": {"a": 1}}}, {"l": {"a": 1}}, True),
    ({"any": {"in": "data.l", "match": {"a": 1}}}, {}, False),
    ({"any": {"in": "data.l", "match": {"a": {"exists": False}}}}, {"l": [{"a": 1}]}, False),
    ({"any": {"in": "data.l", "match": {"a": {"exists": False}}}}, {"l": [{"a": 1}, 5]}, True),
    ({"any": {"in": "data.l", "match": {"a": {"exists": False}}}}, {"l": []}, False),
    ({"any": {"in": "data.l.m", "match": {"a": 1}}}, {"l": [{"m": [{"a": 2}]}, {"m": {"a": 1}}]}, True),
    ({"any": {"in": "data.l", "match": {"any": {"in": "m", "match": {"a": 1, "b": 1}}}}},
     {"l": [{"m": [{"a": 1}, {"b": 1}]}]}, False),
    ({"any": {"in": "data.l", "match": {"type": "x", '"any"': 1}}}, {"l": [{"type": "x", "any": 1}]}, True),
    ({"any": {"in": "data", "match": {"a": 1}}}, [{"a": 1}], True),
]  # fmt: skip


@pytest.mark.parametrize(("match", "data", "answer"), COMBINED)
def test_combinators(match: dict[str, Any], data: Any, answer: bool) -> None:
    assert holds(match, data) is answer


def test_an_empty_pattern_takes_every_event() -> None:
    assert compile_pattern({}) == Pattern()
    assert holds({}, 5)


def test_integers_of_an_event_are_exact() -> None:
    data = decode_json(b'{"n": 100000000000000000000000000000000000001}')
    assert holds({"data.n": 10**38 + 1}, data)
    assert not holds({"data.n": 10**38}, data)


ERRORS: list[tuple[Any, tuple[Any, ...], bool, str]] = [
    ("text", (), False, "a match is a map"),
    ({"data.x": {"equals": 1}}, ("data.x", "equals"), True, "did you mean 'eq'?"),
    ({"data.x": {"prefx": "a"}}, ("data.x", "prefx"), True, "did you mean 'prefix'?"),
    ({"data.x": {"startsWith": "a"}}, ("data.x", "startsWith"), True, "did you mean 'prefix'?"),
    ({"data.x": {"zzzz": 1}}, ("data.x", "zzzz"), True, "there are eq in not"),
    ({"data.x": {}}, ("data.x",), False, "without an operator"),
    ({"data.x": []}, ("data.x",), False, "at least one value"),
    ({"data.x": [[1]]}, ("data.x", 0), False, "no list"),
    ({"data.x": {"in": "a"}}, ("data.x", "in"), False, "takes a list"),
    ({"data.x": {"in": [1, {}]}}, ("data.x", "in", 1), False, "no map"),
    ({"data.x": {"eq": [1]}}, ("data.x", "eq"), False, "no list"),
    ({"data.x": {"gt": "1"}}, ("data.x", "gt"), False, "takes numbers"),
    ({"data.x": {"gt": True}}, ("data.x", "gt"), False, "takes numbers"),
    ({"data.x": {"lt": None}}, ("data.x", "lt"), False, "takes numbers"),
    ({"data.x": {"between": [1]}}, ("data.x", "between"), False, "two numbers"),
    ({"data.x": {"between": [1, "2"]}}, ("data.x", "between", 1), False, "takes numbers"),
    ({"data.x": {"prefix": 1}}, ("data.x", "prefix"), False, "takes a text"),
    ({"data.x": {"glob": "a\\"}}, ("data.x", "glob"), False, "backslash"),
    ({"data.x": {"regex": "(a"}}, ("data.x", "regex"), False, "RE2"),
    ({"data.x": {"regex": r"(a)\1"}}, ("data.x", "regex"), False, "RE2"),
    ({"data.x": {"cidr": "10.0.0.0/33"}}, ("data.x", "cidr"), False, "cidr"),
    ({"data.x": {"cidr": ["10.0.0.0/8", 5]}}, ("data.x", "cidr", 1), False, "takes a network"),
    ({"data.x": {"cidr": []}}, ("data.x", "cidr"), False, "at least one"),
    ({"data.x": {"exists": "yes"}}, ("data.x", "exists"), False, "true or false"),
    ({"data.x": {"not": {}}}, ("data.x", "not"), False, "one operator"),
    ({"data.x": {"not": {"gt": 1, "lt": 2}}}, ("data.x", "not"), False, "one operator"),
    ({"data.x": {"not": {"gt": "1"}}}, ("data.x", "not", "gt"), False, "takes numbers"),
    ({"data.x": {"not": {"exists": True}}}, ("data.x", "not", "exists"), True, "exists: false"),
    ({"data.x": float("nan")}, ("data.x",), False, "NaN"),
    ({"data.x[0]": 1}, ("data.x[0]",), True, "no array index"),
    ({"data..x": 1}, ("data..x",), True, "single dots"),
    ({"data.": 1}, ("data.",), True, "single dots"),
    ({"data.a b": 1}, ("data.a b",), True, "needs quotes"),
    ({'data."a': 1}, ('data."a',), True, "not closed"),
    ({"date.x": 1}, ("date.x",), True, "did you mean 'data'?"),
    ({"orders.x": 1}, ("orders.x",), True, "did you mean 'data.orders.x'?"),
    ({"subject.x": 1}, ("subject.x",), True, "has no fields"),
    ({"ingested": 1}, ("ingested",), True, "not known to a pattern"),
    ({"any_of": []}, ("any_of",), False, "at least one match"),
    ({"all_of": {}}, ("all_of",), False, "at least one match"),
    ({"none_of": [{}]}, ("none_of", 0), False, "holds for everything"),
    ({"any_of": [{"data.x": 1}, {"data.y": {"gt": "a"}}]}, ("any_of", 1, "data.y", "gt"), False, "numbers"),
    ({"any": {"in": "data.l"}}, ("any",), False, "any takes"),
    ({"any": {"in": "data.l", "match": {}}}, ("any", "match"), False, "holds for everything"),
    ({"any": {"in": 5, "match": {"a": 1}}}, ("any", "in"), False, "path of an array"),
    ({"any": {"in": "data.l", "match": {"a": 1}, "x": 1}}, ("any", "x"), True, "unknown word 'x'"),
    ({"any": {"in": "data.l", "match": {"a": {"gt": "1"}}}}, ("any", "match", "a", "gt"), False, "numbers"),
]


@pytest.mark.parametrize(("match", "path", "on_key", "message"), ERRORS)
def test_what_is_wrong_is_said_with_its_place(match: Any, path: Any, on_key: bool, message: str) -> None:
    with pytest.raises(PatternError) as caught:
        compile_pattern(match)
    assert caught.value.path == path
    assert caught.value.on_key is on_key
    assert message in caught.value.message


HINTS = [
    ({"data.tags": {"not": "x"}}, ("data.tags",), "none_of"),
    ({"tpye": "x"}, ("tpye",), "did you mean 'type'?"),
    ({"data.x": {"exists": False, "gt": 1}}, ("data.x",), "never holds"),
    ({"data.x": {"between": [5, 5]}}, ("data.x",), "never holds"),
    ({"any_of": [{"data.items": {"not": 1}}]}, ("any_of", 0, "data.items"), "none_of"),
]


@pytest.mark.parametrize(("match", "path", "message"), HINTS)
def test_what_is_doubtful_is_a_hint(match: Any, path: Any, message: str) -> None:
    (hint,) = compile_pattern(match).hints
    assert hint.path == path
    assert message in hint.message


@pytest.mark.parametrize("match", [{"data.status": {"not": "x"}}, {"type": "x", "tenant": "y"}])
def test_what_is_not_doubtful_is_no_hint(match: Any) -> None:
    assert compile_pattern(match).hints == ()


def test_regex_searches_with_re2_and_is_linear() -> None:
    pytest.importorskip("re2", reason="google-re2 is an extra")
    assert holds({"data.x": {"regex": "b+"}}, {"x": "abbc"})
    assert not holds({"data.x": {"regex": "^b"}}, {"x": "abbc"})
    assert not holds({"data.x": {"regex": "1"}}, {"x": 1})
    assert not holds({"data.x": {"regex": "(a+)+$"}}, {"x": "a" * 100_000 + "b"})


def test_without_re2_a_regex_does_not_load_and_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "re2", None)
    with pytest.raises(PatternError, match=r"pip install 'eventflow\[regex\]'"):
        compile_pattern({"data.x": {"regex": "a"}})


def test_names_of_fields_are_never_run() -> None:
    name = "x'); raise SystemExit #\\n\n\"{}"
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    assert holds({f'data."{escaped}"': name}, {name: name})


def test_conditions_on_a_path_are_found_in_combinators() -> None:
    pattern = compile_pattern({"all_of": [{"type": "a"}], "none_of": [{"type": "b"}], "data.type": 1})
    assert len(pattern.conditions_on("type")) == 2
    assert not compile_pattern({"data.x": 1}).conditions_on("type")


def test_nesting_as_deep_as_a_file_may_be_is_no_problem() -> None:
    match: dict[str, Any] = {"data.x": 1}
    for _ in range(45):
        match = {"all_of": [match]}
    assert holds(match, {"x": 1})
    value: Any = 1
    for _ in range(60):
        value = [value]
    assert holds({"data.x": 1}, {"x": value})
