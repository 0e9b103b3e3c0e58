"""Rule files are YAML 1.2 with places, and no bytes end in a traceback."""

# ruff: noqa: E501 - words and tokens in rows

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflow.rulefile.nodes import MapNode, Mark, plain_value
from eventflow.rulefile.yaml import MAX_BYTES, read_yaml


def read(text: str | bytes) -> tuple[Any, bool, list[tuple[int, int, str]]]:
    problems: list[tuple[int, int, str]] = []
    content = text.encode() if isinstance(text, str) else text
    node, complete = read_yaml(
        content, lambda mark, message: problems.append((mark.line, mark.column, message))
    )
    return (None if node is None else plain_value(node)), complete, problems


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("017", 17), ("0o17", 15), ("0x1F", 31), ("+3", 3), ("-0", 0), ("1e3", 1000.0), (".5", 0.5), ("1.", 1.0),
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("06:00", "06:00"), ("12:30:45", "12:30:45"), ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"), ("true", True), ("False", False), ("~", None), ("null", None), ("", None),
        ("nULL", "nULL"), ("0b11", "0b11"), ("1.2.3", "1.2.3"), ("'5'", "5"), ("!!str 5", "5"), ("! 5", "5"),
        ("!!float 5", 5.0), ("9" * 100, int("9" * 100)), ("a-b", "a-b"),
    ],
)  # fmt: skip
def test_a_word_means_what_yaml_1_2_says(word: str, value: Any) -> None:
    read_value, complete, problems = read(f"x: {word}\n")
    assert complete
    assert not problems
    assert read_value == {"x": value}
    assert type(read_value["x"]) is type(value)


@pytest.mark.parametrize(
    "word", [".nan", ".NaN", ".inf", "-.inf", "+.INF", "1e999", "9" * 101, "9" * 5000, "!!int x"]
)
def test_what_cannot_be_compared_is_an_error_at_its_place(word: str) -> None:
    _, complete, problems = read(f"a: 1\nx: {word}\n")
    assert complete
    assert [problem[:2] for problem in problems] == [(2, 4)]


def test_every_key_and_value_knows_its_place() -> None:
    node, _ = read_yaml("rules:\n  é: {a: [1, 'x']}\n".encode(), lambda *_: None)
    assert isinstance(node, MapNode)
    inner = node.entries["rules"].value
    assert isinstance(inner, MapNode)
    assert inner.entries["é"].key == Mark(2, 3)
    assert inner.entries["é"].value.mark == Mark(2, 6)
    listed = inner.entries["é"].value
    assert isinstance(listed, MapNode)
    assert listed.entries["a"].value.mark == Mark(2, 10)


def test_a_duplicate_is_reported_at_the_second_place_and_names_the_first() -> None:
    value, complete, problems = read('a: 1\nb:\n  c: 1\n  "c": 2\na: 3\n')
    assert complete
    assert value == {"a": 1, "b": {"c": 1}}
    assert problems == [
        (4, 3, "duplicate key 'c'; the first is at 3:3"),
        (5, 1, "duplicate key 'a'; the first is at 1:1"),
    ]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: 1\n---\nb: 2\n", (2, 1), "second document"),
        ("a: &x [*x]\n", (1, 8), "inside what it names"),
        ("a: *x\n", (1, 4), "no anchor"),
        ("a: !!python/object:os.system x\n", (1, 4), "not allowed"),
        ("a: !mine x\n", (1, 4), "not allowed"),
        ("a: [1, 2\n", (1, 4), "not valid YAML"),
        ('a: "x\n', (1, 4), "not valid YAML"),
        ("\ta: 1\n", (1, 1), "tabs"),
        ("[a]: 1\n", (1, 1), "cannot be a key"),
        ("a: b: c\n", (1, 5), "mapping values"),
        (b"a: 1\nb: \xff\n", (2, 4), "UTF-8"),
        ("a: \x07\n", (1, 4), "control character"),
        ("[" * 101, (1, 101), "nested deeper"),
        ("- " * 200_000, (1, 201), "nested deeper"),
        (b"#" * (MAX_BYTES + 1), (1, 1), "1 MiB"),
    ],
)
def test_a_file_that_cannot_be_read_to_its_end_says_where_and_why(
    text: str | bytes, place: tuple[int, int], words: str
) -> None:
    _, complete, problems = read(text)
    assert not complete
    assert len(problems) == 1
    assert problems[0][:2] == place
    assert words in problems[0][2]


def test_nesting_of_a_hundred_and_a_mebibyte_are_fine() -> None:
    assert read("[" * 100 + "]" * 100)[1]
    assert read(b"#" * MAX_BYTES) == (None, True, [])


def test_a_hundred_aliases_are_fine_and_one_more_is_not() -> None:
    file = "a: &x {k: 1}\nb: [" + ", ".join(["*x"] * 100)
    assert read(file + "]")[1]
    assert "more than 100 aliases" in read(file + ", *x]")[2][0][2]


def test_aliases_cannot_make_a_large_file_of_a_small_one() -> None:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    lines += [
        f"{new}: &{new} [{','.join(['*' + old] * 9)}]"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    _, complete, problems = read("\n".join(lines))
    assert not complete
    assert "aliases make more than" in problems[0][2]


def test_aliases_cannot_nest_deeper_than_a_file_may() -> None:
    assert (
        "through the alias"
        in read("a: &a " + "[" * 60 + "]" * 60 + "\nb: " + "[" * 60 + "*a" + "]" * 60)[2][0][2]
    )


def test_keys_that_are_no_text_must_be_quoted() -> None:
    _, complete, problems = read("1: a\ntrue: b\n~: c\n'2': d\n")
    assert complete
    assert [problem[0] for problem in problems] == [1, 2, 3]


_TOKENS = st.sampled_from(
    ["[", "]", "{", "}", ":", " ", "\n", "-", "?", "&a ", "*a", "!", "!!str ", '"', "'", "|", ">", "%", "@", "#", ",", "a", "1",
     "é", "\t", "---", "...", "\\", ".nan", "\r", "\u2028", "!<x>", "%YAML 1.2", "<<", "~", "0x", "\ufeff", "\x00"]
)  # fmt: skip


@given(st.lists(_TOKENS, max_size=40).map("".join))
def test_no_text_ends_in_a_traceback(text: str) -> None:
    _, complete, problems = read(text)
    assert complete or problems


@given(st.binary(max_size=200))
def test_no_bytes_end_in_a_traceback(content: bytes) -> None:
    _, complete, problems = read(content)
    assert complete or problems
