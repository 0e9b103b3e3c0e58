"""Whatever stands in a rule file or test file, reading it ends in a rule set or in problems with places."""

# ruff: noqa: E501 - rule files are written as people write them

from __future__ import annotations

import json
import random
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventflow.errors import RuleSetError
from eventflow.rulefile.cases import read_cases
from eventflow.rulefile.connectors import find_connectors
from eventflow.rulefile.load import load
from eventflow.rulefile.ruleset import RuleSet
from eventflow.rulefile.verdict import judge

CONNECTORS = find_connectors()
EXAMPLES = Path(__file__).parents[2] / "rules"
RULES = (EXAMPLES / "files.yaml").read_text()
CASES = (EXAMPLES / "files.test.yaml").read_text()
EVERYTHING = """\
sources:
  landing: {connector: file, path: x, initial: process, pattern: "{a}_{day:%Y-%m-%d}.csv", settle: {quiet: 2s}}
  hook: {connector: webhook, verify: {scheme: hmac, header: X, secrets: ["${secret.A}"]}, id: data.id, limit: 1MiB}
workflows:
  w:
    params: {path: string, n: {type: int, default: 1}, day: {type: date, default: 2026-01-31}}
    tasks:
      a: {python: "m:f", with: {x: "${params.path}", y: [1, "${params.n}"]}, retry: {attempts: 2, backoff: 1s}}
      b: {shell: [x, "${tasks.a.result.rows}"], after: [a], timeout: 1m}
rules:
  r:
    from: [landing, eventflow]
    match: &m
      type: [file.arrived, eventflow.run.failed]
      data.n: {gt: 1, lte: 5}
      data."odd key": {not: {prefix: a}}
      any_of: [{data.a: {glob: "*.csv"}}, {data.b: {cidr: [10.0.0.0/8]}}]
      none_of: [{data.c: {between: [1, 2]}}]
      any: {in: data.items, match: {x: 1, y: {exists: true}}}
    where: has(event.data.n) && event.data.tags.exists(t, t == "x")
    run: w
    with: {path: "${event.data.path}", n: 5}
    emit: done
    reentry: 3
  s: {match: *m, emit: other, tags: [a, b]}
"""
VALUES = (
    "null", "true", "5", "-1", "1.5", ".nan", "''", "x", "[]", "{}", "[{}]", "{a: 1}", "${x}", "'${x'", "'${event}'",
    "*m", "!!str 5", "2s", "\"\\0\"", "9" * 120, "{" * 30, "'${params.path}'", "event", "\x85", "😀",
)  # fmt: skip


def end(files: dict[str, bytes]) -> RuleSet | None:
    """The set, or None where it has problems, each at a place of one of its files."""
    try:
        return load(files, Path("/set"), CONNECTORS)
    except RuleSetError as error:
        problems = error.problems
    assert any(not problem.warning for problem in problems)
    for problem in problems:
        assert problem.file in files
        lines = files[problem.file].decode("utf-8", "replace").count("\n") + 1
        assert (
            1 <= problem.line <= max(lines, 1) + 1
            or b"\r" in files[problem.file]
            or b"\x85" in files[problem.file]
        )
        assert problem.column >= 1
        assert problem.message
    return None


@st.composite
def mutated(draw: st.DrawFn, *texts: str) -> str:
    """A text that was right, with lines, words and characters of it lost, doubled, moved or replaced."""
    text = draw(st.sampled_from(texts))
    chance = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.integers(1, 4))):
        text = _mutation(text, chance)
    return text


def _mutation(text: str, chance: random.Random) -> str:
    lines = text.split("\n")
    at, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    here = chance.randrange(len(text) + 1)
    kind = chance.randrange(6)
    if kind == 0:
        del lines[at]
        return "\n".join(lines)
    if kind == 1:
        lines.insert(at, lines[other])
        return "\n".join(lines)
    if kind == 2:  # a value is replaced
        key, colon, _ = lines[at].partition(": ")
        lines[at] = key + colon + chance.choice(VALUES)
        return "\n".join(lines)
    if kind == 3:
        return text[:here] + text[here + chance.randrange(1, 8) :]
    if kind == 4:
        return text[:here] + chance.choice(VALUES) + text[here:]
    words = text.split(" ")
    one, two = chance.randrange(len(words)), chance.randrange(len(words))
    words[one], words[two] = words[two], words[one]
    return " ".join(words)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated(RULES, EVERYTHING))
def test_a_mutated_rule_file_ends_in_a_set_or_in_problems(text: str) -> None:
    end({"r.yaml": text.encode("utf-8", "replace")})


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=120), st.text(max_size=120).map(lambda text: text.encode("utf-8", "replace"))
    )
)
def test_any_bytes_end_in_a_set_or_in_problems(content: bytes) -> None:
    end({"r.yaml": content, "b.yaml": b"rules: {r: {match: {type: x}, emit: y}}"})


_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from(["", "x", "landing", "w", "2s", "${x}"])
)
_WORDS = st.sampled_from(
    ["sources", "rules", "workflows", "r", "from", "match", "run", "with", "when", "emit", "type", "data.x", "tasks",
     "params", "after", "shell", "python", "retry", "connector", "initial", "any", "in", "any_of", "gt", "", "a b"]
)  # fmt: skip
_TREES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_WORDS, inner, max_size=4)),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(["sources", "workflows", "rules"]), _TREES, max_size=3), _TREES)
def test_any_shape_under_the_right_words_ends_in_a_set_or_in_problems(
    tree: object, definition: object
) -> None:
    end({"r.yaml": json.dumps(tree).encode()})
    for section, known in (
        ("sources", "connector: file"),
        ("workflows", "tasks: {a: {shell: [x]}}"),
        ("rules", "emit: y"),
    ):
        end({"r.yaml": f"{section}: {{a: {json.dumps(definition)}, b: {{{known}}}}}".encode()})


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated(CASES))
def test_a_mutated_test_file_ends_in_verdicts_or_in_problems(text: str) -> None:
    ruleset = load({"files.yaml": RULES.encode()}, EXAMPLES, CONNECTORS)
    try:
        cases = read_cases({"files.test.yaml": text.encode("utf-8", "replace")}, ruleset)
    except RuleSetError:
        return
    for case in cases[:5]:
        judge(case, ruleset, 0)
