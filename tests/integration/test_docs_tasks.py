"""The samples of docs/tasks.md, loaded and run as they stand there."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

from eventflow.expression import Template
from eventflow.rulefile.connectors import find_connectors
from eventflow.rulefile.folder import read_folder
from eventflow.rulefile.load import load
from eventflow.worker.versions import load_function
from eventflow.workflow.definition import OfKind, Task
from tests.integration.conftest import VARIABLES, task

if TYPE_CHECKING:
    from eventflow.task import Kind
    from tests.integration.conftest import Stage

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"
BLOCK = re.compile(r"^```\w+\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def write_samples(folder: Path) -> None:
    folder.mkdir()
    for name, content in BLOCK.findall(PAGE.read_text()):
        (folder / name).write_text(content)


async def test_the_workflow_of_the_page_does_what_the_page_says(stage: Stage, tmp_path: Path) -> None:
    folder = await stage.code_folder(1)
    folder.rmdir()
    write_samples(folder)
    ruleset = load(read_folder(folder), folder=folder, connectors=find_connectors())
    assert not ruleset.warnings
    stage.workflows[1, "load-orders"] = ruleset.workflows["load-orders"]
    orders = tmp_path / "orders_2026-01-31.csv"
    orders.write_text("region,amount\nus,1\neu,2\nus,3\n")
    event = await stage.taken_in({"path": str(orders), "size": orders.stat().st_size})
    params = {"path": str(orders), "day": "2026-01-31"}
    async with stage.worker():
        run = await stage.start("load-orders", params, event_uid=event)
        assert await stage.result(run, "profile") == {"rows": 3, "regions": ["eu", "us"]}
        assert await stage.result(run, "announce") == "31 January 2026: eu, us"
        assert f"{orders}: 3 rows\n" in await stage.log(run)
        by_hand = await stage.start("load-orders", params)
        failed = await stage.until("SELECT error FROM task_run WHERE run_id = $1 AND failures > 0", by_hand)
        assert "the triggering event describes no such file" in failed["error"]
        await stage.row(run, "pack")
        assert orders.with_name(f"{orders.name}.gz").exists()


async def test_the_kind_of_the_page_sends_its_points_over_one_connection(
    stage: Stage, tmp_path: Path
) -> None:
    write_samples(tmp_path / "page")
    kind = load_function(tmp_path / "page", "graphite_kind:Graphite")
    received: list[list[bytes]] = []

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append([])
        while line := await reader.readline():
            received[-1].append(line)
        writer.close()

    async with await asyncio.start_server(receive, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        words = {"host": "127.0.0.1", "port": port, "metric": "orders.rows", "value": "${params.n}"}
        compiled = {name: Template.compile(value, VARIABLES) for name, value in words.items()}
        stage.workflow(
            Task("task", OfKind("graphite", cast("type[Kind]", kind)), compiled), params={"n": "int"}
        )
        async with stage.worker():
            points = [await stage.result(await stage.start(params={"n": n})) for n in (3, 4)]
    assert [point.split()[:2] for point in points] == [["orders.rows", "3.0"], ["orders.rows", "4.0"]]
    assert received == [[f"{point}\n".encode() for point in points]]


async def test_a_task_that_hands_over_its_key_books_once_however_often_it_runs(
    stage: Stage, tmp_path: Path
) -> None:
    folder = await stage.code_folder(1)
    folder.rmdir()
    write_samples(folder)
    database = tmp_path / "bookings.db"
    inputs = {"database": str(database), "order": "o1", "amount": 9.5}
    stage.workflow(task("task", "pay_tasks:book", inputs))
    async with stage.worker():
        run = await stage.start()
        await stage.result(run)
        async with stage.pool.acquire() as conn:
            await conn.execute("UPDATE run SET state = 'running', ended = NULL")
            await conn.execute("UPDATE task_run SET state = 'ready', ended = NULL")
        stage.wake.set()
        assert await stage.result(run) is None
        assert (await stage.row(run))["attempt"] == 2
    with closing(sqlite3.connect(database)) as db:
        assert db.execute("SELECT key, order_id, amount FROM booking").fetchall() == [
            (f"{run}:task", "o1", 9.5)
        ]
