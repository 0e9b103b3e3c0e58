"""The example in rules/ as a user runs it: set up, snapshot, changes, through a kill of the node."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from eventflow.event import decode_json
from eventflow.store.pool import Pool
from eventflow.testing.postgres import DatabaseServer
from tests.acceptance.serving import Place, fetch, until
from tests.integration.cdc_shop import Shop, opened

EXAMPLE = Path(__file__).parents[2] / "rules"


@pytest_asyncio.fixture(loop_scope="session")
async def shop(
    database_server: DatabaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Shop]:
    """A database with the tables of the example."""
    async with database_server.empty_database() as url, opened(url, tmp_path) as made:
        monkeypatch.setenv("SHOP_URL", url)
        made.slot = "eventflow_shop"
        await made.run(
            "CREATE TABLE public.orders (id int PRIMARY KEY, customer text, state text)",
            "CREATE TABLE public.stock (item text PRIMARY KEY, on_hand int)",
            "ALTER TABLE public.orders REPLICA IDENTITY FULL",
            "ALTER TABLE public.stock REPLICA IDENTITY FULL",
            "INSERT INTO public.orders VALUES (1, 'ada', 'paid'), (2, 'bob', 'new')",
            "INSERT INTO public.stock VALUES ('tea', 40), ('ink', 3)",
        )
        yield made


async def test_the_example_starts_each_piece_of_work_once(
    tmp_path: Path, database: str, shop: Shop, pool: Pool
) -> None:
    place = Place(tmp_path / "place", database, (EXAMPLE / "postgres_cdc.yaml").read_text())
    shutil.copy(EXAMPLE / "postgres_cdc_tasks.py", place.folder / "rules")
    shutil.copy(EXAMPLE / "postgres_cdc.test.yaml", place.folder / "rules" / "rules.test.yaml")
    for command in ("check", "test"):
        code, out, err = await place.command(command, "rules")
        assert code == 0, out + err

    async def results() -> list[Any]:
        rows = await fetch(pool, "SELECT result FROM task_run WHERE state = 'succeeded'")
        return sorted(
            (r.get("order") or r["item"] for r in (decode_json(row["result"]) for row in rows)), key=str
        )

    async def waiting() -> bool:
        rows = await fetch(pool, "SELECT message FROM source_partition WHERE message LIKE '%sources setup%'")
        return bool(rows)

    async def reached(expected: list[Any]) -> bool:
        return await results() == expected

    settings = {"EVENTFLOW_LEASE": "3s"}
    async with place.serve(settings=settings) as served:
        await until(waiting)
        code, out, err = await place.command("sources", "setup", "shop")
        assert (code, out.count("CREATE PUBLICATION")) == (0, 1), out + err
        await shop.run(*[line for line in out.splitlines() if line and not line.startswith("--")])
        code, out, err = await place.command("sources", "setup", "shop", "--run")
        assert code == 0, out + err
        await until(lambda: reached([1]))  # read from the table
        await shop.run("UPDATE public.orders SET state = 'paid' WHERE id = 2")
        await until(lambda: reached([1, 2]))
        await served.kill()
    await shop.run(
        "UPDATE public.orders SET customer = 'Bob' WHERE id = 2",
        "UPDATE public.stock SET on_hand = 10 WHERE item = 'tea'",
        "INSERT INTO public.orders VALUES (3, 'eve', 'paid')",
    )
    async with place.serve(settings=settings):
        await until(lambda: reached([1, 2, 3, "tea"]))
        code, out, err = await place.command("sources", "--json")
        assert code == 0, out + err
        assert '"eventflow_shop"' in out
