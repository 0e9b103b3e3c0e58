"""Unpacking a compressed batch without ever holding more than is allowed.

A producer's few kilobytes may unpack to gigabytes (zstd: 1 to 30,000), and what unpacks without a bound takes
a node's memory, then that of the node that follows it. https://kafka.apache.org/documentation/#recordbatch
"""

# cramjam has no types.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import mmap
import struct
import zlib
from typing import Any, Final

import cramjam
from aiokafka.codec import snappy_decode
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError

CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
"""By their number in a batch's attributes."""
CODEC: Final = 0x07

_HEAD: Final = 61
"""Length of a batch's own fields in message format 2; the records follow."""
_ATTRIBUTES: Final = 22
_LENGTH: Final = struct.Struct(">i")
_GZIP: Final = 16 + zlib.MAX_WBITS
_XERIAL: Final = b"\x82SNAPPY\0"
"""Java's snappy is framed: 16 bytes, then blocks with their lengths."""
_FULL: Final = "failed to write whole buffer"

_room: Final = bytearray(4 << 20)
"""Where nearly every batch fits: memory that is there already is twice as fast as new pages each time."""


class TooLarge(Exception):
    """What a batch unpacks to is more than is allowed."""


def plain(raw: bytes, limit: int) -> bytes:
    """A batch of message format 2 as its producer would have sent it uncompressed; its checksum is not.

    Raises `TooLarge` above `limit` bytes of records, and what the codec raises.
    """
    head = bytearray(raw[:_HEAD])
    codec = head[_ATTRIBUTES] & CODEC
    head[_ATTRIBUTES] &= ~CODEC & 0xFF
    return b"".join((head, _unpacked(codec, memoryview(raw)[_HEAD:], limit)))


def check_wrapped(raw: bytes, magic: int, limit: int) -> None:
    """The same bound for a compressed message of format 0 or 1, which holds the others as its value."""
    if codec := raw[17] & CODEC:
        key = 18 if magic == 0 else 26
        value = key + 4 + max(_LENGTH.unpack_from(raw, key)[0], 0)
        begins = value + 4
        _unpacked(codec, memoryview(raw)[begins : begins + _LENGTH.unpack_from(raw, value)[0]], limit)


def _unpacked(codec: int, packed: memoryview, limit: int) -> bytes | memoryview:
    """Good until the next call."""
    name = CODECS[codec] if codec < len(CODECS) else f"number {codec}"
    if name == "gzip":
        return _gunzipped(packed, limit)
    if name == "snappy":
        _check_snappy(packed, limit)
        return snappy_decode(packed.tobytes())
    if name not in ("lz4", "zstd"):
        raise UnsupportedCodecError(f"unknown compression codec {name}")
    library: Any = getattr(cramjam, name)
    room = memoryview(_room)[:limit]
    try:
        return room[: library.decompress_into(packed, room)]
    except cramjam.DecompressionError as error:
        if str(error) != _FULL or len(room) == limit:
            raise (TooLarge if str(error) == _FULL else error) from None
    with mmap.mmap(-1, limit) as larger:  # takes what is written to, not what is allowed
        try:
            return larger[: library.decompress_into(packed, larger)]
        except cramjam.DecompressionError as error:
            raise (TooLarge if str(error) == _FULL else error) from None


def _gunzipped(packed: memoryview, limit: int) -> bytes:
    """One member or several, as `gzip` reads them."""
    parts: list[bytes] = []
    rest: bytes | memoryview = packed
    while rest:
        member = zlib.decompressobj(_GZIP)
        parts.append(member.decompress(rest, limit + 1))
        limit -= len(parts[-1])
        if limit < 0:
            raise TooLarge
        if not member.eof:
            raise CorruptRecordException("the gzip stream ends too soon")
        rest = member.unused_data.lstrip(b"\0")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _check_snappy(packed: memoryview, limit: int) -> None:
    """Snappy says before each block how long it is, and unpacks no block that is longer."""
    framed = bytes(packed[: len(_XERIAL)]) == _XERIAL
    at = 16 if framed else 0
    while at < len(packed):
        length = len(packed)
        if framed:
            (length,) = _LENGTH.unpack_from(packed, at)
            at += 4
            if length <= 0:
                raise CorruptRecordException("a snappy block without a length")
        limit -= cramjam.snappy.decompress_raw_len(packed[at : at + length])
        if limit < 0:
            raise TooLarge
        at += length
