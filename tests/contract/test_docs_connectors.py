"""What the pages about connectors show works as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGES = Path(__file__).parents[2] / "docs" / "connectors"
BLOCK = re.compile(r"^```\w+\n# (\S+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def write_files(page: str, folder: Path) -> list[str]:
    """Every block of the page that begins with a file's name, written to that file."""
    names: list[str] = []
    for name, text in BLOCK.findall((PAGES / page).read_text(encoding="utf-8")):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        names.append(name)
    return names


def run(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder), "EVENTFLOW_DATA": str(folder / "data")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_connector_of_the_page_passes_the_contract_suite(tmp_path: Path) -> None:
    names = write_files("writing.md", tmp_path)
    assert names == ["journal.py", "test_journal.py", "pytest.ini", "pyproject.toml", "rules/journal.yaml"]
    output = run(tmp_path, "-m", "pytest", "-q", "-W", "error", "test_journal.py")
    assert " passed" in output
    assert "skipped" not in output


def test_the_rule_file_of_the_page_finds_the_connector(tmp_path: Path) -> None:
    write_files("writing.md", tmp_path)
    info = tmp_path / "eventflow_journal-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: eventflow-journal\nVersion: 1.0\n")
    project = (tmp_path / "pyproject.toml").read_text()
    entry = re.search(r'^\[project\.entry-points\."(\S+)"\]\n(.*)', project, re.MULTILINE)
    assert entry
    lines = f"[{entry[1]}]\n{entry[2]}\n"
    (info / "entry_points.txt").write_text(lines.replace('"', ""))  # TOML has quotes, the file has none
    run(tmp_path, "-m", "eventflow", "check", "rules")


def test_the_rule_file_of_the_file_page_loads(tmp_path: Path) -> None:
    assert write_files("file.md", tmp_path) == ["rules/orders.yaml"]
    run(tmp_path, "-m", "eventflow", "check", "rules")
