"""`eventflow check` and `eventflow test` as a person or a CI job runs them: real processes, real files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]

GOOD = """\
sources:
  landing: {connector: file, path: landing, initial: process}
workflows:
  load: {params: {path: string}, tasks: {a: {python: "tasks:load", with: {path: "${params.path}"}}}}
rules:
  landed:
    from: landing
    match: {type: file.arrived}
    run: load
    with: {path: "${event.data.path}"}
"""
CASES = """\
cases:
  - name: a file that lands is loaded
    given: [{at: "06:00", event: {type: file.arrived, data: {path: /a.csv}}}]
    expect: [{fire: landed, with: {path: /a.csv}, at: "06:00"}]
    also: {shuffle: 3, splits: 3}
  - name: a file that changes is not
    given: [{event: {type: file.changed, data: {path: /a.csv}}}]
    expect: [{no_fire: landed}]
"""


def eventflow(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    # Neither a database nor a home is there: these commands need none.
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "eventflow", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "orders.yaml").write_text(GOOD)
    (rules / "orders.test.yaml").write_text(CASES)
    (rules / "tasks.py").write_text("raise RuntimeError('checking imports nothing')\ndef load(path): ...\n")
    return tmp_path


def test_the_shipped_example_checks_and_tests_green() -> None:
    checked = eventflow("check", "rules", folder=ROOT)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.endswith(": ok\n")
    tested = eventflow("test", "rules", folder=ROOT)
    assert (tested.returncode, tested.stderr) == (0, "")
    assert tested.stdout.endswith(" cases, 0 failed\n")


def test_a_good_set_is_ok(folder: Path) -> None:
    done = eventflow("check", "rules", folder=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 rule, 1 workflow, 1 source: ok\n", "")
    done = eventflow("test", "rules", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "ok     a file that lands is loaded (seed 0)",
        "ok     a file that changes is not",
        "2 cases, 0 failed",
    ]


def test_a_wrong_set_exits_2_and_names_every_place(folder: Path) -> None:
    rules = folder / "rules" / "orders.yaml"
    rules.write_text(GOOD.replace("run: load", "run: laod").replace("match:", "mach:"))
    done = eventflow("check", "rules", folder=folder)
    assert done.returncode == 2
    assert done.stdout.splitlines() == [
        "rules/orders.yaml:8:5: rule 'landed': unknown word 'mach'; did you mean 'match'?",
        "rules/orders.yaml:9:10: rule 'landed': run: unknown workflow 'laod'; did you mean 'load'?",
    ]
    assert done.stderr == "2 errors in rules\n"
    done = eventflow("check", "rules", "--json", folder=folder)
    assert done.returncode == 2
    assert json.loads(done.stdout)[0] == {
        "file": "rules/orders.yaml", "line": 8, "column": 5, "warning": False,
        "message": "rule 'landed': unknown word 'mach'; did you mean 'match'?",
    }  # fmt: skip
    done = eventflow("test", "rules", folder=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "rules/orders.yaml:8:5: " in done.stderr


def test_in_one_pipe_the_problems_stand_above_their_sum(folder: Path) -> None:
    rules = folder / "rules" / "orders.yaml"
    rules.write_text(GOOD.replace("run: load", "run: laod"))
    done = subprocess.run(
        [sys.executable, "-m", "eventflow", "check", "rules"], cwd=folder, text=True, timeout=60, check=False,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "1 error in rules"
    assert len(done.stdout.splitlines()) == 2


def test_code_that_does_not_parse_is_told_once_in_its_own_file(folder: Path) -> None:
    (folder / "rules" / "tasks.py").write_text("import x\ndef load(path:\n")
    second = ', b: {python: "tasks:load", with: {path: x}}}}'
    (folder / "rules" / "orders.yaml").write_text(GOOD.replace("}}}\nrules", f"}}{second}\nrules"))
    done = eventflow("check", "rules", folder=folder)
    assert done.stdout.splitlines() == ["rules/tasks.py:2:9: no Python: '(' was never closed"]


def test_a_broken_test_file_is_found_by_both(folder: Path) -> None:
    (folder / "rules" / "orders.test.yaml").write_text(CASES.replace("fire: landed,", "fier: landed,"))
    message = "rules/orders.test.yaml:4:15: case 'a file that lands is loaded', expect 1: unknown word 'fier'"
    for command in ("check", "test"):
        done = eventflow(command, "rules/orders.yaml", folder=folder)
        assert done.returncode == 2
        assert message in done.stdout + done.stderr


def test_warnings_alone_exit_0(folder: Path) -> None:
    (folder / "rules" / "orders.yaml").write_text(GOOD.replace("match: {type: file.arrived}", "priority: 1"))
    done = eventflow("check", "rules", folder=folder)
    assert done.returncode == 0
    assert "rules/orders.yaml:6:3: warning: rule 'landed': has no condition on 'type'" in done.stdout


def test_a_case_that_fails_exits_1_and_says_why(folder: Path) -> None:
    (folder / "rules" / "orders.test.yaml").write_text(
        CASES.replace("{path: /a.csv}, at", "{path: /b.csv}, at")
    )
    report = folder / "report.xml"
    done = eventflow("test", "rules", "--junit", str(report), folder=folder)
    assert done.returncode == 1
    assert done.stdout.splitlines()[:4] == [
        "FAILED a file that lands is loaded (seed 0)",
        "       rules/orders.test.yaml:2, as written",
        "       rules/orders.test.yaml:4: expected fire landed with "
        '{"path":"/b.csv"} at 2026-01-01T06:00:00+00:00',
        '         fired instead: fire landed with {"path":"/a.csv"} at 2026-01-01T06:00:00+00:00 '
        "(event file.arrived)",
    ]
    suite = ElementTree.parse(report).getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    done = eventflow("test", "rules", "--json", folder=folder)
    assert done.returncode == 1
    assert [(record["name"], record["passed"]) for record in json.loads(done.stdout)] == [
        ("a file that lands is loaded", False),
        ("a file that changes is not", True),
    ]


@pytest.mark.parametrize("command", ["check", "test"])
def test_a_path_that_is_not_there_is_wrong_use(command: str, tmp_path: Path) -> None:
    done = eventflow(command, "nowhere", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "eventflow: no such file or folder: nowhere; name a rule file or a folder of rule files\n"
    )


def test_an_empty_folder_is_an_empty_set_without_cases(tmp_path: Path) -> None:
    done = eventflow("check", ".", folder=tmp_path)
    assert (done.returncode, done.stdout) == (
        0,
        ".:1:1: warning: nothing here: no *.yaml\n0 rules, 0 workflows, 0 sources: ok\n",
    )
    done = eventflow("test", ".", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "no cases: they stand in NAME.test.yaml beside a rule file\n"


def test_what_stands_in_a_file_cannot_drive_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text('rules: {"\\e[31mred": {match: {type: x}, emit: y}}\n')
    done = eventflow("check", "r.yaml", folder=tmp_path)
    assert done.returncode == 2
    assert "\x1b" not in done.stdout + done.stderr
