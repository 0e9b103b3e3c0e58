"""What kind of function a task names, and that nothing is imported to find out."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest

from eventflow.worker.locate import Function, find_function, module_file


def write(folder: Path, path: str, source: str) -> None:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(dedent(source))


@pytest.mark.parametrize(
    ("source", "target", "function"),
    [
        ("def f(a): ...", "jobs:f", Function(is_async=False, wants_context=False)),
        ("def f(a, *, ctx): ...", "jobs:f", Function(is_async=False, wants_context=True)),
        ("async def f(): ...", "jobs:f", Function(is_async=True, wants_context=False)),
        ("async def f(ctx, /): ...", "jobs:f", Function(is_async=True, wants_context=True)),
        ("class Jobs:\n  @staticmethod\n  async def f(): ...", "jobs:Jobs.f", Function(True, False)),
        ("def f(): ...\nasync def f(): ...", "jobs:f", Function(is_async=True, wants_context=False)),
        ("f = print", "jobs:f", Function()),
        ("from elsewhere import f", "jobs:f", Function()),
        ("def f(:", "jobs:f", Function()),
        ("\0", "jobs:f", Function()),
    ],
)
def test_functions_are_read_from_the_source(
    tmp_path: Path, source: str, target: str, function: Function
) -> None:
    write(tmp_path, "jobs.py", source)
    assert find_function(tmp_path, target) == function


def test_the_code_folder_goes_before_the_environment(tmp_path: Path) -> None:
    assert find_function(tmp_path, "asyncio:sleep") == Function()  # imported there, defined elsewhere
    assert find_function(tmp_path, "asyncio.tasks:sleep").is_async
    write(tmp_path, "asyncio/tasks.py", "def sleep(): ...")
    other = tmp_path / "asyncio"
    assert module_file(tmp_path, "asyncio.tasks") == other / "tasks.py"


def test_finding_a_function_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "shop_jobs/__init__.py", "raise SystemExit('imported')")
    write(tmp_path, "shop_jobs/load.py", "async def load(): ...")
    monkeypatch.syspath_prepend(str(tmp_path))
    elsewhere = tmp_path / "empty"
    elsewhere.mkdir()
    assert find_function(elsewhere, "shop_jobs.load:load").is_async
    assert "shop_jobs" not in sys.modules


@pytest.mark.parametrize("target", ["nowhere:f", "nowhere.at.all:f", "sys:exit", "json.nowhere:f", "a..b:f"])
def test_what_is_not_there_is_left_to_the_process_to_report(tmp_path: Path, target: str) -> None:
    assert find_function(tmp_path, target) == Function()
