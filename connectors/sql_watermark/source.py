"""The watermark source: what eventflow calls. One round of `batches`:

server.look          the highest value, and whether the table is still the one we stand in (standing.py)
open_transactions    until nobody can commit a lower one any more
server.count         how many rows are new: the event

Where it begins at `latest` while transactions are open, the first round has no new highest value: it finds
out which rows up to the position were committed since the beginning (`_late`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final

from pydantic import BaseModel

from connectors.sql_watermark.config import SqlWatermarkConfig
from connectors.sql_watermark.examine import STANDBY, WRITTEN_OUT, warnings
from connectors.sql_watermark.open_transactions import any_open, wait_for_open
from connectors.sql_watermark.standing import Standing, added, why_stopped
from eventflow.errors import SourceStopped, SourceUnavailable, UsageError
from eventflow.event import JSON, Event, encode_json
from eventflow.offers import Progress, Resumption, Sends
from eventflow.source import Batch, Delivery, Receipt, SourceContext

if TYPE_CHECKING:
    from connectors.sql_watermark.server import Look, Server

MOST_COUNTED: Final = 10_000


class SqlWatermarkSource:
    """A table that rows are only added to. Unit of order and parallelism: the table, one partition.

    Guarantee: every committed row whose column got its value inside the transaction that inserted it is in
    exactly one `table.grew`, in whatever order transactions commit. With `lag:` the same for every row that
    is committed within `lag` of getting its value. Rows that are deleted before they are counted are not.
    With `initial: latest` it holds for rows that are committed after the first position is.
    Position: `{"value": text | null, "table": number, "sequence": number | null, "column": number, "type":
    text}`, and while rows up to `value` may still come `"seen"`: see `standing.py`.
    """

    Config: ClassVar[type[BaseModel]] = SqlWatermarkConfig
    delivery: ClassVar[Delivery] = Delivery.ordered

    def __init__(self, name: str, config: SqlWatermarkConfig, context: SourceContext) -> None:
        self._name = name
        self._config = config
        self._secret = context.secret
        self._subject = ".".join(config.table_names)
        self._waits_for: str | None = None

    @classmethod
    def sends(cls, config: SqlWatermarkConfig) -> Sends:
        """For `check`: the one type, and its fields."""
        return Sends(frozenset({"table.grew"}), frozenset({"new_rows", "from", "to"}))

    async def origin(self) -> str | None:
        """System identifier and database. Raises `SourceUnavailable` where the server is away."""
        async with self._connect() as server:
            await server.kind()
            return await server.origin()

    async def partitions(self) -> Sequence[str]:
        return [""]

    async def batches(self, partition: str, cursor: JSON) -> AsyncGenerator[Batch]:
        """One event for each poll that finds new rows."""
        async with self._connect() as server:
            standing = Standing.of(cursor)
            if standing is None:
                look = await server.look(None)
                self._check_primary(look)
                earliest = self._config.initial == "earliest"
                standing = Standing.at(look, None) if earliest else await self._latest(server, look)
                yield Batch([], cursor=standing.cursor())
            while True:
                look = await self._look(server, standing)
                self._check(standing, look)
                grown: list[Event] | None = None
                if standing.seen is not None:
                    look = replace(look, highest=standing.value)
                    grown = await self._late(server, standing, look)
                elif look.above:
                    grown = await self._grown(server, standing, look)
                if grown is not None:
                    standing = Standing.at(look, look.highest)
                    yield Batch(grown, cursor=standing.cursor())
                await asyncio.sleep(self._config.every.total_seconds())

    async def _look(self, server: Server, standing: Standing) -> Look:
        """Compared with the position, if the column has still such values."""
        return await server.look(standing.value if standing.type == (await server.kind()).type else None)

    async def _latest(self, server: Server, look: Look) -> Standing:
        """At the highest value, with what is there up to it where a lower one may still be committed.

        Nothing can where no transaction is open after the look: what was has ended, and counts as there.
        """
        if look.highest is None or (look.is_time and self._config.lag):
            return Standing.at(look, look.highest)
        if self._config.lag is None and not await any_open(server):
            return Standing.at(look, look.highest)
        return Standing.at(look, look.highest, await server.steps(look.highest))

    async def _late(self, server: Server, standing: Standing, look: Look) -> list[Event] | None:
        """The event for rows up to the position that were not there at the beginning; like `_grown`.

        Its range begins at a value that is below all of them, and may take in some that were there.
        """
        assert standing.value is not None
        assert standing.seen is not None
        await self._safe(server)
        more = added(standing.seen, await server.steps(standing.value))
        if not more:
            return [] if await self._same_table(server, look) else None
        begin = await server.beyond(max(map(int, more)), standing.value)
        if not await self._same_table(server, look):
            return None
        return [await self._event(server, begin, standing.value, sum(more.values()))]

    async def _grown(self, server: Server, standing: Standing, look: Look) -> list[Event] | None:
        """The event for rows up to `look`, none where they are gone; None: the table began anew meanwhile."""
        assert look.highest is not None
        await self._safe(server)
        rows = await server.count(standing.value, look.highest)
        if not await self._same_table(server, look):
            return None
        return [await self._event(server, standing.value, look.highest, rows)] if rows else []

    async def _same_table(self, server: Server, look: Look) -> bool:
        after = await server.look(None)
        return (after.table, after.sequence) == (look.table, look.sequence)

    async def committed(self, batch: Batch, receipts: Sequence[Receipt | None]) -> None:
        """Nobody waits for it."""

    async def refused(self, batch: Batch, error: Exception) -> None:
        """Nobody waits for it."""

    async def progress(self, partition: str, cursor: JSON) -> Progress:
        """`lag` counts rows above the position, to 10,000; `note` names a transaction that holds it back."""
        standing = Standing.of(cursor)
        if standing is None:
            return Progress(None, "rows")
        async with self._connect() as server:
            return Progress(await server.behind(standing.value, MOST_COUNTED), "rows", self._waits_for)

    @staticmethod
    def spelled(cursor: JSON) -> str:
        """The watermark; `-` before the first row."""
        return "-" if cursor["value"] is None else str(cursor["value"])

    async def resume_at(self, partition: str, cursor: JSON, where: str) -> Resumption:
        """`earliest` counts the table anew, `latest` from its highest value, else from the value named.

        Where it goes back in the table that was counted, nothing is missing: rows are counted again.
        """
        before = Standing.of(cursor)
        async with self._connect() as server:
            kind = await server.kind()
            if where not in ("earliest", "latest"):
                try:
                    where = await server.written(where)
                except ValueError as error:
                    raise UsageError(
                        f"source '{self._name}': {where!r} is neither `earliest`, `latest` nor a value of "
                        f"{self._config.table}.{self._config.column}: {error}"
                    ) from error
            look = await server.look(None)
            if where == "latest":
                after = await self._latest(server, look)
            else:
                after = Standing.at(look, None if where == "earliest" else where)
            if before and await self._goes_back(server, before, after):
                return Resumption(after.cursor(), None)
            missing = {"from": before and kind.value(before.value), "to": kind.value(after.value)}
            return Resumption(after.cursor(), missing)

    async def _goes_back(self, server: Server, before: Standing, after: Standing) -> bool:
        if why_stopped(before, await self._look(server, before)):
            return False
        return after.value is None or (
            before.value is not None and await server.not_above(after.value, before.value)
        )

    async def examine(self) -> Sequence[str]:
        """What the table cannot deliver. Raises `SourceUnavailable` where it cannot be asked."""
        said = [WRITTEN_OUT] if self._has_password() else []
        try:
            async with self._connect() as server:
                return [*said, *await warnings(server)]
        except SourceUnavailable:
            if not said:
                raise
            return said

    def _has_password(self) -> bool:
        try:
            from connectors.sql_watermark.address import password_in  # noqa: PLC0415 - needs the extra
        except ImportError:
            return False
        return password_in(self._config.url)

    def _connect(self) -> AbstractAsyncContextManager[Server]:
        """A connection of its own. Raises `SourceUnavailable` where the client library is not installed."""
        try:
            from connectors.sql_watermark.server import Server  # noqa: PLC0415 - needs the extra
        except ImportError as error:
            raise SourceUnavailable(f"source '{self._name}': {error}; install eventflow[postgres]") from error
        return Server.connect(self._name, self._config, self._secret)

    def _check(self, standing: Standing, look: Look) -> None:
        """Raises `SourceStopped` where the table is no more the one that was counted."""
        reason = why_stopped(standing, look)
        if reason:
            missing = {"from": standing.value, "to": look.highest}
            raise SourceStopped(
                f"source '{self._name}': {self._config.table} {reason}; rows may have been "
                f"added that are not counted. Say where to go on: `eventflow sources resume {self._name} "
                f"--from earliest|latest|VALUE`",
                missing,
            )
        self._check_primary(look)

    def _check_primary(self, look: Look) -> None:
        if look.standby and not self._config.lag:
            raise SourceUnavailable(f"source '{self._name}': {STANDBY}")

    async def _safe(self, server: Server) -> None:
        """Until no row can be committed any more at or below the value that was just read."""
        kind = await server.kind()
        if self._config.lag is None:
            await wait_for_open(server, self._say)
        elif not kind.is_time:  # a time is only read when it is `lag` old
            await asyncio.sleep(self._config.lag.total_seconds())

    def _say(self, sentence: str | None) -> None:
        self._waits_for = sentence

    async def _event(self, server: Server, after: str | None, until: str, rows: int) -> Event:
        kind = await server.kind()
        data = {"new_rows": rows, "from": kind.value(after), "to": kind.value(until)}
        return Event(
            source=self._name, id=f"{after or ''}..{until}", type="table.grew",
            subject=self._subject, data=data, raw=encode_json(data), datacontenttype="application/json",
        )  # fmt: skip
