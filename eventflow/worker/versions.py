"""Import modules of a code folder so that two versions of them live side by side in one process.

A folder becomes a package with a name of its own, and its modules see an `import` that looks there first:
`import retail.tasks` in the code of version A and of version B are two modules, neither named `retail`.
Only `async def` tasks run inside the serving process; task processes have one version each.
"""

from __future__ import annotations

import builtins
import importlib
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from hashlib import sha256
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from eventflow.worker.locate import module_file

_lock: Final = threading.Lock()


class _Loader(SourceFileLoader):
    """Loads a module of a version: its builtins have the version's `__import__`."""

    def __init__(self, name: str, path: str, builtins_: Mapping[str, Any]) -> None:
        super().__init__(name, path)
        self._builtins = builtins_

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = self._builtins
        super().exec_module(module)


class _Version(MetaPathFinder):
    """One code folder, importable below the package `package`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.package = f"eventflow_code_{sha256(bytes(folder)).hexdigest()[:16]}"
        self._builtins = {**vars(builtins), "__import__": self._import}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == self.package:
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(self._folder)]
            return spec
        if not fullname.startswith(f"{self.package}."):
            return None
        inner = fullname.removeprefix(f"{self.package}.")
        file = module_file(self._folder, inner)
        if file is None:
            return self._namespace(fullname, inner)
        places = [str(file.parent)] if file.name == "__init__.py" else None
        loader = _Loader(fullname, str(file), self._builtins)
        return spec_from_file_location(fullname, file, loader=loader, submodule_search_locations=places)

    def _namespace(self, fullname: str, inner: str) -> ModuleSpec | None:
        folder = self._folder.joinpath(*inner.split("."))
        if not folder.is_dir():
            return None
        spec = ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        return spec

    def has(self, module: str) -> bool:
        """Whether the folder holds this module; if so, the environment's one of that name is not seen."""
        first = self._folder / module.partition(".")[0]
        return first.with_suffix(".py").is_file() or first.is_dir()

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if level or not self.has(name):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        found = builtins.__import__(f"{self.package}.{name}", globals, locals, fromlist or (), 0)
        # `import a.b` binds `a`; the plain import has returned the version's package.
        return found if fromlist else getattr(found, name.partition(".")[0])


_versions: Final[dict[Path, _Version]] = {}


def load_function(folder: Path, target: str) -> Callable[..., Any]:
    """Import `module:function` from the code folder, else from the environment. Raises what that does."""
    module, _, path = target.partition(":")
    with _lock:
        version = _versions.get(folder)
        if version is None:
            version = _versions[folder] = _Version(folder)
            sys.meta_path.insert(0, version)
    name = f"{version.package}.{module}" if module_file(folder, module) is not None else module
    found: Any = reduce(getattr, path.split("."), importlib.import_module(name))
    return found
