r"""Header names that are no UTF-8: clients may write them, brokers take them, and aiokafka gives up on them.

Then the batch is read once more with the bytes that are no text escaped, as in `\xff`: a producer's mistake
harms its own record's header and no other record.
"""

# aiokafka's record parsers are compiled and have no types.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, SupportsIndex, cast

from aiokafka.record.default_records import _DefaultRecordBatchPy


class _Name(bytearray):
    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return super().decode(encoding, "backslashreplace")


class _Buffer(bytearray):
    """A batch; the parser decodes slices of it, which are the names, and nothing else."""

    def __getitem__(self, at: SupportsIndex | slice) -> Any:
        found = super().__getitem__(at)
        return _Name(found) if isinstance(found, bytearray) else found


def records_of(batch: Any, raw: bytes) -> Iterator[Any]:
    """The records of an uncompressed batch, of which `raw` are the bytes.

    After a name that is no text all of them come again, from the first one on.
    """
    try:
        yield from batch
    except UnicodeDecodeError:
        again = cast("Any", _DefaultRecordBatchPy(bytearray(raw)))
        again._buffer = _Buffer(again._buffer)
        yield from again
