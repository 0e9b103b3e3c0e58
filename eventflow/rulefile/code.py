"""The Python files of a rule set's folder: looked into, never imported, when the set is read."""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec

from eventflow.errors import Problem
from eventflow.rulefile.report import did_you_mean

MAX_CODE_BYTES = 10 * 1024 * 1024

_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True, slots=True)
class Signature:
    """The names that a function takes as keywords, those it must get, and whether it takes any other."""

    names: tuple[str, ...]
    required: tuple[str, ...]
    open_ended: bool


@dataclass(frozen=True, slots=True)
class Module:
    """A file of code. `open_ended`: an `import *` may bind more than `names`."""

    names: frozenset[str]
    open_ended: bool
    signatures: Mapping[str, Signature]


class Code:
    """The set's Python files by path below its folder. Files are parsed once, when first asked about."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self._modules: dict[str, Module | Problem] = {}

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
        found = self._module(path)
        name = function.partition(".")[0]
        if isinstance(found, Problem) or name in found.names or found.open_ended:
            return None
        return f"{path} defines no '{name}'{did_you_mean(name, found.names)}"

    def broken(self, reference: str) -> Problem | None:
        """What keeps the file of the module from being parsed, in that file."""
        path = self._file_of(reference.partition(":")[0])
        found = self._module(path) if path is not None else None
        return found if isinstance(found, Problem) else None

    def signature(self, reference: str) -> Signature | None:
        """What the function may be called with; None where its file alone does not tell."""
        module, _, function = reference.partition(":")
        path = self._file_of(module)
        found = self._module(path) if path is not None else None
        return found.signatures.get(function) if isinstance(found, Module) else None

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

    def _module(self, path: str) -> Module | Problem:
        if path not in self._modules:
            self._modules[path] = _parse(path, self.files[path])
        return self._modules[path]


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # a module that was not imported, such as __main__
        return True


def _parse(path: str, content: bytes) -> Module | Problem:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(content)
    except SyntaxError as error:
        return Problem(path, max(error.lineno or 1, 1), max(error.offset or 1, 1), f"no Python: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        return Problem(path, 1, 1, f"no Python: {error}")
    names, open_ended = _names_in(tree)
    return Module(names, open_ended, _signatures_in(tree))


def _signatures_in(tree: ast.Module) -> dict[str, Signature]:
    """Of plain functions at the top that nothing else in the file binds and no decorator may change."""
    functions = [one for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    bound = Counter(one.name for one in functions)
    bound.update(one.id for one in ast.walk(tree) if isinstance(one, ast.Name) and _stores(one))
    bound.update(one.asname or one.name for node in ast.walk(tree) for one in _imported(node))
    plain = [one for one in functions if bound[one.name] == 1 and not one.decorator_list]
    return {one.name: _signature(one.args) for one in plain}


def _stores(name: ast.Name) -> bool:
    return not isinstance(name.ctx, ast.Load)


def _imported(node: ast.AST) -> list[ast.alias]:
    return node.names if isinstance(node, ast.Import | ast.ImportFrom) else []


def _signature(arguments: ast.arguments) -> Signature:
    positional = [*arguments.posonlyargs, *arguments.args]
    needed = positional[: len(positional) - len(arguments.defaults)]
    needed += [
        one for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if not default
    ]
    return Signature(
        tuple(one.arg for one in [*arguments.args, *arguments.kwonlyargs]),
        tuple(one.arg for one in needed),
        arguments.kwarg is not None,
    )


def _names_in(tree: ast.Module) -> tuple[frozenset[str], bool]:
    """The names that a module binds, and whether `import *` may bind more."""
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
