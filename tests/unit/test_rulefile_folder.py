"""Which files of a folder are a rule set, and what is said of those that cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eventflow.errors import RuleSetError, UsageError
from eventflow.rulefile.code import MAX_CODE_BYTES
from eventflow.rulefile.examine import examine
from eventflow.rulefile.folder import read_folder, read_tests, set_folder

RULE = "rules: {%s: {match: {type: x}, emit: y}}\n"


def write(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(RULE % f"r{path.stem.split('.')[0]}" if ".test." not in name else "cases: []\n")


def test_a_folder_is_one_set_with_its_subfolders(tmp_path: Path) -> None:
    write(
        tmp_path,
        "b.yaml",
        "a.yml",
        "deep/c.yaml",
        "a.test.yaml",
        "deep/c.test.yml",
        "tasks.py",
        "deep/more.py",
    )
    write(tmp_path, "notes.txt", ".hidden.yaml", ".git/x.yaml", "__pycache__/y.py", "node_modules/z.yaml")
    write(tmp_path, "venv/pyvenv.cfg", "venv/lib/q.py")
    assert list(read_folder(tmp_path)) == ["a.yml", "b.yaml", "deep/c.yaml", "tasks.py", "deep/more.py"]
    assert list(read_tests(tmp_path)) == ["a.test.yaml", "deep/c.test.yml"]


def test_a_file_alone_is_a_whole_set_with_the_python_of_its_folder(tmp_path: Path) -> None:
    write(
        tmp_path,
        "a.yaml",
        "b.yaml",
        "a.test.yaml",
        "b.test.yaml",
        "tasks.py",
        "deep/other.py",
        "pkg/__init__.py",
    )
    assert list(read_folder(tmp_path / "a.yaml")) == ["a.yaml", "tasks.py", "pkg/__init__.py"]
    assert list(read_tests(tmp_path / "a.yaml")) == ["a.test.yaml"]
    assert set_folder(tmp_path / "a.yaml") == tmp_path


def test_naming_a_test_file_means_the_file_beside_it(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "a.test.yaml")
    assert list(read_folder(tmp_path / "a.test.yaml")) == ["a.yaml"]
    assert list(read_tests(tmp_path / "a.test.yaml")) == ["a.test.yaml"]


def test_a_path_that_is_not_there_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file or folder: .*nowhere"):
        read_folder(tmp_path / "nowhere")


def test_a_file_that_is_no_rule_file_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("rules: {}")
    with pytest.raises(UsageError, match=r"notes.txt is no rule file: their names end in .yaml or .yml"):
        read_folder(tmp_path / "notes.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_a_problem_of_the_set(tmp_path: Path) -> None:
    write(tmp_path, "deep/a.yaml")
    (tmp_path / "deep").chmod(0)
    try:
        with pytest.raises(RuleSetError, match=r"deep:1:1: cannot be read: Permission denied"):
            read_folder(tmp_path)
    finally:
        (tmp_path / "deep").chmod(0o700)


def test_a_link_that_leads_nowhere_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to(tmp_path / "gone")
    assert read_folder(tmp_path) == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_a_problem_of_the_set(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml")
    (tmp_path / "a.yaml").chmod(0)
    with pytest.raises(RuleSetError, match=r"a.yaml:1:1: cannot be read: Permission denied"):
        read_folder(tmp_path)


def test_a_name_that_is_not_utf_8_is_a_problem_of_the_set(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.yaml")).write_text("{}")
    with pytest.raises(RuleSetError, match=r"1:1: the file's name is not UTF-8; rename it"):
        read_folder(tmp_path)


def test_more_than_10_mib_of_python_is_a_problem_of_the_set(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"#" * MAX_CODE_BYTES)
    assert len(read_folder(tmp_path)) == 1
    (tmp_path / "b.py").write_bytes(b"#")
    with pytest.raises(RuleSetError, match=r"b.py:1:1: the folder's Python files are more than 10 MiB"):
        read_folder(tmp_path)


def test_rule_files_and_test_files_are_examined_together(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml")
    (tmp_path / "a.test.yaml").write_text(
        "cases:\n  - {name: c, given: [], expect: [{fire: ra}, {fire: rb}]}\n"
    )
    found = examine(tmp_path)
    assert [str(problem) for problem in found.problems] == [
        f"{tmp_path}/a.test.yaml:2:54: case 'c', expect 2: fire: unknown rule 'rb'; there is ra"
    ]
    assert found.ruleset is not None


def test_a_set_that_does_not_load_does_not_hide_what_is_wrong_with_its_tests(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("rulez: {}\n")
    (tmp_path / "a.test.yaml").write_text("case: []\n")
    assert len(examine(tmp_path).errors) == 2
