"""From the file system to a rule set's files: which belong to it, and nothing about what they say."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from eventflow.errors import Problem, RuleSetError, UsageError
from eventflow.rulefile.code import MAX_CODE_BYTES

RULE_SUFFIXES = (".yaml", ".yml")
TEST_SUFFIXES = (".test.yaml", ".test.yml")

_SKIPPED = frozenset({"__pycache__", "node_modules"})


def set_folder(path: Path) -> Path:
    """The absolute folder that a rule set's relative paths start from."""
    absolute = path.absolute()
    return absolute if path.is_dir() else absolute.parent


def read_folder(path: Path) -> Mapping[str, bytes]:
    """Rule files and Python files by their path below the folder, in order; test files are not among them.

    A folder is one set with its subfolders. A file alone is a whole set, with the Python of its folder.
    Raises `UsageError` where there is no such path, `RuleSetError` where a file cannot be read.
    """
    root = set_folder(path)
    if path.is_dir():
        found = list(_walk(root))
        names = [one for one in found if one.endswith(RULE_SUFFIXES) and not one.endswith(TEST_SUFFIXES)]
    else:
        names = [_existing(_rule_file_of(path)).name]
        found = list(_walk(root, packages_only=True))
    return _read(root, [*names, *(one for one in found if one.endswith(".py"))])


def read_tests(path: Path) -> Mapping[str, bytes]:
    """The test files (`NAME.test.yaml`) of the set, by their path below the folder, in order."""
    root = set_folder(path)
    if path.is_dir():
        return _read(root, [name for name in _walk(root) if name.endswith(TEST_SUFFIXES)])
    rule_file = _existing(_rule_file_of(path))
    beside = [rule_file.with_suffix("").name + suffix for suffix in TEST_SUFFIXES]
    return _read(root, [name for name in beside if (root / name).is_file()])


def file_as_given(path: Path, file: str) -> str:
    """A file of the set at `path` as a person in the current folder would name it."""
    return str((path if path.is_dir() else path.parent) / file)


def as_given(path: Path, problem: Problem) -> Problem:
    """The problem with its file named like that."""
    return replace(problem, file=file_as_given(path, problem.file))


def _rule_file_of(path: Path) -> Path:
    """`orders.test.yaml` tests the file beside it."""
    for suffix in TEST_SUFFIXES:
        if path.name.endswith(suffix):
            stem = path.name.removesuffix(suffix)
            found = [
                path.with_name(stem + one) for one in RULE_SUFFIXES if path.with_name(stem + one).is_file()
            ]
            return found[0] if found else path.with_name(stem + RULE_SUFFIXES[0])
    return path


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise UsageError(f"no such file or folder: {path}; name a rule file or a folder of rule files")
    if not path.name.endswith(RULE_SUFFIXES):
        raise UsageError(f"{path} is no rule file: their names end in {' or '.join(RULE_SUFFIXES)}")
    return path


def _walk(root: Path, *, packages_only: bool = False) -> Iterator[str]:
    """Files below the root, sorted; not those in hidden folders, caches, environments and linked folders."""

    def unreadable(error: OSError) -> None:
        shown = os.path.relpath(error.filename, root).encode("utf-8", "backslashreplace").decode()
        raise RuleSetError([Problem(shown, 1, 1, f"cannot be read: {error.strerror}")])

    for folder, folders, names in os.walk(root, onerror=unreadable):
        folders[:] = sorted(one for one in folders if _entered(Path(folder, one), packages_only))
        for name in sorted(names):
            if not name.startswith(".") and os.path.isfile(os.path.join(folder, name)):
                yield Path(folder, name).relative_to(root).as_posix()


def _entered(folder: Path, packages_only: bool) -> bool:
    if folder.name.startswith(".") or folder.name in _SKIPPED or os.path.exists(folder / "pyvenv.cfg"):
        return False
    return not packages_only or os.path.exists(folder / "__init__.py")


def _read(root: Path, names: list[str]) -> Mapping[str, bytes]:
    files: dict[str, bytes] = {}
    problems: list[Problem] = []
    code_bytes = 0
    for name in names:
        shown = name.encode("utf-8", "backslashreplace").decode()
        try:
            name.encode()
            files[name] = (root / name).read_bytes()
        except UnicodeEncodeError:
            problems.append(Problem(shown, 1, 1, "the file's name is not UTF-8; rename it"))
            continue
        except OSError as error:
            problems.append(Problem(shown, 1, 1, f"cannot be read: {error.strerror}"))
            continue
        code_bytes += len(files[name]) if name.endswith(".py") else 0
        if code_bytes > MAX_CODE_BYTES:
            problems.append(
                Problem(shown, 1, 1, "the folder's Python files are more than 10 MiB; put them in a package")
            )
            break
    if problems:
        raise RuleSetError(problems)
    return files
