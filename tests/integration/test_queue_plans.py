"""The queue's statements look rows up through indexes, on tables that nobody has analysed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from eventflow.event import new_uid
from eventflow.store import finish, run_ends, runs, task_logs, task_runs
from eventflow.store.plans import queue_session

if TYPE_CHECKING:
    from eventflow.store.pool import Pool

ID, LEASE = new_uid(), timedelta(seconds=30)
STATEMENTS: dict[str, tuple[LiteralString, tuple[Any, ...]]] = {
    "claim": (task_runs.CLAIM, (100, ID, LEASE)),
    "claim others": (task_runs.CLAIM_OTHERS, (100, ID, LEASE, [1], ["w"], ["t"])),
    "heartbeat": (task_runs.HEARTBEAT, ([ID], ["t"], [1], ID, LEASE)),
    "expired": (task_runs.EXPIRED, (LEASE, 100)),
    "results": (task_runs.RESULTS, ([ID],)),
    "accept": (
        finish.ACCEPT,
        ([ID], ["t"], [1], [ID], ["ready"], [LEASE], [0], [0], [None], [None], [False]),
    ),
    "siblings": (finish.SIBLINGS, ([ID],)),
    "guilty": (run_ends.GUILTY, ([ID],)),
    "end": (run_ends.END, ([ID], ["failed"], [None])),
    "logs": (task_logs.APPEND, ([ID], ["t"], [1], [0], [b""])),
    "cancel": (runs.CANCEL_TASKS, (ID,)),
}


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


@pytest.mark.parametrize("name", STATEMENTS)
async def test_no_statement_reads_a_whole_table(pool: Pool, name: str) -> None:
    query, arguments = STATEMENTS[name]
    async with queue_session(pool) as conn:
        explained = await (await conn.prepare(query)).explain(*arguments)
    plan = explained if isinstance(explained, list) else json.loads(explained)
    scans = [node for node in nodes(plan[0]["Plan"]) if "Relation Name" in node]
    assert scans
    assert {node["Node Type"] for node in scans} <= {"Index Scan", "Index Only Scan", "ModifyTable"}


async def test_claiming_takes_the_order_of_the_index_and_sorts_nothing(pool: Pool) -> None:
    query, arguments = STATEMENTS["claim"]
    async with queue_session(pool) as conn:
        plan = (await (await conn.prepare(query)).explain(*arguments))[0]["Plan"]
    found = list(nodes(plan))
    assert "task_run_ready" in [node.get("Index Name") for node in found]
    assert not [node for node in found if "Sort" in node["Node Type"]]


async def test_a_session_goes_back_to_the_pool_as_it_came(pool: Pool) -> None:
    async with queue_session(pool):
        pass
    async with pool.acquire() as conn:
        assert await conn.fetchval("SHOW enable_seqscan") == "on"
        assert await conn.fetchval("SHOW plan_cache_mode") == "auto"
