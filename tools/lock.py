"""The locks are in step with pyproject.toml: judged from the files alone, without a network.

Each dependency of pyproject.toml is locked at a version that it allows, each locked package has hashes, and
no lock names an address: whoever installs takes the packages from the index that their machine is set up for.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK: Final = "requirements.lock"
IMAGE: Final = "requirements-image.lock"
IMAGE_EXTRAS: Final = ("kafka", "postgres", "regex")
IMAGE_GROUPS: Final = ("build",)  # the build backend: nothing is installed without a hash

_PACKAGE: Final = re.compile(r"^([a-z0-9][a-z0-9.-]*)==([^\s;\\]+)")
_ADDRESS: Final = re.compile(r"://|^\s*-(?:-?index|-?extra-index|-?find-links|i\b|f\b)")


@dataclass(frozen=True, slots=True)
class Locked:
    """One package of a lock. `dependants` are what its `# via` comments name."""

    version: str
    hashes: tuple[str, ...]
    dependants: tuple[str, ...]


def read(text: str) -> dict[str, Locked]:
    """The packages of a lock by canonical name."""
    found: dict[str, Locked] = {}
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)
    for block in blocks:
        head = _PACKAGE.match(block)
        if head is not None:
            hashes = tuple(re.findall(r"--hash=(\S+)", block))
            via = re.findall(r"^    # (?:via |  )(\S.*)$", block, flags=re.MULTILINE)
            found[canonicalize_name(head[1])] = Locked(head[2], hashes, tuple(via))
    return found


def wanted(project: dict[str, Any], extras: Iterable[str], groups: Iterable[str]) -> list[Requirement]:
    """What pyproject.toml asks for directly, with these extras and dependency groups."""
    texts: list[str] = [*project["project"]["dependencies"]]
    for extra in extras:
        texts += project["project"]["optional-dependencies"][extra]
    for group in groups:
        texts += _group(project["dependency-groups"], group)
    return [Requirement(text) for text in texts]


def problems(name: str, text: str, asked: list[Requirement]) -> Iterator[str]:
    """What is wrong with the lock `text`, one line each."""
    for number, line in enumerate(text.splitlines(), start=1):
        if _ADDRESS.search(line):
            yield f"{name}:{number}: an address: {line.strip()}"
    locked = read(text)
    for package, found in locked.items():
        if not found.hashes:
            yield f"{name}: {package} has no hash"
        if not found.dependants:
            yield f"{name}: {package} says nothing of who needs it"
    direct = {package for package, found in locked.items() if _is_direct(found)}
    for requirement in asked:
        package = canonicalize_name(requirement.name)
        direct.discard(package)
        if package not in locked:
            yield f"{name}: lacks {requirement}"
        elif not requirement.specifier.contains(locked[package].version, prereleases=True):
            yield f"{name}: has {package} {locked[package].version}, but pyproject.toml wants {requirement}"
    for package in sorted(direct):
        yield f"{name}: has {package} for pyproject.toml, which does not ask for it"


def differences(whole: str, image: str) -> Iterator[str]:
    """The image gets no version and no hash that the tests did not see."""
    tested = read(whole)
    for package, found in read(image).items():
        known = tested.get(package)
        if known is None or (known.version, known.hashes) != (found.version, found.hashes):
            yield f"{IMAGE}: {package} {found.version} is not what {LOCK} has"


def _is_direct(package: Locked) -> bool:
    # `eventflow (pyproject.toml)`, and `eventflow (pyproject.toml:dev)` for a group
    return any(dependant.startswith("eventflow (pyproject.toml") for dependant in package.dependants)


def _group(groups: dict[str, list[str | dict[str, str]]], name: str) -> Iterator[str]:
    for entry in groups[name]:
        if isinstance(entry, str):
            yield entry
        else:
            yield from _group(groups, entry["include-group"])


def main() -> int:
    """Compare both locks with pyproject.toml."""
    root = Path(__file__).resolve().parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text())
    whole, image = (root / LOCK).read_text(), (root / IMAGE).read_text()
    wrong = [
        *problems(LOCK, whole, wanted(project, project["project"]["optional-dependencies"], ["dev"])),
        *problems(IMAGE, image, wanted(project, IMAGE_EXTRAS, IMAGE_GROUPS)),
        *differences(whole, image),
    ]
    print(
        "\n".join([*wrong, "`make lock` makes them anew"])
        if wrong
        else "the locks are in step with pyproject.toml"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
