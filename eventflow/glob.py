r"""Globs: `*` within a segment, `**` across segments, `?` one character but `/`, `\\` escapes the next.

`[` and `{` are literal and a glob matches the whole string. `**` that fills a segment stands for any
number of segments, none included: `a/**/b` matches `a/b`, `**/x` matches `x`, `a/**` matches what is
below `a` and not `a` itself. Anywhere else `**` is any text, slashes included.

Own matcher, because a plain translation to Python's `re` needs exponential time for some globs: here a
match costs at most len(glob) * len(text) steps. A glob whose `**` all fill segments is handed to `re` all
the same, in a form that has nothing to backtrack into (atomic groups, possessive repeats): the same bound,
ten times faster. A property test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

_Wild = Literal["?", "*", "**", "**/"]
_Token = tuple[Literal["literal"], str] | tuple[Literal["wild"], _Wild]


class GlobError(ValueError):
    """A glob that ends in a single backslash."""


@dataclass(slots=True)
class Glob:
    """A compiled glob; its fields are not to be set.

    `prefix` and `suffix` are literal texts that every match begins and ends with; `segments` are whole
    segments, free of wildcards, that every match contains. `literal` says that nothing is wild.
    `search` gives something true where the whole text matches: `match` for those who call it often.
    """

    text: str
    prefix: str
    suffix: str
    segments: tuple[str, ...]
    literal: bool
    _tokens: tuple[_Token, ...] = field(repr=False)
    search: Callable[[str], object] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.search = self._first_search

    def match(self, text: str) -> bool:
        """Whether the whole of `text` matches."""
        return bool(self.search(text))

    def _first_search(self, text: str) -> object:
        """Most globs of a large rule set never see a text, so they are compiled when the first one comes."""
        self.search = _compile(self._tokens) or partial(_match_tokens, self._tokens)
        return self.search(text)


def compile_glob(text: str) -> Glob:
    """Raises `GlobError`."""
    tokens = _tokens(text)
    literal = all(kind == "literal" for kind, _ in tokens)
    prefix = tokens[0][1] if tokens and tokens[0][0] == "literal" else ""
    suffix = tokens[-1][1] if tokens and tokens[-1][0] == "literal" else ""
    return Glob(text, prefix, suffix, _segments(tokens), literal, tokens)


def _tokens(text: str) -> tuple[_Token, ...]:
    """Literals (escapes resolved, neighbours joined) and wildcards; runs of equal wildcards are one."""
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        character = text[at]
        if character == "*":
            at = _star(text, at, tokens)
            continue
        if character == "?":
            tokens.append(("wild", "?"))
        else:
            if character == "\\":
                at += 1
                if at == len(text):
                    raise GlobError("a glob cannot end in a single backslash; `\\\\` is a literal one")
                character = text[at]
            _add_literal(tokens, character)
        at += 1
    return tuple(tokens)


def _star(text: str, at: int, tokens: list[_Token]) -> int:
    """Add the wildcard for the run of stars at `at`; the index behind it."""
    end = at
    while end < len(text) and text[end] == "*":
        end += 1
    wild: _Wild = "*" if end - at == 1 else "**"
    if end - at == 2 and text[end : end + 1] == "/" and (at == 0 or text[at - 1] == "/"):
        wild, end = "**/", end + 1
    if not tokens or tokens[-1] != ("wild", wild):
        tokens.append(("wild", wild))
    return end


def _add_literal(tokens: list[_Token], character: str) -> None:
    if tokens and tokens[-1][0] == "literal":
        tokens[-1] = ("literal", tokens[-1][1] + character)
    else:
        tokens.append(("literal", character))


def _segments(tokens: tuple[_Token, ...]) -> tuple[str, ...]:
    """Segments with a slash or an end of the glob on either side; `**/` begins a segment."""
    found: list[str] = []
    for index, (kind, text) in enumerate(tokens):
        if kind != "literal":
            continue
        pieces = text.split("/")
        begins = index == 0 or tokens[index - 1] == ("wild", "**/")
        ends = index == len(tokens) - 1
        whole = pieces[0 if begins else 1 : len(pieces) if ends else len(pieces) - 1]
        found += [piece for piece in whole if piece]
    return tuple(found)


def _compile(tokens: tuple[_Token, ...]) -> Callable[[str], object] | None:
    r"""The glob for `re`, without anything to backtrack into; None where `**` does not fill a segment.

    `**/` goes over whole segments, each possessively, and tries what follows at each of them. What follows
    is bounded by the segments it names, and the leftmost fit is the best one: whatever could come after a
    later fit can come after it too. So every `**/` but the last, and every `*` with its literal, is atomic;
    the last stretch must reach the end of the text, and a `*` before the last literal is its only freedom.
    """
    wilds = [text for kind, text in tokens if kind == "wild"]
    if "**" in wilds and ("**" in wilds[:-1] or tokens[-1] != ("wild", "**")):
        return None
    stretches = _stretches(tokens)
    last = len(stretches) - 1
    pieces = [_stretch(stretch, last=number == last) for number, stretch in enumerate(stretches)]
    for number in range(1, last):
        pieces[number] = f"(?>{_SEGMENTS}{pieces[number]})"
    if last > 0:
        pieces[last] = _SEGMENTS + pieces[last]
    return re.compile("".join(pieces), re.DOTALL).fullmatch


_SEGMENTS: Final = "(?:[^/]*+/)*?"


def _stretches(tokens: tuple[_Token, ...]) -> list[list[_Token]]:
    """The tokens between the `**/`."""
    found: list[list[_Token]] = [[]]
    for token in tokens:
        if token == ("wild", "**/"):
            found.append([])
        else:
            found[-1].append(token)
    return found


def _stretch(tokens: list[_Token], *, last: bool) -> str:
    """`last`: its end is the end of the text."""
    pieces = [""]
    for kind, text in tokens:
        if (kind, text) == ("wild", "*"):
            pieces.append("")
        else:
            pieces[-1] += re.escape(text) if kind == "literal" else "[^/]" if text == "?" else ".*"
    anchored = last and len(pieces) > 1 and tokens[-1] != ("wild", "**")
    end = [f"[^/]*{pieces.pop()}"] if anchored else []
    return "".join([pieces[0], *(f"(?>[^/]*?{piece})" for piece in pieces[1:]), *end])


def _match_tokens(tokens: tuple[_Token, ...], text: str) -> bool:
    """Positions that the glob read so far may have reached, token by token."""
    reached = [0]
    for kind, piece in tokens:
        if kind == "literal":
            reached = [at + len(piece) for at in reached if text.startswith(piece, at)]
        elif piece == "?":
            reached = [at + 1 for at in reached if at < len(text) and text[at] != "/"]
        elif piece == "*":
            reached = _within_segment(reached, text)
        elif piece == "**":
            reached = list(range(reached[0], len(text) + 1))
        else:
            reached = _at_segments(reached, text)
        if not reached:
            return False
    return reached[-1] == len(text)


def _within_segment(reached: list[int], text: str) -> list[int]:
    """Every position from one of `reached` (ascending) up to the next slash or the end."""
    found: list[int] = []
    for at in reached:
        start = max(at, found[-1] + 1) if found else at
        if found and at <= found[-1]:
            continue
        slash = text.find("/", start)
        found += range(start, (len(text) if slash < 0 else slash) + 1)
    return found


def _at_segments(reached: list[int], text: str) -> list[int]:
    """`**/` stands at the beginning of a segment: every segment from there on may come next."""
    found = [reached[0]]
    slash = text.find("/", reached[0])
    while slash >= 0:
        found.append(slash + 1)
        slash = text.find("/", slash + 1)
    return sorted({*found, *reached})
