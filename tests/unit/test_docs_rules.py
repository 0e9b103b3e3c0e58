"""docs/rules.md tells the truth: its examples load, its cases pass, its tables of results are computed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from eventflow.event import Event, encode_json
from eventflow.matching.operators import compile_operator
from eventflow.matching.pattern import compile_pattern
from eventflow.rulefile.cases import read_cases
from eventflow.rulefile.connectors import find_connectors
from eventflow.rulefile.load import load
from eventflow.rulefile.nodes import plain_value
from eventflow.rulefile.verdict import judge
from eventflow.rulefile.words import LATER_CONNECTORS, RULE, TASK
from eventflow.rulefile.yaml import read_yaml
from eventflow.workflow.definition import ParamType

PAGE = (Path(__file__).parents[2] / "docs" / "rules.md").read_text()
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
RESULTS = re.findall(r"^\| `(.*)` \| `(.*)` \| (yes|no) \|$", PAGE, re.MULTILINE)


CODE = {
    "retail/tasks.py": b"def profile(path): ...\ndef check(rows): ...\n",
    "cleaning.py": b"def old_files(folder, keep): ...\ndef delete(files): ...\n",
}
"""What the examples call."""


def value_of(text: str) -> Any:
    node, complete = read_yaml(text.encode(), lambda at, message: pytest.fail(message))
    assert complete
    return None if node is None else plain_value(node)


def test_every_example_loads_without_a_warning() -> None:
    files = [text for text in BLOCKS if not text.startswith("cases:")]
    assert len(files) > 5
    for text in files:
        assert load({"r.yaml": text.encode(), **CODE}, Path("/set"), find_connectors()).warnings == (), text


@pytest.mark.parametrize("at", [at for at, text in enumerate(BLOCKS) if text.startswith("cases:")])
def test_the_cases_pass_on_the_example_above_them(at: int) -> None:
    ruleset = load({"r.yaml": BLOCKS[at - 1].encode(), **CODE}, Path("/set"), find_connectors())
    cases = read_cases({"r.test.yaml": BLOCKS[at].encode()}, ruleset)
    assert cases
    assert [judge(case, ruleset, 0).failures for case in cases] == [()] * len(cases)


@pytest.mark.parametrize(("match", "data", "holds"), RESULTS)
def test_a_condition_holds_as_the_table_says(match: str, data: str, holds: str) -> None:
    value = value_of(data)
    event = Event(source="s", id="1", type="t", data=value, raw=encode_json(value))
    assert compile_pattern(value_of(match)).matches(event) is (holds == "yes")


def test_the_tables_of_results_are_there() -> None:
    assert len(RESULTS) == 27


def test_every_operator_word_and_type_is_explained() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    explained = {word for row in rows for word in re.findall(r"`([a-z_]+)`", row)}
    operators = re.findall(r"[a-z]+", _operator_names())
    missing = {*operators, *RULE.now, *TASK.now, *(str(one) for one in ParamType)} - explained
    assert missing == set()


def _operator_names() -> str:
    """The operators there are, as the error for an unknown one lists them."""
    with pytest.raises(ValueError, match="there are") as caught:
        compile_operator("zzzzzz", 1)
    return str(caught.value).partition("there are")[2]


def test_what_is_not_supported_yet_is_named() -> None:
    end = PAGE.partition("## Not supported yet")[2]
    for word in {*LATER_CONNECTORS, *RULE.later} - {"on_incomplete", "require", "time"}:
        assert f"`{word}`" in end, word
