"""The index finds exactly the rules that a slow evaluator finds, which shares no code with it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from eventflow.event import JSON, Event
from eventflow.glob import compile_glob
from eventflow.matching.explain import explain
from eventflow.matching.index import Matcher
from eventflow.matching.pattern import compile_pattern
from eventflow.matching.rule import Rule

# ------------------------------------------------------------------ the meaning, read from the specification


def expected(match: Mapping[str, JSON], root: Any) -> bool:
    return all(entry(key, value, root) for key, value in match.items())


def entry(key: str, value: Any, root: Any) -> bool:
    if key == "any_of":
        return any(expected(one, root) for one in value)
    if key == "all_of":
        return all(expected(one, root) for one in value)
    if key == "none_of":
        return not any(expected(one, root) for one in value)
    if key == "any":
        return any(expected(value["match"], one) for one in opened(follow(root, value["in"])))
    found = follow(root, key)
    condition = (
        {"in": value} if isinstance(value, list) else value if isinstance(value, dict) else {"eq": value}
    )
    if "exists" in condition:
        if len(condition) == 1:
            return bool(found) is condition["exists"]
        if not condition["exists"]:
            return False
    return any(all(one(op, arg, v) for op, arg in condition.items()) for v in opened(found))


def follow(root: Any, path: str) -> list[Any]:
    found = [root]
    for name in path.split("."):
        found = [one[name] for one in opened(found) if isinstance(one, dict) and name in one]
    return found


def opened(values: list[Any]) -> list[Any]:
    flat: list[Any] = []
    for value in values:
        flat += opened(value) if isinstance(value, list) else [value]
    return flat


def same(value: Any, wanted: Any) -> bool:
    if isinstance(value, dict):
        return False
    return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted


def one(op: str, arg: Any, value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    text = isinstance(value, str)
    match op:
        case "exists":
            return True
        case "eq":
            return same(value, arg)
        case "in":
            return any(same(value, each) for each in arg)
        case "not" if isinstance(arg, dict):
            return not all(one(*pair, value) for pair in arg.items())
        case "not":
            return not any(same(value, each) for each in (arg if isinstance(arg, list) else [arg]))
        case "between":
            return number and arg[0] <= value < arg[1]
        case "gt" | "gte" | "lt" | "lte":
            return (
                number
                and {"gt": value > arg, "gte": value >= arg, "lt": value < arg, "lte": value <= arg}[op]
            )
    if not text:
        return False
    match op:
        case "prefix":
            return value.startswith(arg)
        case "suffix":
            return value.endswith(arg)
        case "contains":
            return arg in value
        case "ieq":
            return value.casefold() == arg.casefold()
        case "glob":
            return by_definition(arg, value)
        case "cidr":
            try:
                return ipaddress.ip_address(value) in ipaddress.ip_network(arg, strict=False)
            except ValueError:
                return False
    raise AssertionError(op)


# ------------------------------------------------------------------ rules and events that often meet

WORDS = ("a", "b", "ds1", "landing", "eu", "EU", "ß", "ss", "x.csv", "10.0.0.1")
texts = st.one_of(
    st.sampled_from(WORDS),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map("/".join),
)
numbers = st.sampled_from([0, 1, 1.0, -1, 2, 2.5, 10**20, 1e20, 2**53 + 1, float(2**53)])
scalars = st.one_of(texts, numbers, st.booleans(), st.none())
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=6,
)
globs = st.lists(
    st.sampled_from(["*", "**", "ds1", "a*", "?", "*.csv", "l*g", "*s*1"]), min_size=1, max_size=4
).map("/".join)
tests = st.one_of(
    scalars.map(lambda v: {"eq": v}),
    st.lists(scalars, min_size=1, max_size=3).map(lambda v: {"in": v}),
    st.one_of(scalars, st.lists(scalars, min_size=1, max_size=2)).map(lambda v: {"not": v}),
    texts.map(lambda v: {"not": {"prefix": v}}),
    st.tuples(st.sampled_from(["prefix", "suffix", "contains", "ieq"]), texts).map(lambda p: {p[0]: p[1]}),
    globs.map(lambda v: {"glob": v}),
    st.tuples(st.sampled_from(["gt", "gte", "lt", "lte"]), numbers).map(lambda p: {p[0]: p[1]}),
    st.sampled_from([{"between": [0, 2]}, {"between": [1.5, 10**20]}, {"cidr": "10.0.0.0/8"}]),
    st.booleans().map(lambda v: {"exists": v}),
)
conditions = st.one_of(
    scalars,
    st.lists(scalars, min_size=1, max_size=3),
    tests,
    st.tuples(tests, tests).map(lambda pair: pair[0] | pair[1]),
)
inner_paths = st.sampled_from(["x", "y", "x.y", "z.x"])
outer_paths = st.sampled_from(
    ["type", "subject", "data", "data.x", "data.x.y", "data.y", "data.z.x", "meta.x"]
)


def matches(paths: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    plain = st.dictionaries(paths, conditions, min_size=1, max_size=3)
    element = st.builds(
        lambda path, match: {"any": {"in": path, "match": match}},
        paths,
        st.dictionaries(inner_paths, conditions, min_size=1, max_size=2),
    )
    return st.recursive(
        plain | element,
        lambda inner: st.builds(
            lambda name, parts, beside: {**beside, name: parts},
            st.sampled_from(["any_of", "all_of", "none_of"]),
            st.lists(inner, min_size=1, max_size=3),
            plain,
        ),
        max_leaves=4,
    )


rules = st.lists(
    st.tuples(st.sampled_from([None, ("s",), ("t",), ("s", "t")]), matches(outer_paths)), max_size=12
)
events = st.builds(
    lambda source, type_, subject, data, meta: Event(source, "1", type_, data, b"", subject, meta=meta),
    st.sampled_from(["s", "t", "u"]),
    texts,
    st.none() | texts,
    values,
    st.dictionaries(st.sampled_from("xy"), values, max_size=2),
)


def view(event: Event) -> dict[str, Any]:
    attributes = {"type": event.type, "data": event.data, "meta": event.meta}
    return attributes if event.subject is None else attributes | {"subject": event.subject}


@settings(max_examples=200, deadline=None)
@given(rules, st.lists(events, min_size=1, max_size=8), st.sampled_from([1, 3]))
def test_the_index_finds_what_the_slow_evaluator_finds(
    drawn: list[tuple[tuple[str, ...] | None, dict[str, Any]]], sent: list[Event], times: int
) -> None:
    """Three of each rule are enough for every anchor to get a table; one of each is often just listed."""
    drawn = drawn * times
    compiled = [
        Rule(f"r{n}", None if names is None else frozenset(names), compile_pattern(match))
        for n, (names, match) in enumerate(drawn)
    ]
    matcher = Matcher(compiled)
    for event in sent:
        wanted = [
            f"r{n}"
            for n, (names, match) in enumerate(drawn)
            if (names is None or event.source in names) and expected(match, view(event))
        ]
        assert [rule.name for rule in matcher.match(event)] == wanted
        assert [rule.name for rule in compiled if rule.takes(event)] == wanted
        assert [rule.name for rule in compiled if explain(rule, event).matched] == wanted


@settings(max_examples=600, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "/", "*", "**/", "**", "?", "ab", "."]), max_size=7).map("".join),
    st.text("ab/.", max_size=8),
)
def test_a_glob_means_what_backtracking_says(glob: str, text: str) -> None:
    assert compile_glob(glob).match(text) == by_definition(glob, text)


def by_definition(glob: str, text: str, begins: bool = True) -> bool:
    """`begins`: the glob read so far ends at the beginning of a segment of the glob."""
    if not glob:
        return not text
    stars = len(glob) - len(glob.lstrip("*"))
    rest = glob[stars:]
    if stars == 2 and begins and rest.startswith("/"):
        starts = [0, *(at + 1 for at, character in enumerate(text) if character == "/")]
        return any(by_definition(rest[1:], text[at:]) for at in starts)
    if stars >= 2:
        return any(by_definition(rest, text[at:], begins=False) for at in range(len(text) + 1))
    if stars == 1:
        ends = [at for at in range(len(text) + 1) if "/" not in text[:at]]
        return any(by_definition(rest, text[at:], begins=False) for at in ends)
    if not text or (glob[0] != text[0] and (glob[0] != "?" or text[0] == "/")):
        return False
    return by_definition(glob[1:], text[1:], begins=glob[0] == "/")
