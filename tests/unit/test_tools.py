"""The checks of `make check` that are our own: broken links are found, and locks out of step."""

from __future__ import annotations

from pathlib import Path

from packaging.requirements import Requirement

from tools import links, lock

PACKAGE = """\
rich==15.0.0 ; python_version < '4' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via
    #   eventflow (pyproject.toml)
    #   typer
"""


def broken_in(root: Path, text: str) -> list[str]:
    page = root / "page.md"
    page.write_text(text)
    return list(links.broken(root, [page]))


def test_links_that_lead_somewhere_are_fine(tmp_path: Path) -> None:
    (tmp_path / "a b.md").write_text("# Why, and `how`?\n")
    text = "# One\n[a](a%20b.md#why-and-how) [b](#one) [c](https://example.org/x) [d](.) ![e](<a b.md>)\n"
    assert broken_in(tmp_path, text) == []


def test_a_link_to_no_file_names_its_line(tmp_path: Path) -> None:
    assert broken_in(tmp_path, "# One\n\nsee [it](gone.md)\n") == ["page.md:3: no such file: gone.md"]


def test_a_link_to_no_heading_is_broken(tmp_path: Path) -> None:
    assert broken_in(tmp_path, "# One\n[b](#two)") == ["page.md:2: no such heading in page.md: #two"]


def test_a_link_out_of_the_repository_is_broken(tmp_path: Path) -> None:
    (root := tmp_path / "repository").mkdir()
    (tmp_path / "near.md").touch()
    assert broken_in(root, "[x](../near.md)") == ["page.md:1: leads out of the repository: ../near.md"]


def test_a_reference_link_is_followed(tmp_path: Path) -> None:
    assert broken_in(tmp_path, "see [it]\n\n[it]: gone.md\n") == ["page.md:3: no such file: gone.md"]


def test_what_looks_like_a_link_in_code_is_none(tmp_path: Path) -> None:
    assert broken_in(tmp_path, "```\n[a](gone.md)\n```\nand `[a](gone.md)`\n") == []


def test_headings_of_one_name_are_numbered() -> None:
    assert links.anchors("# A\n## A\n```\n# no\n```\n") == {"a", "a-1"}


def test_a_lock_in_step_has_no_problem() -> None:
    assert list(lock.problems("lock", PACKAGE, [Requirement("rich>=15")])) == []


def test_a_version_out_of_bounds_is_a_problem() -> None:
    (problem,) = lock.problems("lock", PACKAGE, [Requirement("rich>=16")])
    assert problem == "lock: has rich 15.0.0, but pyproject.toml wants rich>=16"


def test_a_missing_and_a_left_over_package_are_problems() -> None:
    found = list(lock.problems("lock", PACKAGE, [Requirement("typer")]))
    assert found == ["lock: lacks typer", "lock: has rich for pyproject.toml, which does not ask for it"]


def test_an_address_in_a_lock_is_a_problem() -> None:
    for line in ("--index-url x", "-i x", "rich @ https://example.org/rich.whl", "--find-links=y"):
        (problem,) = lock.problems("lock", f"{line}\n{PACKAGE}", [Requirement("rich")])
        assert problem == f"lock:1: an address: {line}"


def test_a_package_without_a_hash_is_a_problem() -> None:
    text = "rich==15.0.0\n    # via eventflow (pyproject.toml)\n"
    assert list(lock.problems("lock", text, [Requirement("rich")])) == ["lock: rich has no hash"]


def test_the_image_has_the_hashes_of_the_tests() -> None:
    other = PACKAGE.replace("sha256:bb", "sha256:cc")
    assert list(lock.differences(PACKAGE, PACKAGE)) == []
    assert len(list(lock.differences(PACKAGE, other))) == 1


def test_groups_include_each_other() -> None:
    project = {
        "project": {"dependencies": ["rich"], "optional-dependencies": {}},
        "dependency-groups": {"demo": ["duckdb"], "dev": [{"include-group": "demo"}, "ruff"]},
    }
    assert [asked.name for asked in lock.wanted(project, (), ["dev"])] == ["rich", "duckdb", "ruff"]
