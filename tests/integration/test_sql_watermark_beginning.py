"""Where a watermark begins, and on which column: what commits late, what changes, what is no value."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from connectors.sql_watermark import SqlWatermarkSource
from connectors.sql_watermark.config import SqlWatermarkConfig
from eventflow.embedded import Embedded
from eventflow.errors import SourceStopped, SourceUnavailable
from eventflow.event import Event
from eventflow.testing.reading import Core, Reading

Conn = psycopg.AsyncConnection[Any]
IDENTITY = "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, other bigint"


class Table:
    """`public.orders` on a database of this test's own, and the source that watches it."""

    def __init__(self, url: str, conn: Conn, folder: Path) -> None:
        self.url = url
        self.conn = conn
        self.core = Core(folder)

    def source(self, **words: Any) -> SqlWatermarkSource:
        words = {"url": self.url, "table": "public.orders", "column": "id", "initial": "latest",
                 "every": "20ms", **words}  # fmt: skip
        return SqlWatermarkSource("orders", SqlWatermarkConfig.model_validate(words), self.core.context())

    @asynccontextmanager
    async def reading(self, **words: Any) -> AsyncIterator[Reading]:
        """From its first position on."""
        async with Reading(self.source(**words), self.core) as reading:
            if self.core.cursor("") is None:
                await reading.commit(*await reading.next_of_any_kind())
            yield reading

    async def run(self, *commands: LiteralString) -> None:
        for command in commands:
            await self.conn.execute(command)

    async def create(self, columns: LiteralString = IDENTITY) -> None:
        await self.conn.execute(sql.SQL("CREATE TABLE orders ({})").format(sql.SQL(columns)))

    async def insert(self, number: int = 1, conn: Conn | None = None) -> None:
        await (conn or self.conn).execute(
            "INSERT INTO orders (other) SELECT NULL FROM generate_series(1, %s)", [number]
        )

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Conn]:
        """Another one, in a transaction from its first statement on."""
        async with await psycopg.AsyncConnection.connect(self.url) as conn:
            yield conn

    def told(self) -> list[tuple[Any, Any, Any]]:
        """`from`, `to` and `new_rows` of every event."""
        return [
            (record.data["from"], record.data["to"], record.data["new_rows"])
            for record in self.core.taken if isinstance(record, Event)
        ]  # fmt: skip


@pytest_asyncio.fixture(loop_scope="session")
async def table(empty_database: str, tmp_path: Path) -> AsyncIterator[Table]:
    async with await psycopg.AsyncConnection.connect(empty_database, autocommit=True) as conn:
        yield Table(empty_database, conn, tmp_path)


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_lower_value_that_commits_after_the_beginning_is_counted(
    table: Table, restarted: bool
) -> None:
    """Also where the node dies between the first position and the commit."""
    await table.create()
    await table.insert(5)
    async with table.session() as late:
        await table.insert(conn=late)  # 6
        await table.insert()  # 7
        async with table.reading() as reading:
            if not restarted:
                await late.commit()
                await reading.take(1)
        await late.commit()
    async with table.reading() as reading:
        if restarted:
            await reading.take(1)
        await table.insert()
        await reading.take(1)
    assert table.told() == [(5, 7, 1), (7, 8, 1)]


async def test_the_range_of_late_rows_begins_below_all_of_them(table: Table) -> None:
    await table.create()
    await table.insert(1000)
    async with table.session() as first, table.session() as second:
        await table.insert(conn=first)  # 1001
        await table.insert(40)
        await table.insert(2, conn=second)  # 1042, 1043
        await table.insert(40)
        async with table.reading() as reading:
            await first.commit()
            await second.commit()
            await reading.take(1)
    ((begin, end, rows),) = table.told()
    assert (end, rows) == (1083, 3)
    assert 900 < begin < 1001


async def test_a_beginning_with_nothing_late_is_no_event(table: Table) -> None:
    await table.create()
    await table.insert(5)
    async with table.session() as late, table.reading() as reading:
        await table.insert(conn=late)
        await late.rollback()
        await table.insert()
        await reading.take(1)
    assert table.told() == [(5, 7, 1)]


async def test_a_time_that_commits_after_the_beginning_is_counted(table: Table) -> None:
    await table.create("id timestamptz DEFAULT statement_timestamp(), other bigint")
    await table.run("INSERT INTO orders VALUES ('2026-01-01'), ('2026-02-01')")
    async with table.session() as late:
        await late.execute("INSERT INTO orders VALUES ('2026-01-31 23:59:59Z')")
        async with table.reading() as reading:
            await late.commit()
            await reading.take(1)
    assert table.told() == [("2026-01-01T00:00:00.000000Z", "2026-02-01T00:00:00.000000Z", 1)]


async def test_with_a_lag_a_number_that_commits_after_the_beginning_is_counted(table: Table) -> None:
    await table.create()
    await table.insert(5)
    async with table.session() as late:
        await table.insert(conn=late)
        await table.insert()
        async with table.reading(lag="300ms") as reading:
            await late.commit()
            await reading.take(1)
    assert table.told() == [(5, 7, 1)]


async def test_a_person_who_says_latest_loses_no_lower_value_either(table: Table) -> None:
    await table.create()
    await table.insert(5)
    async with table.reading():
        pass
    async with table.session() as late:
        await table.insert(conn=late)
        await table.insert()
        resumed = await table.source().resume_at("", table.core.cursor(""), "latest")
        await late.commit()
    assert resumed.missing == {"from": 5, "to": 7}
    table.core.move("", resumed.cursor)
    async with table.reading() as reading:
        await reading.take(1)
    assert table.told() == [(5, 7, 1)]


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ("SELECT 1", "other"),
        ("SELECT 1", "moment"),
        (
            "ALTER TABLE orders ALTER id DROP IDENTITY; "
            "ALTER TABLE orders ALTER id TYPE timestamptz USING to_timestamp(id)",
            "id",
        ),
    ],
)
async def test_another_column_does_not_go_on_where_the_old_one_stood(
    table: Table, change: LiteralString, column: str
) -> None:
    await table.create(f"{IDENTITY}, moment timestamptz DEFAULT '2026-01-01'")
    await table.run("INSERT INTO orders (other) SELECT n * 1000 FROM generate_series(1, 10) AS n")
    async with table.reading(initial="earliest") as reading:
        await reading.take(1)
    await table.run(change)
    with pytest.raises(SourceStopped, match="was counted by another column, or its type was changed"):
        async with table.reading(column=column) as reading:
            await reading.take(1)
    resumed = await table.source(column=column).resume_at("", table.core.cursor(""), "earliest")
    assert (str(resumed.missing["from"]), resumed.missing["to"]) == ("10", None)


async def test_a_column_that_is_renamed_or_made_longer_goes_on(table: Table) -> None:
    await table.create("id integer UNIQUE, other bigint")
    await table.run("INSERT INTO orders VALUES (1)")
    async with table.reading():
        pass
    await table.run(
        "ALTER TABLE orders ALTER id TYPE bigint", "ALTER TABLE orders RENAME id TO number",
        "INSERT INTO orders VALUES (2)",
    )  # fmt: skip
    async with table.reading(column="number") as reading:
        await reading.take(1)
    assert table.told() == [(1, 2, 1)]


@pytest.mark.parametrize(
    ("type_name", "lowest", "first"),
    [
        ("numeric", "-Infinity", "7"),
        ("timestamptz", "-infinity", "2026-01-01 00:00:00.000007Z"),
        ("timestamp", "-infinity", "2026-01-01 00:00:00.000007"),
    ],
)
async def test_minus_infinity_is_never_counted(
    table: Table, type_name: LiteralString, lowest: str, first: str
) -> None:
    await table.create(f"id {type_name} UNIQUE, other bigint")
    await table.conn.execute("INSERT INTO orders VALUES (%s)", [lowest])
    source = table.source()
    async with table.reading(initial="earliest") as reading:
        assert (await source.progress("", table.core.cursor(""))).lag == 0
        await table.conn.execute("INSERT INTO orders VALUES (%s)", [first])
        await reading.take(1)
    ((begin, end, rows),) = table.told()
    assert (begin, str(end).replace("T", " "), rows) == (None, first, 1)


async def test_what_is_not_counted_yet_is_no_lag(table: Table) -> None:
    await table.create("id timestamptz UNIQUE, other bigint")
    await table.run("INSERT INTO orders VALUES ('2026-01-01'), ('9999-12-31'), ('infinity')")
    async with table.reading(initial="earliest") as reading:
        await reading.take(1)
    assert (await table.source().progress("", table.core.cursor(""))).lag == 0


@pytest.mark.parametrize("digits", [100, 120, 5000])
async def test_a_number_that_is_too_long_to_be_read_is_text(table: Table, digits: int) -> None:
    await table.create("id numeric, other bigint")
    await table.conn.execute("INSERT INTO orders VALUES (%s)", ["9" * digits])
    async with table.reading(initial="earliest") as reading:
        await reading.take(1)
    ((_, end, _),) = table.told()
    assert end == (10**100 - 1 if digits == 100 else "9" * digits)


async def test_a_note_does_not_outlive_what_it_waited_for(table: Table) -> None:
    await table.create()
    source: Any = table.source(initial="earliest")
    async with table.session() as late:
        await table.insert(conn=late)
        await table.insert()
        async with Reading(source, table.core) as reading, asyncio.timeout(20):
            asked = asyncio.ensure_future(reading.take(1))
            while (await source.progress("", table.core.cursor(""))).note is None:
                assert not asked.done()
                await asyncio.sleep(0.02)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
    assert (await source.progress("", table.core.cursor(""))).note is None


async def test_a_role_that_may_not_read_is_told_what_to_do(table: Table) -> None:
    await table.create()
    role = f"nobody_{table.conn.info.backend_pid}"
    await table.conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    try:
        url = table.url.replace("eventflow@", f"{role}@", 1)
        with pytest.raises(
            SourceUnavailable, match=r"permission denied.*; GRANT SELECT ON public\.orders TO"
        ):
            async with table.reading(url=url):
                pass
    finally:
        await table.conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@ss-SEKRET@nowhere.invalid/db",
        "postgresql://u:p@SEKRET@/db",
        "postgresql://u:SEK/RET@nowhere.invalid/db",
        "postgresql://u:p%zzSEKRET@nowhere.invalid/db",
    ],
)
async def test_a_password_that_is_not_quoted_is_shown_nowhere(
    table: Table, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP", url)
    with pytest.raises(SourceUnavailable) as caught:
        await table.source(url="${secret.SHOP}").origin()
    assert "RET" not in str(caught.value)
    assert "the url" in str(caught.value)


async def test_check_warns_of_a_password_that_is_written_out(table: Table) -> None:
    await table.create()
    away = "postgresql://u:{}@127.0.0.1:1/none"
    (sentence,) = await table.source(url=away.format("hunter2")).examine()
    assert "`url` has a password written out" in sentence
    assert "hunter2" not in sentence
    with pytest.raises(SourceUnavailable):
        await table.source(url=away.format("${secret.PATH}")).examine()


@pytest_asyncio.fixture(loop_scope="session")
async def vacuuming(tmp_path: Path) -> AsyncIterator[str]:
    """A server whose autovacuum begins at once and takes for ever."""
    async with (
        Embedded(tmp_path / "server") as server,
        await psycopg.AsyncConnection.connect(server.url, autocommit=True) as conn,
    ):
        await conn.execute("ALTER SYSTEM SET autovacuum_naptime = 1")
        await conn.execute("SELECT pg_reload_conf()")
        await conn.execute("CREATE ROLE reader LOGIN")
        await conn.execute(
            "CREATE TABLE dull (id int, note text) WITH (autovacuum_vacuum_threshold = 0, "
            "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 100, "
            "autovacuum_vacuum_cost_limit = 1)"
        )
        await conn.execute("INSERT INTO dull SELECT n, repeat('x', 500) FROM generate_series(1, 20000) AS n")
        await conn.execute("DELETE FROM dull WHERE id % 2 = 0")
        await conn.execute("CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY, other bigint)")
        await conn.execute("GRANT SELECT ON orders TO reader")
        running = "SELECT 1 FROM pg_stat_progress_vacuum WHERE relid = 'dull'::regclass"
        async with asyncio.timeout(30):
            while await (await conn.execute(running)).fetchone() is None:
                await asyncio.sleep(0.05)
        yield server.url


async def test_autovacuum_holds_nothing_back(vacuuming: str, tmp_path: Path) -> None:
    """Neither for a role that may see what it is, nor for one that may not."""
    async with await psycopg.AsyncConnection.connect(vacuuming, autocommit=True) as conn:
        for url in (vacuuming, vacuuming.replace("eventflow@", "reader@", 1)):
            table = Table(url, conn, tmp_path)
            await table.insert()
            async with table.reading(initial="earliest") as reading:
                await reading.take(1)
            cursor = await conn.execute(
                "SELECT 1 FROM pg_stat_progress_vacuum WHERE relid = 'dull'::regclass"
            )
            assert await cursor.fetchone(), "it ended too early"
