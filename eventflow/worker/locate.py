"""What kind of function a task names, found by reading its source: `def` code is never imported here."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Function:
    """`is_async`: runs on the loop for tasks, else in a process. `wants_context`: has a parameter `ctx`.

    What the source does not show (a function made by calls, or in C) runs in a process, which looks for
    itself.
    """

    is_async: bool = False
    wants_context: bool = True


def module_file(folder: Path, module: str) -> Path | None:
    """The file of `module` in a code folder; None where it is not there."""
    base = folder.joinpath(*module.split("."))
    return next((f for f in (base / "__init__.py", base.with_suffix(".py")) if f.is_file()), None)


@lru_cache(maxsize=4096)
def find_function(folder: Path, target: str) -> Function:
    """Look `module:function` up in the code folder first, then in the environment.

    Folders are named by the version of their code, so an answer stays true. Never raises: what is not
    found is reported by the process that tries to import it.
    """
    module, _, path = target.partition(":")
    file = module_file(folder, module) or _environment_file(module)
    if file is None:
        return Function()
    try:
        body = ast.parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError, RecursionError):
        return Function()
    return _describe(body, path.split("."))


def _environment_file(module: str) -> Path | None:
    """The file of a module of the environment. `importlib.util.find_spec` would import its packages."""
    places = None
    origin: str | None = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:depth]), places)
        if spec is None:
            return None
        places, origin = spec.submodule_search_locations, spec.origin
        if places is None and depth < len(parts):
            return None
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def _describe(body: list[ast.stmt], path: list[str]) -> Function:
    """The last definition of the dotted name, as running the module would leave it."""
    for node in reversed(body):
        if isinstance(node, ast.ClassDef) and node.name == path[0] and len(path) > 1:
            return _describe(node.body, path[1:])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and [node.name] == path:
            names = {a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
            return Function(isinstance(node, ast.AsyncFunctionDef), "ctx" in names)
    return Function()
