"""The watermark source on a real server: what commits late, who is in the way, what stops it."""

from __future__ import annotations

import asyncio
import random
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
from eventflow.errors import SourceStopped, SourceUnavailable, UsageError
from eventflow.event import Event
from eventflow.testing.postgres import DatabaseServer
from eventflow.testing.reading import Core, Reading

Conn = psycopg.AsyncConnection[Any]
IDENTITY = "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"


class Table:
    """`public.orders` on a database of this test's own, and the source that watches it."""

    def __init__(self, url: str, conn: Conn, folder: Path) -> None:
        self.url = url
        self.conn = conn
        self.core = Core(folder)

    def source(self, **words: Any) -> SqlWatermarkSource:
        words = {"url": self.url, "table": "public.orders", "column": "id", "initial": "earliest",
                 "every": "20ms", **words}  # fmt: skip
        return SqlWatermarkSource("orders", SqlWatermarkConfig.model_validate(words), self.core.context())

    def reading(self, **words: Any) -> Reading:
        return Reading(self.source(**words), self.core)

    async def run(self, *commands: LiteralString) -> None:
        for command in commands:
            await self.conn.execute(command)

    async def create(self, columns: LiteralString = IDENTITY) -> None:
        await self.conn.execute(sql.SQL("CREATE TABLE orders ({}, note text)").format(sql.SQL(columns)))

    async def insert(self, number: int = 1) -> None:
        await self.conn.execute("INSERT INTO orders (note) SELECT 'n' FROM generate_series(1, %s)", [number])

    @asynccontextmanager
    async def session(self, url: str | None = None) -> AsyncIterator[Conn]:
        """Another one, in a transaction from its first statement on."""
        async with await psycopg.AsyncConnection.connect(url or self.url) as conn:
            yield conn

    def told(self) -> list[dict[str, Any]]:
        return [record.data for record in self.core.taken if isinstance(record, Event)]


@pytest_asyncio.fixture(loop_scope="session")
async def table(empty_database: str, tmp_path: Path) -> AsyncIterator[Table]:
    async with await psycopg.AsyncConnection.connect(empty_database, autocommit=True) as conn:
        yield Table(empty_database, conn, tmp_path)


async def held_back(table: Table, reading: Reading, late: Conn) -> asyncio.Task[Any]:
    """The next event as a task, once the source says that it waits for the transaction of `late`."""
    asked = asyncio.ensure_future(reading.take(1))
    source: Any = reading.source
    async with asyncio.timeout(20):
        while (told := await source.progress("", table.core.cursor(""))).note is None:
            assert not asked.done(), "it did not wait"
            await asyncio.sleep(0.02)
    assert f"waits for process {late.info.backend_pid}, in a transaction since 20" in told.note
    assert told.lag
    return asked


async def test_a_lower_value_that_commits_late_is_counted(table: Table) -> None:
    await table.create()
    async with table.session() as late, table.reading() as reading:
        await late.execute("INSERT INTO orders (note) VALUES ('1, commits last')")
        await table.insert()
        asked = await held_back(table, reading, late)
        assert table.told() == []
        await late.commit()
        await asked
        await table.insert()
        await reading.take(1)
    assert table.told() == [{"new_rows": 2, "from": None, "to": 2}, {"new_rows": 1, "from": 2, "to": 3}]


async def test_a_value_that_was_taken_before_the_insert_is_counted(table: Table) -> None:
    """The transaction holds a number, but no lock on the table and no transaction id yet."""
    await table.run("CREATE SEQUENCE numbers", "SELECT nextval('numbers')")  # the next 32 write no log
    await table.create("id bigint DEFAULT nextval('numbers') PRIMARY KEY")
    async with table.session() as late, table.reading() as reading:
        (number,) = await (await late.execute("SELECT nextval('numbers')")).fetchone() or (None,)
        await table.insert(3)
        asked = await held_back(table, reading, late)
        await late.execute("INSERT INTO orders (id) VALUES (%s)", [number])
        await late.commit()
        await asked
    assert table.told() == [{"new_rows": 4, "from": None, "to": 5}]


async def test_a_time_that_commits_late_is_counted_and_one_to_come_waits_for_its_time(table: Table) -> None:
    await table.create("id timestamptz DEFAULT now()")
    await table.run("CREATE INDEX ON orders (id)", "INSERT INTO orders VALUES ('9999-12-31'), (NULL)")
    async with table.session() as late:
        await late.execute("INSERT INTO orders (note) VALUES ('1, commits last')")
        await table.insert()
        async with table.reading() as reading:
            asked = await held_back(table, reading, late)
            await late.commit()
            await asked
            await table.insert()
            await reading.take(1)
    (first, second) = table.told()
    assert (first["new_rows"], second["new_rows"]) == (2, 1)
    assert (first["from"], second["from"]) == (None, first["to"])
    assert len(first["to"]) == len("2026-11-21T06:05:07.123456Z")
    assert second["to"] < "9999"


async def test_a_lag_waits_for_nobody(table: Table) -> None:
    await table.create()
    async with table.session() as late, table.reading(lag="100ms") as reading:
        await late.execute("INSERT INTO orders (note) VALUES ('too late')")
        await table.insert()
        await reading.take(1)
        await late.commit()
        await table.insert()
        await reading.take(1)
    assert table.told() == [{"new_rows": 1, "from": None, "to": 2}, {"new_rows": 1, "from": 2, "to": 3}]


async def test_a_rolled_back_transaction_holds_nothing_back_for_long(table: Table) -> None:
    await table.create()
    async with table.session() as late, table.reading() as reading:
        await late.execute("INSERT INTO orders (note) VALUES ('never')")
        await table.insert()
        await late.rollback()
        await reading.take(1)
    assert table.told() == [{"new_rows": 1, "from": None, "to": 2}]


async def test_other_databases_hold_nothing_back(table: Table, database_server: DatabaseServer) -> None:
    await table.create()
    async with database_server.empty_database() as elsewhere, table.session(elsewhere) as other:
        await other.execute("SELECT txid_current()")
        await table.insert()
        async with table.reading() as reading:
            await reading.take(1)
    assert table.told() == [{"new_rows": 1, "from": None, "to": 1}]


async def test_what_concurrent_writers_insert_is_counted_once(table: Table) -> None:
    """Transactions of many lengths, some rolled back: the sum of all events is the table."""
    await table.create()
    chance = random.Random(7)

    async def write(chance: random.Random) -> None:
        async with table.session() as conn:
            for _ in range(25):
                for _ in range(chance.randint(1, 3)):
                    await conn.execute("INSERT INTO orders (note) SELECT 'n' FROM generate_series(1, 20)")
                    await asyncio.sleep(chance.choice([0, 0, 0.002, 0.02]))
                await (conn.rollback() if chance.random() < 0.1 else conn.commit())

    async def read() -> None:
        async with table.reading(every="5ms") as reading:
            while True:
                await reading.take(1)

    reader = asyncio.ensure_future(read())
    try:
        await asyncio.gather(*(write(random.Random(chance.random())) for _ in range(8)))
        (rows,) = await (await table.conn.execute("SELECT count(*) FROM orders")).fetchone() or (0,)
        async with asyncio.timeout(20):
            while sum(one["new_rows"] for one in table.told()) < rows and not reader.done():
                await asyncio.sleep(0.01)
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
    told = table.told()
    assert sum(one["new_rows"] for one in told) == rows
    assert [one["from"] for one in told[1:]] == [one["to"] for one in told[:-1]]
    assert len(told) > 3


async def test_latest_counts_from_the_highest_value_there(table: Table) -> None:
    await table.create()
    await table.insert(5)
    async with table.reading(initial="latest") as reading:
        await reading.commit(*await reading.next_of_any_kind())
        await table.insert(2)
        await reading.take(1)
    assert table.told() == [{"new_rows": 2, "from": 5, "to": 7}]


async def test_deleted_rows_are_not_counted_and_stop_nothing(table: Table) -> None:
    await table.create()
    async with table.reading() as reading:
        await table.insert(5)
        await reading.take(1)
        await table.run("DELETE FROM orders")
        await table.insert(2)
        await table.run("DELETE FROM orders WHERE id = 6")
        await reading.take(1)
    assert table.told()[0] == {"new_rows": 5, "from": None, "to": 5}
    assert sum(one["new_rows"] for one in table.told()) in (6, 7)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("TRUNCATE orders RESTART IDENTITY; INSERT INTO orders (note) SELECT 'n' FROM generate_series(1, 9)",
         "has had its numbers restarted"),
        ("TRUNCATE orders RESTART IDENTITY", "has had its numbers restarted"),
        ("DROP TABLE orders; CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY, note text)",
         "was dropped and created anew"),
        ("DELETE FROM orders; SELECT setval('orders_id_seq', 1); INSERT INTO orders (note) VALUES ('n')",
         "has had its numbers set back to 2"),
    ],
)  # fmt: skip
async def test_a_table_that_begins_anew_stops_the_source(
    table: Table, change: LiteralString, said: str
) -> None:
    """Also where the new numbers are above the position by the time of the next look."""
    await table.create()
    await table.insert(5)
    async with table.reading() as reading:
        await reading.take(1)
    await table.run(change)
    with pytest.raises(SourceStopped, match=said) as caught:
        async with table.reading() as reading:
            await reading.take(1)
    assert caught.value.missing["from"] == "5"
    assert "eventflow sources resume orders --from earliest|latest|VALUE" in str(caught.value)
    resumed = await table.source().resume_at("", table.core.cursor(""), "earliest")
    assert resumed.missing == {"from": 5, "to": None}
    table.core.move("", resumed.cursor)
    await table.insert()
    async with table.reading() as reading:
        await reading.take(1)
    assert table.told()[-1]["from"] is None


async def test_rows_of_another_numbering_are_not_taken_for_those_that_were_waited_for(table: Table) -> None:
    await table.create()
    await table.insert(5)
    async with table.session() as late, table.reading() as reading:
        await reading.take(1)
        await late.execute("SELECT 1")
        await table.insert(3)
        asked = await held_back(table, reading, late)
        await table.run("TRUNCATE orders RESTART IDENTITY")
        await table.insert(7)
        await late.commit()
        with pytest.raises(SourceStopped, match="has had its numbers restarted"):
            await asked
    assert table.told() == [{"new_rows": 5, "from": None, "to": 5}]


async def test_numbers_without_a_sequence_that_go_back_stop_the_source(table: Table) -> None:
    await table.create("id int")
    await table.run("INSERT INTO orders VALUES (4), (5)")
    async with table.reading() as reading:
        await reading.take(1)
    await table.run("DELETE FROM orders WHERE id = 5")
    with pytest.raises(SourceStopped, match="stood at 5 and its highest value is 4 now"):
        async with table.reading() as reading:
            await reading.take(1)


async def test_it_goes_on_where_a_person_says(table: Table) -> None:
    await table.create()
    await table.insert(9)
    async with table.reading() as reading:
        await reading.take(1)
    source = table.source()
    found = await source.resume_at("", table.core.cursor(""), "4")
    assert (found.cursor["value"], found.missing) == ("4", None), "nothing is passed over"
    assert (await source.resume_at("", table.core.cursor(""), "earliest")).missing is None
    await table.insert(3)
    found = await source.resume_at("", table.core.cursor(""), "latest")
    assert (found.cursor["value"], found.missing) == ("12", {"from": 9, "to": 12})
    for value in ("NaN", "soon"):
        with pytest.raises(UsageError, match=f"'{value}' is neither"):
            await source.resume_at("", table.core.cursor(""), value)
    with pytest.raises(
        UsageError, match=r"'soon' is neither `earliest`, `latest` nor a value of public\.orders\.id"
    ):
        await source.resume_at("", table.core.cursor(""), "soon")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("id text", "is text: texts sort by a collation"),
        ("id date", "is date: rows go on coming with the date"),
        ("id uuid", "is uuid: uuids do not grow"),
        ("id boolean", "is boolean: its values do not grow"),
        ("other int", "public.orders has no column id"),
    ],
)
async def test_a_column_that_cannot_grow_is_refused(table: Table, columns: LiteralString, said: str) -> None:
    await table.create(columns)
    with pytest.raises(SourceUnavailable, match=said):
        await table.source().origin()


@pytest.mark.parametrize("type_name", ["smallint", "integer", "numeric(20)", "timestamp"])
async def test_each_kind_of_column_goes_to_its_end_exactly(table: Table, type_name: LiteralString) -> None:
    await table.conn.execute(
        sql.SQL("CREATE TABLE orders (id {} UNIQUE, note text)").format(sql.SQL(type_name))
    )
    first, second, third = (
        ("2026-01-01 00:00:00.000001", "2026-01-01 00:00:00.000002", "2026-01-01 00:00:00.000003")
        if type_name == "timestamp"
        else (("1", "2", "3") if type_name != "numeric(20)" else tuple(f"9007199254740993{n}" for n in "123"))
    )
    async with table.reading() as reading:
        for value in (first, second, third):
            await table.conn.execute("INSERT INTO orders VALUES (%s)", [value])
            await reading.take(1)
    told = table.told()
    assert [one["new_rows"] for one in told] == [1, 1, 1]
    assert str(told[2]["from"]).replace("T", " ") == second
    assert str(told[2]["to"]).replace("T", " ") == third


async def test_not_a_number_and_infinity_are_not_counted_yet(table: Table) -> None:
    await table.create("id numeric")
    await table.run("INSERT INTO orders VALUES ('NaN'), ('Infinity'), (1), (NULL)")
    async with table.reading() as reading:
        await reading.take(1)
        await table.run("INSERT INTO orders VALUES (1.5)")
        await reading.take(1)
    assert table.told() == [{"new_rows": 1, "from": None, "to": 1}, {"new_rows": 1, "from": 1, "to": "1.5"}]


async def test_a_role_that_may_only_read_the_table_is_enough(table: Table) -> None:
    """It sees whose transactions are open, of other roles too."""
    await table.create()
    role = f"reader_{random.getrandbits(40)}"
    await table.conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    try:
        await table.conn.execute(sql.SQL("GRANT SELECT ON orders TO {}").format(sql.Identifier(role)))
        words = {"url": table.url.replace("eventflow@", f"{role}@", 1)}
        origin = await table.source().origin()
        assert await table.source(**words).origin() == origin
        await table.run("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
        assert (await table.source(**words).origin() or "").startswith("database ")
        async with table.session() as late, table.reading(**words) as reading:
            await late.execute("INSERT INTO orders (note) VALUES ('1')")
            await table.insert()
            asked = await held_back(table, reading, late)
            await late.commit()
            await asked
        assert table.told() == [{"new_rows": 2, "from": None, "to": 2}]
    finally:
        await table.conn.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
        await table.conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


async def test_check_says_what_the_table_cannot_deliver(table: Table) -> None:
    await table.create()
    assert list(await table.source().examine()) == []
    await table.run("ALTER SEQUENCE orders_id_seq CACHE 20")
    (sentence,) = await table.source().examine()
    assert "gives numbers out in blocks of 20" in sentence
    await table.run("DROP TABLE orders")
    await table.create("id int")
    indexed, default = await table.source().examine()
    assert "public.orders.id has no index that begins with it" in indexed
    assert "public.orders.id has no default" in default
    assert len(await table.source(lag="5m").examine()) == 1
    await table.run("DROP TABLE orders")
    await table.create("id text")
    (sentence,) = await table.source().examine()
    assert "public.orders.id is text" in sentence


async def test_check_says_that_the_table_or_its_column_is_not_there(table: Table) -> None:
    (sentence,) = await table.source().examine()
    assert sentence == "public.orders does not exist, or this role may not see it"
    await table.create()
    (sentence,) = await table.source(column="nn").examine()
    assert sentence == "public.orders has no column nn"


async def test_a_local_time_that_goes_back_in_autumn_is_warned_of(table: Table) -> None:
    await table.create("id timestamp DEFAULT localtimestamp UNIQUE")
    assert list(await table.source().examine()) == []
    async with table.session() as conn:
        name = sql.Identifier(conn.info.dbname)
        await table.conn.execute(sql.SQL("ALTER DATABASE {} SET TimeZone = 'Europe/Berlin'").format(name))
    (sentence,) = await table.source().examine()
    assert "has no time zone, and sessions are in Europe/Berlin" in sentence


async def test_it_closes_promptly_where_somebody_has_locked_the_table(table: Table) -> None:
    await table.create()
    async with table.session() as conn, table.reading() as reading:
        await reading.commit(*await reading.next_of_any_kind())
        await conn.execute("LOCK TABLE orders")
        asked = asyncio.ensure_future(reading.take(1))
        blocked = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'max'"
        async with asyncio.timeout(20):
            while await (await table.conn.execute(blocked)).fetchone() is None:
                await asyncio.sleep(0.01)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


async def test_a_server_that_is_away_is_tried_again(table: Table) -> None:
    await table.create()
    with pytest.raises(SourceUnavailable, match="source 'orders': connection"):
        await table.source(url="postgresql://nobody@127.0.0.1:1/none").origin()
    with pytest.raises(SourceUnavailable, match="no Postgres address") as caught:
        await table.source(url="postgres//:hunter2@x").origin()
    assert "hunter2" not in str(caught.value)
    async with table.reading() as reading:
        await table.insert()
        await reading.take(1)
        await table.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'eventflow orders'"
        )
        with pytest.raises(SourceUnavailable):
            await reading.take(1)
    await table.insert()
    async with table.reading() as reading:
        await reading.take(1)
    assert table.told()[-1] == {"new_rows": 1, "from": 1, "to": 2}


async def test_names_are_those_of_the_catalogue(table: Table) -> None:
    await table.run('CREATE SCHEMA "Odd ""one"', 'CREATE TABLE "Odd ""one"."T 1" ("Id" int)')
    await table.run('INSERT INTO "Odd ""one"."T 1" VALUES (7)')
    words = {"table": '"Odd ""one"."T 1"', "column": '"Id"'}
    async with table.reading(**words) as reading:
        (event,) = await reading.take(1)
    assert isinstance(event, Event)
    assert (event.id, event.type, event.subject) == ("..7", "table.grew", 'Odd "one.T 1')
