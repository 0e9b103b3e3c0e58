"""The first thing that a reader sees must be true."""

from __future__ import annotations

import re
from pathlib import Path

from eventflow.rulefile.connectors import find_connectors
from eventflow.rulefile.load import load

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_rule_file_loads_and_has_ten_lines() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert len(text.splitlines()) == 10
    tasks = b"def check(path): ...\n"
    loaded = load({"rules.yaml": text.encode(), "tasks.py": tasks}, Path("/"), find_connectors())
    assert loaded.warnings == ()
    assert [rule.run for rule in loaded.rules] == ["load"]


def test_its_make_targets_exist() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    targets = set(re.findall(r"\bmake ([a-z]+)\b", README))
    assert {"demo", "test"} <= targets
    assert {one for one in targets if f"\n{one}:" not in makefile} == set()
