"""The samples of docs/tasks.md, loaded and run as they stand there."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from eventflow.rulefile.connectors import find_connectors
from eventflow.rulefile.folder import read_folder
from eventflow.rulefile.load import load
from tests.integration.conftest import task

if TYPE_CHECKING:
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
