r"""Path patterns: a glob with captures, matched against the path under the root.

`*` is anything within a segment, `**` anything across segments (`**/` also nothing at all), `?` one
character of a segment, `\` takes the next character as it is, `[` is literal, `{name}` captures within one
segment. The whole path must match. A capture whose text does not parse is no match.

File names are hostile, so matching is backtracking with every failure remembered: polynomial with small
powers in the length of the path whatever the pattern is, where a regular expression of six captures
needs 10^11 steps for a name of 255 underscores.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from connectors.file.capture import Capture, compile_capture
from eventflow.event import JSON


class Wild(Enum):
    """The tokens of a glob that are not text."""

    one = "?"
    star = "*"
    any = "**"
    folders = "**/"


Token = str | Wild | Capture


class PathPattern:
    """A compiled pattern. Raises `ValueError` with what is wrong and what to write instead."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._tokens = _tokens(text)
        self.names = tuple(token.name for token in self._tokens if isinstance(token, Capture))
        self._everything = self._tokens == [Wild.any]
        self._suffix = self._tokens[-1] if isinstance(self._tokens[-1], str) else ""
        self._prefix = self._tokens[0] if isinstance(self._tokens[0], str) else ""

    def match(self, path: str) -> Mapping[str, JSON] | None:
        """The captures (empty where none are asked for), or None where the path does not match."""
        if self._everything:
            return {}
        if not path.startswith(self._prefix) or not path.endswith(self._suffix):
            return None
        attempt = _Attempt(self._tokens, path)
        return attempt.captures if attempt.rest(0, 0) else None


def _tokens(text: str) -> list[Token]:
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        token, position = _token(text, position)
        if isinstance(token, str) and tokens and isinstance(tokens[-1], str):
            tokens[-1] += token
        elif token in (Wild.star, Wild.any) and tokens and tokens[-1] is token:
            continue
        else:
            tokens.append(token)
    if not tokens:
        raise ValueError('a pattern may not be empty; "**" takes every file')
    names = [token.name for token in tokens if isinstance(token, Capture)]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{{{name}}} is captured twice; give each capture a name of its own")
    return tokens


def _token(text: str, position: int) -> tuple[Token, int]:
    """The token that begins at `position`, and where the next one does."""
    here = text[position]
    if here == "\\":
        if position + 1 == len(text):
            raise ValueError("a pattern may not end in a lone \\; write \\\\ for a backslash")
        return text[position + 1], position + 2
    if here == "?":
        return Wild.one, position + 1
    if here == "*":
        return _stars(text, position)
    if here == "{":
        end = text.find("}", position)
        if end < 0:
            raise ValueError("a { has no }; write \\{ for a brace in a name")
        hole = text[position + 1 : end]
        if "/" in hole:
            raise ValueError(f"{{{hole}}} spans folders; capture each one, as in {{year:%Y}}/{{month:%m}}")
        return compile_capture(hole), end + 1
    return here, position + 1


def _stars(text: str, position: int) -> tuple[Token, int]:
    end = position
    while end < len(text) and text[end] == "*":
        end += 1
    if end - position == 1:
        return Wild.star, end
    begins_segment = position == 0 or text[position - 1] == "/"
    if begins_segment and text.startswith("/", end):
        return Wild.folders, end + 1
    return Wild.any, end


class _Attempt:
    """One path tried against the tokens.

    `failed` holds (token, position) from where nothing matches; `exhausted` the smallest position from
    which a wildcard failed, by (token, how far it may reach): from a later one its ends are a subset.
    """

    def __init__(self, tokens: list[Token], path: str) -> None:
        self.tokens = tokens
        self.path = path
        self.captures: dict[str, JSON] = {}
        self.failed: set[tuple[int, int]] = set()
        self.exhausted: dict[tuple[int, int], int] = {}

    def rest(self, index: int, position: int) -> bool:
        """Whether the tokens from `index` on match the path from `position` on, to its end."""
        if index == len(self.tokens):
            return position == len(self.path)
        if (index, position) in self.failed:
            return False
        if self._token(index, position):
            return True
        self.failed.add((index, position))
        return False

    def _token(self, index: int, position: int) -> bool:
        token = self.tokens[index]
        if isinstance(token, str):
            return self.path.startswith(token, position) and self.rest(index + 1, position + len(token))
        if token is Wild.one:
            inside = position < len(self.path) and self.path[position] != "/"
            return inside and self.rest(index + 1, position + 1)
        if isinstance(token, Capture):
            return self._capture(index, position, token)
        reach = len(self.path) if token is not Wild.star else self._segment_end(position)
        return self._wild(index, position, reach, at_folders=token is Wild.folders)

    def _wild(self, index: int, position: int, reach: int, *, at_folders: bool) -> bool:
        worst = self.exhausted.get((index, reach), reach + 1)
        for end in range(position, min(reach, worst - 1) + 1):
            starts_segment = end == position or self.path[end - 1] == "/"
            if (starts_segment or not at_folders) and self.rest(index + 1, end):
                return True
        self.exhausted[index, reach] = min(position, worst)
        return False

    def _capture(self, index: int, position: int, capture: Capture) -> bool:
        reach = min(self._segment_end(position), position + capture.longest)
        ends = range(position + capture.shortest, reach + 1)
        for end in ends if capture.text else reversed(ends):
            value = capture.parse(self.path[position:end])
            if value is not None and self.rest(index + 1, end):
                self.captures[capture.name] = value
                return True
        return False

    def _segment_end(self, position: int) -> int:
        end = self.path.find("/", position)
        return len(self.path) if end < 0 else end
