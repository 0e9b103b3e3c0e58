"""CEL in `where` and holes: results, errors, exactness, and what an expression may cost."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from eventflow.event import Event, decode_json
from eventflow.expression import (
    EvaluationError,
    Expression,
    ExpressionError,
    Template,
    VarType,
    activate,
    event_values,
)
from eventflow.expression.template import HoleError

VARIABLES = {"event": VarType.event}
SIX = datetime(2026, 1, 1, 6, tzinfo=UTC)


def event(data: Any = None, **more: Any) -> Event:
    return Event(source="landing", id="7", type="file.arrived", data=data, raw=b"", **more)


def run(text: str, data: Any = None, **more: Any) -> Any:
    activation = activate(event_values(event(data, **more), SIX))
    return Expression.compile(text, VARIABLES).evaluate(activation)


RESULTS: list[tuple[str, Any, Any]] = [
    ("event.data.rows % 2 == 0", {"rows": 4}, True),
    ("event.data.x > 1.5", {"x": 2}, True),
    ("event.data.x == 2.0", {"x": 2}, True),
    ("event.data.x == '2'", {"x": 2}, False),
    ("event.data.x == true", {"x": 1}, False),
    ("event.data.x == null", {"x": None}, True),
    ("1 in event.data.l", {"l": [1.0]}, True),
    ("'a' in event.data", {"a": 1}, True),
    ("event.data.gone == 1 || true", {}, True),
    ("true || event.data.gone == 1", {}, True),
    ("event.data.gone == 1 && false", {}, False),
    ("has(event.data.gone)", {}, False),
    ("has(event.data.x)", {"x": None}, True),
    ("has(event.subject)", {}, False),
    ("has(event.time)", {}, False),
    ("has(event.ingested)", {}, True),
    ("event.data.x ? 'yes' : 'no'", {"x": True}, "yes"),
    ("event.data.l.map(e, e.p)", {"l": [{"p": 1}, {"p": "b"}]}, [1, "b"]),
    ("event.data.l.exists(x, x > 2)", {"l": [1, 3]}, True),
    ("event.data.l.filter(x, x > 2)", {"l": [1, 3]}, [3]),
    ("event.data.s.matches('a+')", {"s": "baa"}, True),
    ("event.data.s.startsWith('b') && event.data.s.size() == 3", {"s": "baa"}, True),
    ("event.data['a.b']", {"a.b": 3}, 3),
    ("event.data", {"z": [1, None, True, 1.5]}, {"z": [1, None, True, 1.5]}),
    ("{'b': 1, 'a': event.type}", {}, {"a": "file.arrived", "b": 1}),
    ("event.type + '/' + event.source", {}, "file.arrived/landing"),
    ("event.ingested", {}, "2026-01-01T06:00:00Z"),
    ("event.ingested > timestamp('2025-12-31T00:00:00Z')", {}, True),
    ("event.ingested + duration('90m')", {}, "2026-01-01T07:30:00Z"),
    ("event.ingested - timestamp('2026-01-01T00:00:00Z')", {}, "6h"),
    ("-event.data.x", {"x": 5}, -5),
]


@pytest.mark.parametrize(("text", "data", "result"), RESULTS)
def test_an_expression_gives_plain_json(text: str, data: Any, result: Any) -> None:
    found = run(text, data)
    assert found == result
    assert type(found) is type(result)


@pytest.mark.parametrize(
    ("text", "data", "message"),
    [
        ("event.data.gone == 1", {}, "missing field 'gone'"),
        ("event.subject == 'x'", {}, "missing field 'subject'"),
        ("event.data.x.y == 1", {"x": 5}, "no map"),
        ("event.data.x + 'a'", {"x": 1}, r"types that do not fit: `\+` between an int and a string"),
        ("event.data.x > 1", {"x": "a"}, "types that do not fit: `>` between a string and an int"),
        ("!event.data.x", {"x": "a"}, "types that do not fit: `!` takes true or false"),
        ("event.data.x / 0", {"x": 1}, "divide by zero"),
        ("event.data.x + 1", {"x": 2**63 - 1}, "overflow"),
        ("event.data.x + 1", {"x": 2**70}, "types that do not fit"),
        ("event.data.x / 0.0", {"x": 1.0}, "JSON cannot say"),
        ("{1: 2}", {}, "string keys only"),
    ],
)
def test_what_goes_wrong_is_an_evaluation_error(text: str, data: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        run(text, data)


def test_a_condition_must_end_in_true_or_false() -> None:
    condition = Expression.compile("event.data.x", VARIABLES, boolean=True)
    assert condition.test(activate(event_values(event({"x": True}))))
    with pytest.raises(EvaluationError, match="not bool"):
        condition.test(activate(event_values(event({"x": 1}))))
    with pytest.raises(ExpressionError, match="true or false"):
        Expression.compile("'text'", VARIABLES, boolean=True)


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("evnt.data.x", "did you mean 'event'?", 1),
        ("event.data.x + ", "the expression ends too early", 16),
        ("event.data.x = 1", "CEL has no '=' here; write '=='", 14),
        ("event.data.x and true", "CEL has no 'and' here; write '&&'", 14),
        ("event.data.x or true", "CEL has no 'or' here; write '||'", 14),
        ("not event.data.x", "CEL has no 'not'; write '!'", 1),
        ("event.data.x <> 1", "CEL has no '<>'; write '!='", 14),
        ("(event.data.x", "')' is missing", None),
        ("event.data.x)", "')' cannot stand here", 13),
        ("'abc", "the text that begins with ' has no end", 1),
        ("event.data.x.startswith('a')", "unknown function 'startswith'; did you mean 'startsWith'?", 14),
        ("len(event.data.x)", "unknown function 'len'; did you mean 'size'?", 1),
        ("data.size > 1", "unknown name 'data'; did you mean 'event.data.size'?", 1),
        ("event.data.x == None", "unknown name 'None'; did you mean 'null'?", 17),
        ("params.x", "unknown name 'params'; here you may read ", 1),
        ("1 + 'a'", "types that do not fit: `+` between an int and a string", 3),
        ("event.data.x == 1 &&\n  nonsense(1)", "nonsense", None),
        ("event.data.l.map(event, 1)", "that name is taken", None),
        ("event.data.x.matches(event.data.y)", "written out", None),
        ("'a'.matches('(')", "matches", None),
        ("b'abc'", "no JSON form", None),
        ("google.protobuf.Any{}", "no JSON form", None),
        ("'\ud800'", "Unicode", None),
        ("(" * 2_000 + "1" + ")" * 2_000, "", None),
        ("1" + "+1" * 60_000, "", None),
    ],
)
def test_what_does_not_compile_is_an_error_at_load(text: str, message: str, column: int | None) -> None:
    with pytest.raises(ExpressionError) as caught:
        Expression.compile(text, VARIABLES)
    assert message in caught.value.message
    assert column is None or caught.value.column == column


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("event.data.big > 5", True), ("event.data.big > 1.5", True), ("event.data.low < 5", True),
        ("event.data.big > 9223372036854775807", True), ("event.data.low < -9223372036854775808", True),
        ("event.data.edge > 9223372036854775807", True), ("event.data.big < 5", False),
        ("event.data.big > 5 && event.data.big == event.data.next", False),
        ("event.data.big > 5 && event.data.big < event.data.next", True),
        ("event.data.big > 5 && event.data.big == event.data.same", True),
        ("event.data.l.exists(x, x > 5)", True), ("event.data.big in [1, 2]", False),
        ("event.data.gone > 1 || event.data.big > 1", True),
    ],
)  # fmt: skip
def test_integers_of_any_size_compare_by_value_in_a_condition(text: str, holds: bool) -> None:
    big = 10**30
    data = {"big": big, "same": big, "next": big + 1, "low": -big, "edge": 2**63, "l": [1, 10**99]}
    condition = Expression.compile(text, VARIABLES, boolean=True)
    assert condition.test(activate(event_values(event(data)))) is holds


def test_a_missing_field_beside_a_large_integer_is_still_an_error() -> None:
    condition = Expression.compile("event.data.big < 5 || event.data.gone", VARIABLES, boolean=True)
    with pytest.raises(EvaluationError, match="missing field 'gone'"):
        condition.test(activate(event_values(event({"big": 10**30}))))


def test_data_goes_through_unchanged_whatever_it_is() -> None:
    raw = b'{"n": -1000000000000000000000000000000, "deep": [[{"z": 1, "a": 9223372036854775808}]]}'
    data = decode_json(raw) | {"nul": "a\0b"}
    for text in ("event.data", "[event.data][0]", "true ? event.data : null"):
        assert run(text, data) == data
    assert run("event.data.n == event.data.m", {"n": 10**30, "m": 10**30})
    assert run("event.data.n < event.data.m", {"n": 10**30, "m": 10**31})
    assert run("event.data.n > event.data.m", {"n": -(10**30), "m": -(10**31)})


def test_references_are_the_fields_that_it_reads() -> None:
    compiled = Expression.compile(
        "event.data.l.exists(e, e.p == event.data['q.r']) && has(event.time) && event.subject != ''",
        VARIABLES,
    )
    assert compiled.references == (
        ("event", "data", "l"), ("event", "data", "q.r"), ("event", "time"), ("event", "subject"),
    )  # fmt: skip


def test_one_activation_serves_every_expression() -> None:
    activation = activate(event_values(event({"n": 3})))
    results = [Expression.compile(f"event.data.n + {n}", VARIABLES).evaluate(activation) for n in range(3)]
    assert results == [3, 4, 5]


DEAR = [
    ("event.data.l.all(a, event.data.l.all(b, event.data.l.all(c, true)))", {"l": list(range(1_000))}),
    ("event.data.l.map(a, event.data.l.map(b, event.data.l))", {"l": ["x" * 100] * 1_000}),
    (
        "event.data.l.exists(a, event.data.s.contains(a))",
        {"l": ["x" * 500 + "y"] * 5_000, "s": "x" * 500_000},
    ),
    ("event.data.s.contains(event.data.t)", {"s": "x" * 900_000, "t": "x" * 400_000 + "y"}),
    ("event.data.s.matches('(a+)+b')", {"s": "a" * 900_000}),
    ("event.data.l.all(x, x.matches('(a*)*b'))", {"l": ["a" * 500] * 2_000}),
]


@pytest.mark.parametrize(("text", "data"), DEAR)
def test_the_cost_of_an_evaluation_is_bounded(text: str, data: Any) -> None:
    compiled, activation = Expression.compile(text, VARIABLES), activate(event_values(event(data)))
    started = time.process_time()
    with suppress(EvaluationError):  # a bound was reached, which is one way to stay within it
        compiled.evaluate(activation)
    assert time.process_time() - started < 4


@pytest.mark.parametrize(("text", "data"), DEAR[:2])
def test_macros_end_at_their_budget(text: str, data: Any) -> None:
    with pytest.raises(EvaluationError, match=r"budget|too much work"):
        run(text, data)


# ------------------------------------------------------------------ templates


def render(value: Any, data: Any, **more: Any) -> Any:
    return Template.compile(value, VARIABLES).render(activate(event_values(event(data, **more), SIX)))


@pytest.mark.parametrize(
    ("value", "data", "result"),
    [
        ("plain", {}, "plain"),
        ("${event.data.n}", {"n": 5}, 5),
        ("${event.data.n}", {"n": None}, None),
        ("${event.data}", {"a": [1]}, {"a": [1]}),
        ("n is ${event.data.n}!", {"n": 5}, "n is 5!"),
        ("${event.data.a}${event.data.b}", {"a": 1, "b": True}, "1true"),
        ("${event.data.a} ", {"a": {"x": 1}}, '{"x":1} '),
        ("$${event.data.n}", {}, "${event.data.n}"),
        ("costs $5 {really}", {}, "costs $5 {really}"),
        ("${ {'a': event.data.n}['a'] }", {"n": 1}, 1),
        ("${'}' + event.data.s}", {"s": "{"}, "}{"),
        ("""${"\\"}" + event.data.s}""", {"s": "x"}, '"}x'),
        ({"a": ["${event.data.n}", 1], "b": None}, {"n": 2}, {"a": [2, 1], "b": None}),
    ],
)
def test_holes_are_filled(value: Any, data: Any, result: Any) -> None:
    assert render(value, data) == result


@pytest.mark.parametrize(
    ("value", "path", "offset", "message"),
    [
        ("day ${event.data.n", (), 4, "not closed"),
        ({"a": ["x", "${evnt}"]}, ("a", 1), 2, "did you mean 'event'?"),
        ("${}", (), 2, ""),
        ("${secret.KEY}", (), 0, "secret"),
    ],
)
def test_a_bad_hole_is_said_with_its_place(value: Any, path: Any, offset: int, message: str) -> None:
    with pytest.raises(HoleError) as caught:
        Template.compile(value, VARIABLES)
    assert caught.value.path == path
    assert caught.value.offset >= offset
    assert message in caught.value.message


def test_a_hole_that_fails_names_itself() -> None:
    with pytest.raises(EvaluationError, match=r"hole 'event.data.gone': missing field 'gone'"):
        render("x ${event.data.gone}", {})


def test_secrets_are_resolved_only_where_they_may_stand() -> None:
    template = Template.compile("key=${secret.KEY}", {}, secrets=True)
    assert template.render(activate({}), {"KEY": "s3"}.__getitem__) == "key=s3"
    with pytest.raises(EvaluationError, match="not given here"):
        template.render(activate({}))


def test_event_data_is_never_a_template() -> None:
    assert render("${event.data.s}", {"s": "${event.type}"}) == "${event.type}"
