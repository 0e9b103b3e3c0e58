"""The index finds exactly the rules that a slow evaluator finds, which shares no code with it."""

from __future__ import annotations

import ipaddress
import random
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

WORDS = ("a", "b", "ba", "A")
ODD = (True, False, None, 0, 1, 1.0, 2.5, 10**20, 1e20, 2**53 + 1, float(2**53), "10.0.0.1", "ß")
TEXTS = (*WORDS, *(f"{one}/{two}" for one in WORDS for two in WORDS), "a/b/a", "ba/b/ba")
texts = st.sampled_from(WORDS) | st.sampled_from(TEXTS)
odd = st.sampled_from(ODD)
numbers = st.sampled_from([0, 1, 1.0, 2.5, 10**20, 1e20, 2**53 + 1, float(2**53)])
scalars = st.one_of(texts, texts, odd)
segments = st.sampled_from(["*", "**", "ba", "a", "?", "b*a", "*a*"])
globs = st.lists(segments, min_size=1, max_size=4).map("/".join)
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
    scalars | st.lists(scalars, min_size=1, max_size=3),
    tests,
    tests,
    st.tuples(tests, tests).map(lambda pair: pair[0] | pair[1]),
)
inner_paths = st.sampled_from(["x", "y"])
outer_paths = st.sampled_from(
    ["type", "subject", "subject", "data", "data.x", "data.x", "data.y", "data.x.y", "meta.x"]
)


def matches(paths: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Mostly one or two conditions: the more there are, the less often any event meets them all."""
    single = st.builds(lambda path, condition: {path: condition}, paths, conditions)
    pair = st.builds(lambda one, two: one | two, single, single)
    element = st.builds(
        lambda path, match: {"any": {"in": path, "match": match}},
        paths,
        st.dictionaries(inner_paths, conditions, min_size=1, max_size=2),
    )
    combined = st.builds(
        lambda name, parts: {name: parts},
        st.sampled_from(["any_of", "all_of", "none_of"]),
        st.lists(single | pair | element, min_size=1, max_size=3),
    )
    nested = st.builds(lambda name, part: {name: [part]}, st.sampled_from(["any_of", "none_of"]), combined)
    both = st.builds(lambda one, two: one | two, single, combined | nested)
    return st.one_of(single, single, pair, element, combined, both)


sources = st.sampled_from([None, None, ("s",), ("s", "t")])
rules = st.lists(st.tuples(sources, matches(outer_paths)), min_size=8, max_size=20)


def some_event(chance: random.Random) -> Event:
    """Values that the rules ask for, in maps, in arrays and alone."""

    def scalar() -> Any:
        return chance.choice(ODD if chance.random() < 0.3 else TEXTS if chance.random() < 0.5 else WORDS)

    def record() -> Any:
        return {name: scalar() for name in "xy" if chance.random() < 0.7}

    def field() -> Any:
        inner = [
            scalar,
            record,
            lambda: [scalar(), scalar()],
            lambda: [record(), record()],
            lambda: [[record()]],
        ]
        return chance.choice([scalar, scalar, *inner, list])()

    data = {name: field() for name in "xy" if chance.random() < 0.9}
    return Event(
        chance.choice("stu"), "1", chance.choice(WORDS), data if chance.random() < 0.8 else field(), b"",
        chance.choice([None, *TEXTS]), meta={"x": field()} if chance.random() < 0.7 else {},
    )  # fmt: skip


POOL = [some_event(random.Random(number)) for number in range(1_000)]
"""Drawn beforehand: rules are what is searched through, and each set of them meets many events."""


def view(event: Event) -> dict[str, Any]:
    attributes = {"type": event.type, "data": event.data, "meta": event.meta}
    return attributes if event.subject is None else attributes | {"subject": event.subject}


@settings(max_examples=100, deadline=None)
@given(rules, st.integers(0, 9), st.sampled_from([3, 3, 1]))
def test_the_index_finds_what_the_slow_evaluator_finds(
    drawn: list[tuple[tuple[str, ...] | None, dict[str, Any]]], part: int, times: int
) -> None:
    """Three of each rule are enough for every anchor to get a table; one of each is often just listed."""
    drawn = drawn * times
    compiled = [
        Rule(f"r{n}", None if names is None else frozenset(names), compile_pattern(match))
        for n, (names, match) in enumerate(drawn)
    ]
    matcher = Matcher(compiled)
    for event in POOL[part * 100 :][:100]:
        wanted = [
            f"r{n}"
            for n, (names, match) in enumerate(drawn)
            if (names is None or event.source in names) and expected(match, view(event))
        ]
        assert [rule.name for rule in matcher.match(event)] == wanted
        assert [rule.name for rule in compiled if rule.takes(event)] == wanted
        assert [rule.name for rule in compiled if explain(rule, event).matched] == wanted


@settings(max_examples=1500, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "/", "*", "*", "*", "**/", "**", "?"]), max_size=8).map("".join),
    st.text("ab/", max_size=8),
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
