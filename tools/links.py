"""Every relative link in the Markdown files leads to a file, and every anchor to a heading.

Links to other machines are not followed: a check that needs the network fails for reasons of its own.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

_FENCE: Final = re.compile(r"^ {0,3}(`{3,}|~{3,}).*?^ {0,3}\1`*~*[ \t]*$", re.MULTILINE | re.DOTALL)
_CODE: Final = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
_LINK: Final = re.compile(
    r"\[[^\]]*\]\(\s*(?:<([^>\n]*)>|([^)\s]*))[^)]*\)|^ {0,3}\[[^\]]+\]:\s*(\S+)", re.MULTILINE
)
_HEADING: Final = re.compile(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
_ELSEWHERE: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//")


def broken(root: Path, pages: list[Path]) -> Iterator[str]:
    """One line `page:line: what` per link of `pages` that leads nowhere."""
    for page in pages:
        text = _without_code(page.read_text(encoding="utf-8"))
        for found in _LINK.finditer(text):
            target = next(part for part in found.groups() if part is not None)
            wrong = None if _ELSEWHERE.match(target) else _what_is_wrong(root, page, unquote(target))
            if wrong is not None:
                line = text.count("\n", 0, found.start()) + 1
                yield f"{page.relative_to(root)}:{line}: {wrong}"


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings get: lower case, blanks as hyphens, repeated ones numbered."""
    found: set[str] = set()
    for heading in _HEADING.findall(_without_fences(text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = 0
        while (numbered := f"{name}-{number}" if number else name) in found:
            number += 1
        found.add(numbered)
    return found


def _what_is_wrong(root: Path, page: Path, target: str) -> str | None:
    name, _, anchor = target.partition("#")
    place = root / name.lstrip("/") if name.startswith("/") else page.parent / name if name else page
    if not place.exists():
        return f"no such file: {name}"
    if not place.resolve().is_relative_to(root):
        return f"leads out of the repository: {name}"
    if anchor and place.suffix == ".md" and anchor not in anchors(place.read_text(encoding="utf-8")):
        return f"no such heading in {name or page.name}: #{anchor}"
    return None


def _is_hidden(page: Path) -> bool:
    return any(part.startswith(".") for part in page.parts)


def _without_fences(text: str) -> str:
    return _FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)


def _without_code(text: str) -> str:
    return _CODE.sub(lambda found: "\n" * found[0].count("\n"), _without_fences(text))


def main() -> int:
    """Check every Markdown file outside hidden folders (environments and caches are hidden)."""
    root = Path(__file__).resolve().parent.parent
    pages = sorted(page for page in root.rglob("*.md") if not _is_hidden(page.relative_to(root)))
    wrong = list(broken(root, pages))
    print("\n".join(wrong) if wrong else f"{len(pages)} pages, no broken link")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
