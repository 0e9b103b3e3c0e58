"""The Postgres source: what eventflow calls. Read this first, then the parts in the order of a change's path.

    session.py      a connection to the server
    gate.py         may the stream go on from the stored position? A gap stops it
    snapshot.py     what is in the tables, read once before the stream, where that is asked for
    replication.py  the stream of the slot
    pgoutput.py     its messages; `values.py`: texts of columns as JSON
    transaction.py  messages in, records and the position after them out; `record.py`: one change as an event
    merge.py        which changes a snapshot contains already
    stream.py       batches

`config.py` are the words of the rule file, `position.py` is the cursor, `server.py` what the server says of
itself, `setup.py` is `sources setup` and `check`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar, Final

from pydantic import BaseModel

from connectors.postgres_cdc.config import PostgresCdcConfig, default_name
from connectors.postgres_cdc.lsn import parse_lsn
from connectors.postgres_cdc.position import Position
from connectors.postgres_cdc.record import TYPES, reread
from eventflow.errors import SourceUnavailable
from eventflow.event import JSON, Record
from eventflow.holes import fill
from eventflow.offers import Progress, Resumption, Sends
from eventflow.source import Batch, Delivery, Receipt, SourceContext

if TYPE_CHECKING:
    from connectors.postgres_cdc.engine import Engine

_FIELDS: Final = frozenset({"op", "before", "after", "source", "ts_ms", "unchanged"})


class PostgresCdcSource:
    """Inserts, updates, deletes and truncates of some tables of one database, in commit order.

    Guarantee: each change that commits after the slot was made is taken in exactly once in effect: the
    stored position is the authority, and the slot follows it after COMMIT. The unit of order and of
    parallelism is the slot: one partition, read by one node at a time.
    """

    Config: ClassVar[type[BaseModel]] = PostgresCdcConfig
    delivery: ClassVar[Delivery] = Delivery.ordered

    def __init__(self, name: str, config: PostgresCdcConfig, context: SourceContext) -> None:
        self._name = name
        self._config = config
        self._secret = context.secret
        self._slot = config.slot or default_name(name)
        self._engine: Engine | None = None

    @classmethod
    def sends(cls, config: PostgresCdcConfig) -> Sends:
        """For `check`: the columns of a table nobody knows, but what stands around them."""
        types = frozenset(TYPES.values()) - (frozenset() if config.snapshot == "initial" else {TYPES["r"]})
        return Sends(types, _FIELDS)

    async def origin(self) -> str:
        """The cluster's system identifier and the database's name: a position means something there only."""
        return await self._made().origin()

    async def partitions(self) -> Sequence[str]:
        return (self._slot,)

    async def batches(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        """A snapshot where that is asked for and not done, then the stream. See `Position` for the cursor."""
        async with aclosing(
            self._made().batches(None if cursor is None else Position.from_json(cursor))
        ) as own:
            async for batch in own:
                yield batch

    async def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None:
        """The slot may follow. The server hears of it every few seconds, and at once where it asks."""
        if self._engine is not None:
            self._engine.confirm(parse_lsn(batch.cursor["lsn"]))

    async def refused(self, batch: Batch, error: Exception) -> None:
        """Nobody waits for an answer; the next owner begins at the stored position."""

    def reread(self, raw: bytes, meta: Mapping[str, JSON]) -> Record:
        """The record of what was kept: `data` as JSON, or the message that could not be decoded."""
        return reread(self._name, raw, meta)

    async def progress(self, partition: str, cursor: JSON) -> Progress:
        """WAL behind its current end, in bytes, and what the slot keeps on the server's disk."""
        return await self._made().progress(None if cursor is None else Position.from_json(cursor))

    @staticmethod
    def spelled(cursor: JSON) -> str:
        """The LSN."""
        return str(cursor["lsn"])

    async def resume_at(self, partition: str, cursor: JSON, where: str) -> Resumption:
        """`earliest`: what the slot still has; `latest`: from now on; or an LSN between the two."""
        return await self._made().resume_at(None if cursor is None else Position.from_json(cursor), where)

    async def preparation(self) -> Sequence[str]:
        """The SQL that is missing, with the least that it needs."""
        return await self._made().preparation()

    async def prepare(self) -> Sequence[str]:
        return await self._made().prepare()

    async def examine(self) -> Sequence[str]:
        return await self._made().examine()

    def _made(self) -> Engine:
        """What speaks with the server; only then is its driver needed."""
        engine = self._engine
        if engine is None:
            publication = self._config.publication or default_name(self._name)
            engine = _engine().Engine(self._name, self._config, self._url, self._slot, publication)
            self._engine = engine
        return engine

    def _url(self) -> str:
        """Read at every use, so that a rotated secret needs no restart."""
        return fill(self._config.url, self._secret)


def _engine() -> ModuleType:
    try:
        from connectors.postgres_cdc import engine  # noqa: PLC0415 - psycopg is an extra
    except ImportError as error:
        raise SourceUnavailable(f"psycopg is missing ({error}): install eventflow[postgres]") from error
    return engine
