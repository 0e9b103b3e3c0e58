"""Everything wrong with a rule set, gathered: one reading tells a person all of it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from eventflow.errors import Problem
from eventflow.rulefile.nodes import Mark, Node, shorten

LONGEST_WORD = 100
"""Comparing takes the product of two lengths, and no known word is nearly as long."""


MANY = 100
"""Problems after which names like one of more than so many others are no longer looked for: 50 ms each."""


@dataclass(frozen=True, slots=True)
class Report:
    """Collects the problems of one file; reports of one set share `problems`."""

    file: str
    problems: list[Problem] = field(default_factory=list[Problem])

    def of(self, file: str) -> Report:
        """The same collection for another file."""
        return Report(file, self.problems)

    def error(self, at: Mark | Node, message: str) -> None:
        """Something that keeps the set from loading."""
        self._add(at, message, warning=False)

    def warn(self, at: Mark | Node, message: str) -> None:
        """Something that is probably not meant."""
        self._add(at, message, warning=True)

    def unknown(self, what: str, word: str, known: Collection[str]) -> str:
        """`unknown` for names of the set, of which there may be thousands, in as many errors."""
        if len(known) > MANY and len(self.problems) > MANY:
            return f"unknown {what} '{shorten(word)}'"
        return unknown(what, word, known)

    def _add(self, at: Mark | Node, message: str, *, warning: bool) -> None:
        line, column = at if isinstance(at, Mark) else at.mark
        self.problems.append(Problem(self.file, line, column, message, warning))


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Problems by file and place, each once."""
    return sorted(set(problems), key=lambda one: (one.file, one.line, one.column, one.warning, one.message))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` where a known word is near, else nothing."""
    near = nearest(word, known)
    return f"; did you mean '{near[0]}'?" if near else ""


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """The one known word that is near, if one is."""
    names = list(known)
    if len(word) > LONGEST_WORD:
        return []
    return difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    """`unknown word 'mach'; did you mean 'match'?`, or else the words there are."""
    names = sorted(known)
    hint = did_you_mean(word, names)
    if not hint:
        listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        hint = f"; there is {listed}" if names else "; there is none"
    return f"unknown {what} '{shorten(word)}'{hint}"
