"""The Python files of a rule set's folder: looked into, never imported, when the set is read."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping
from hashlib import sha256
from importlib.util import find_spec

from eventflow.rulefile.report import did_you_mean

MAX_CODE_BYTES = 10 * 1024 * 1024

_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class Code:
    """The set's Python files by path below its folder. Files are parsed once, when first asked about."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self._names: dict[str, tuple[frozenset[str], bool] | str] = {}

    @property
    def version(self) -> str:
        """A digest of paths and contents."""
        total = sha256()
        for path in sorted(self.files):
            total.update(f"{len(path.encode())}:{path}:{len(self.files[path])}:".encode())
            total.update(self.files[path])
        return total.hexdigest()

    def objection(self, reference: str) -> str | None:
        """Why `module:function` cannot be called; None where it can, or where only the environment knows."""
        if not _REFERENCE.fullmatch(reference):
            return f"{reference!r} is not of the form module:function"
        module, _, function = reference.partition(":")
        path = self._file_of(module)
        if path is None:
            return None
        found = self._defined(path)
        if isinstance(found, str):
            return found
        names, open_ended = found
        name = function.partition(".")[0]
        if name in names or open_ended:
            return None
        return f"{path} defines no '{name}'{did_you_mean(name, names)}"

    def doubt(self, reference: str) -> str | None:
        """Why a worker like this process would not find the function; None where it may.

        Only the first name of the module is looked for: finding more would run code.
        """
        module, _, _ = reference.partition(":")
        package = module.partition(".")[0]
        ours = any(path.startswith(f"{package}/") for path in self.files)
        if self._file_of(module) is not None or (not ours and _is_installed(package)):
            return None
        modules = [
            path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in self.files
        ]
        where = "in the folder" if ours else "in the folder or in this environment"
        return f"there is no module '{module}' {where}{did_you_mean(module, modules)}"

    def _file_of(self, module: str) -> str | None:
        base = module.replace(".", "/")
        return next((path for path in (f"{base}/__init__.py", f"{base}.py") if path in self.files), None)

    def _defined(self, path: str) -> tuple[frozenset[str], bool] | str:
        if path not in self._names:
            self._names[path] = _names_in(path, self.files[path])
        return self._names[path]


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # a module that was not imported, such as __main__
        return True


def _names_in(path: str, content: bytes) -> tuple[frozenset[str], bool] | str:
    """The names that a module binds, and whether `import *` may bind more; or why it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(content)
    except SyntaxError as error:
        return f"{path}:{error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"{path} is no Python: {error}"
    names: set[str] = set()
    open_ended = False
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            open_ended = open_ended or any(one.name == "*" for one in node.names)
            names.update((one.asname or one.name).partition(".")[0] for one in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        todo.extend(ast.iter_child_nodes(node))
    return frozenset(names), open_ended
