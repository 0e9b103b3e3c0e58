"""What can never work is said before it runs: types nobody sends, fields no event has, wrong keywords."""

# ruff: noqa: E501 - messages are compared as the one line that they are

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from eventflow.errors import RuleSetError
from eventflow.rulefile.connectors import find_connectors
from eventflow.rulefile.load import load


def problems_of(*texts: str) -> list[str]:
    """What `check` would say of a set of these files, r1.yaml and so on, errors and warnings."""
    files = {f"r{number}.yaml": textwrap.dedent(text).encode() for number, text in enumerate(texts, 1)}
    try:
        ruleset = load(files, Path("/set"), find_connectors())
    except RuleSetError as error:
        return [str(problem).removeprefix("r1.yaml:") for problem in error.problems]
    return [str(problem).removeprefix("r1.yaml:") for problem in ruleset.warnings]


def test_what_a_task_passes_is_compared_with_the_function_in_the_folder() -> None:
    code = b"""\
def plain(ctx, path, n=1, *, day): ...
async def open_ended(path, **more): ...
@decorated
def decorated(x): ...
class Holder:
    def method(self): ...
"""

    def said(words: str) -> list[str]:
        text = f"workflows:\n  w:\n    tasks:\n      t: {{{words}}}\n"
        try:
            load({"r.yaml": text.encode(), "code.py": code}, Path("/set"), find_connectors())
        except RuleSetError as error:
            return [str(problem).removeprefix("r.yaml:") for problem in error.problems]
        return []

    assert said('python: "code:plain", with: {path: x, day: y}') == []
    assert said('python: "code:plain", with: {pth: x, day: y, n: 2}') == [
        "4:40: workflow 'w', task 't': with: unknown parameter of code:plain 'pth'; did you mean 'path'?"
    ]
    assert said('python: "code:plain", with: {path: x}') == [
        "4:33: workflow 'w', task 't': with: parameter 'day' of code:plain is missing"
    ]
    assert said('python: "code:open_ended"') == [
        "4:11: workflow 'w', task 't': with: parameter 'path' of code:open_ended is missing"
    ]
    assert said('python: "code:open_ended", with: {path: x, other: 1}') == []
    assert said('python: "code:decorated", with: {y: 1}') == []
    assert said('python: "code:Holder", with: {y: 1}') == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("match: {type: file.arrived, data.dataset: a, data.size: {gt: 0}, data.day: x}", []),
        ("match: {type: file.changed}\nwhere: event.data.region == 'eu'", []),
        ("match: {type: {prefix: file.}}", []),
        ("match: {none_of: [{type: file.gone}], type: file.arrived}", []),
        (
            "match: {type: file.arived}",
            ["6:19: warning: rule 'r': match: s sends no 'file.arived'; did you mean 'file.arrived'?"],
        ),
        (
            "match: {type: [file.arrived, order.placed]}",
            ["6:34: warning: rule 'r': match: s sends no 'order.placed'; there is file.arrived, file.changed"],
        ),
        (
            "match: {type: file.arrived, any_of: [{data.datset: a}, {data.region: eu}]}",
            ["6:43: warning: rule 'r': match: s sends no 'data.datset'; did you mean 'data.dataset'?"],
        ),
        ("match: {type: file.arrived, data.datset: {exists: false}}", []),
        (
            "match: {type: file.arrived}\nwhere: event.data.sise > 1",
            ["7:12: warning: rule 'r': where: s sends no 'data.sise'; did you mean 'data.size'?"],
        ),
        (
            'match: {type: file.arrived}\nwith: {a: ["${event.data.dya}"]}',
            ["7:16: warning: rule 'r': with: a: s sends no 'data.dya'; did you mean 'data.day'?"],
        ),
    ],
)  # fmt: skip
def test_a_rule_that_asks_a_file_source_for_what_it_never_sends_is_warned_of(
    words: str, expected: list[str]
) -> None:
    source = "{connector: file, path: x, initial: process, pattern: '{dataset}/{region}_{day:%Y-%m-%d}.csv'}"
    rule = textwrap.indent(f"from: s\n{words}\nemit: y", "    ")
    assert problems_of(f"sources:\n  s: {source}\nrules:\n  r:\n{rule}") == expected


def test_removed_files_are_told_of_only_where_the_source_is_asked_to() -> None:
    text = """\
        sources: {s: {connector: file, path: x, initial: process%s}}
        rules: {r: {from: s, match: {type: file.removed}, emit: y}}
        """
    assert problems_of(text % ", removed: true") == []
    assert len(problems_of(text % "")) == 1


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("{from: eventflow, match: {type: order.large}, emit: z}", []),
        ("{match: {type: order.elsewhere}, emit: z}", []),
        ("{from: eventflow, match: {type: eventflow.run.failed, data.workflow: [load]}, emit: z}", []),
        (
            "{from: eventflow, match: {type: order.larg}, emit: z}",
            ["4:38: warning: rule 'r': match: eventflow sends no 'order.larg'; did you mean 'order.large'?"],
        ),
        (
            "{match: {type: eventflow.run.suceeded}, emit: z}",
            ["4:21: warning: rule 'r': match: eventflow sends no 'eventflow.run.suceeded'; "
             "did you mean 'eventflow.run.succeeded'?"],
        ),
        (
            "{from: eventflow, match: {type: eventflow.run.failed, data.workflow: {not: laod}}, emit: z}",
            ["4:81: warning: rule 'r': match: there is no workflow 'laod'; did you mean 'load'?"],
        ),
    ],
)  # fmt: skip
def test_a_rule_on_events_of_eventflow_that_nothing_makes_is_warned_of(
    rule: str, expected: list[str]
) -> None:
    head = (
        "workflows: {load: {tasks: {a: {shell: [x]}}}}\nrules:\n  e: {match: {type: x}, emit: order.large}\n"
    )
    assert problems_of(f"{head}  r: {rule}\n") == expected
