"""Frames between the serving process and a task process: four bytes of length, then msgpack.

Requests are `Call`s. A reply is any number of `Said` and `Group`, then one `Done`.
"""

from __future__ import annotations

from asyncio import StreamReader
from typing import Any, BinaryIO, Final

import msgspec

from eventflow.worker.call import Call


class Said(msgspec.Struct, frozen=True, tag=1, array_like=True):
    """Output of the task."""

    content: bytes


class Group(msgspec.Struct, frozen=True, tag=2, array_like=True):
    """The process group of a shell task: whoever kills the task process must kill it too."""

    id: int


class Done(msgspec.Struct, frozen=True, tag=3, array_like=True):
    """The end of a call: the result (JSON), or why it failed."""

    result: bytes | None = None
    error: str | None = None


Reply = Said | Group | Done

_LENGTH: Final = 4
_encode = msgspec.msgpack.Encoder().encode
_decode_call = msgspec.msgpack.Decoder(Call).decode
_decode_reply: Any = msgspec.msgpack.Decoder(Reply).decode


def frame(message: Call | Reply) -> bytes:
    """One message, ready to write."""
    body = _encode(message)
    return len(body).to_bytes(_LENGTH, "big") + body


def read_call(stream: BinaryIO) -> Call | None:
    """The next request; None when the other side is gone."""
    head = stream.read(_LENGTH)
    if len(head) < _LENGTH:
        return None
    size = int.from_bytes(head, "big")
    body = stream.read(size)
    return _decode_call(body) if len(body) == size else None


async def read_reply(stream: StreamReader) -> Reply:
    """The next reply. Raises `IncompleteReadError` when the process is gone."""
    size = int.from_bytes(await stream.readexactly(_LENGTH), "big")
    return _decode_reply(await stream.readexactly(size))
