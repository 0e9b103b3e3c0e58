"""An event: an immutable fact with CloudEvents 1.0 attributes, and the strict JSON it arrives in.

Specification: CloudEvents 1.0.2 (attributes), RFC 8259 and RFC 7493 (JSON).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, cast
from uuid import UUID

import msgspec
import uuid_utils.compat

from eventflow.errors import Undecodable

JSON = Any
"""A decoded JSON value: None, bool, int, float, str, list or dict with str keys."""

EVENTFLOW_SOURCE = "eventflow"
"""The configured-source name of eventflow's own events: emits of rules, outcomes of runs, news of sources."""


class SourceNews(StrEnum):
    """The types of eventflow's own events about sources: subject is the source, data says which partition."""

    stalled = "eventflow.source.stalled"
    stopped = "eventflow.source.stopped"
    recovered = "eventflow.source.recovered"


class Lineage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where an event of eventflow's own came from.

    `rules` lists the rules of its causal chain, oldest first, repeats included; `root` is the uid of
    the event that began the chain; `depth` is the number of firings between that event and this one;
    `firing` is the firing that made this event.
    """

    root: str
    rules: tuple[str, ...] = ()
    depth: int = 0
    firing: str | None = None


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event. Its identity is (source, id), `source` being the configured name.

    A msgspec Struct and not a dataclass because one is made per record on the hot path (0.1 us
    against 1.5 us).

    `data` is the decoded payload and `raw` its original bytes. `sender` is the CloudEvents `source`
    attribute where a sender gave its own. `meta` holds facts of the transport. `dedupe` is the key a
    duplicate would share (None: position or ledger already tells). `replayof` is the uid of the
    event, or the id of the dead letter, that this one sends in again.
    """

    source: str
    id: str
    type: str
    data: JSON
    raw: bytes
    subject: str | None = None
    time: datetime | None = None
    sender: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    extensions: Mapping[str, str | int | bool] = {}
    meta: Mapping[str, JSON] = {}
    dedupe: bytes | None = None
    lineage: Lineage | None = None
    replayof: str | None = None


class Broken(msgspec.Struct, frozen=True, gc=False):
    """A record that is no event: kept whole as a dead letter of stage `decode`.

    `raw` is what arrived, byte for byte; `position` says where in the source it stood (JSON).
    """

    source: str
    raw: bytes
    reason: str
    position: JSON = None
    meta: Mapping[str, JSON] = {}
    dedupe: bytes | None = None


Record = Event | Broken


def new_uid() -> UUID:
    """A UUIDv7 (RFC 9562): unique, and ordered by time to the millisecond on one node."""
    return uuid_utils.compat.uuid7()


_decode: Final = msgspec.json.Decoder().decode
_MAX_DEPTH: Final = 64
_MAX_DIGITS: Final = 100
# A number of more than 100 digits has 51 in a row, and of those every 12th byte shows four in a row; so
# do many hashes in hexadecimal, which is why the row itself is looked for next.
_EVERY_12TH: Final = slice(None, None, 12)
_IS_DIGIT: Final = bytes(byte in b"0123456789" for byte in range(256))
_FOUR_DIGITS: Final = b"\1\1\1\1"
_ROW_OF_DIGITS: Final = b"\1" * 51
_BACKSLASH: Final = 0x5C
_NUMBERS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|([0-9]+)(?:\.([0-9]+))?', re.DOTALL)
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_PAIR: Final = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_BYTE: Final = re.compile(r"(.*?) \(byte (\d+)\)")


def decode_json(raw: bytes) -> JSON:
    """Strict JSON (RFC 8259, I-JSON's texts): the only way in for event data.

    At most 64 levels and 100 digits a number, UTF-8 without lone surrogates and NUL, no NaN or
    infinity; of duplicate keys the last counts. Integers are exact, numbers with a fraction or an
    exponent are doubles. Each check that costs runs only where a cheap one finds it may matter.
    Raises `Undecodable` and nothing else, whatever the bytes.
    """
    try:
        value = _decode(raw)
    except (ValueError, RecursionError) as error:
        raise Undecodable(_why_undecodable(raw, error)) from error
    # replace() finds nothing faster than count() does, and `in` with an int is one memchr.
    if len(raw) - len(raw.replace(b"{", b"").replace(b"[", b"")) > _MAX_DEPTH and _too_deep(value):
        raise Undecodable(f"nested deeper than {_MAX_DEPTH} levels")
    if _BACKSLASH in raw and b"\\u0000" in raw and (found := _NUL.search(raw)):
        raise Undecodable(f"a NUL character (\\u0000) at byte {found.end() - 6}")
    if (
        _FOUR_DIGITS in raw[_EVERY_12TH].translate(_IS_DIGIT)
        and _ROW_OF_DIGITS in raw.translate(_IS_DIGIT)
        and (at := _long_number(raw)) is not None
    ):
        raise Undecodable(f"a number of more than {_MAX_DIGITS} digits at byte {at}")
    return value


def encode_json(value: JSON) -> bytes:
    """`value` as JSON in UTF-8. Raises `ValueError` for what it cannot say: NaN, lone surrogates, objects."""
    try:
        raw = msgspec.json.encode(value)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from error
    if b"null" in raw and _has_non_finite(value):
        raise ValueError("no JSON: NaN and infinity have no form in it")
    return raw


def _too_deep(value: JSON) -> bool:
    """Whether containers nest deeper than the limit; level by level, so without recursion."""
    level: list[Any] = [value] if isinstance(value, (dict, list)) else []
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for container in level
            for inner in (cast(Any, container.values()) if type(container) is dict else container)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return False
    return True


def _long_number(raw: bytes) -> int | None:
    """Where a number with more than 100 digits before its exponent begins; digits in strings do not count."""
    for found in _NUMBERS.finditer(raw):
        if found[1] and len(found[1]) + len(found[2] or b"") > _MAX_DIGITS:
            return found.start()
    return None


def _why_undecodable(raw: bytes, error: Exception) -> str:
    """One sentence: what is wrong, and at which byte where that can be said."""
    if isinstance(error, RecursionError):
        return f"nested deeper than {_MAX_DEPTH} levels"
    if raw.startswith(b"\xef\xbb\xbf"):
        return "begins with a byte order mark, which JSON must not have"
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "not UTF-8: this looks like UTF-16 or UTF-32"
    if (at := raw.find(0)) >= 0:
        return f"a NUL byte at byte {at}; JSON must be UTF-8 without them"
    if not raw.strip():
        return "empty: there is no JSON value"
    try:
        raw.decode()
    except UnicodeDecodeError as wrong:
        return f"not valid UTF-8 at byte {wrong.start}"
    return _why_no_json(raw, str(error))


def _why_no_json(raw: bytes, message: str) -> str:
    if "out of range" in message:
        at = _long_number(raw)
        return (
            "a number beyond the range of a double"
            if at is None
            else f"a number of more than {_MAX_DIGITS} digits at byte {at}"
        )
    if (at := _lone_surrogate(raw)) is not None:
        return f"a lone surrogate at byte {at}"
    if message == "Input data was truncated":
        return f"the JSON ends too early, at byte {len(raw)}"
    if found := _BYTE.fullmatch(message):
        return f"no JSON: {found[1].removeprefix('JSON is malformed: ')} at byte {found[2]}"
    return f"no JSON: {message}"


def _lone_surrogate(raw: bytes) -> int | None:
    """Where the first surrogate escape without its other half stands."""
    paired = {at for found in _PAIR.finditer(raw) for at in (found.start(), found.start() + 6)}
    return next((at for found in _SURROGATE.finditer(raw) if (at := found.start()) not in paired), None)


def _has_non_finite(value: JSON) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(_has_non_finite(item) for item in cast(dict[str, Any], value).values())
    if isinstance(value, (list, tuple)):
        return any(_has_non_finite(item) for item in cast(list[Any], value))
    return False
