"""The chain from one event to the next can be followed in both directions."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from eventflow.explained import explain_stored
from eventflow.reread import shown
from eventflow.store.views import events as views
from eventflow.store.views.causes import find_firing, set_off
from tests.integration.commands.conftest import RULES, Flow, broken, event

CHAIN = (
    RULES
    + """
  after:
    from: eventflow
    match: {type: eventflow.run.failed, data.workflow: load}
    emit: load.failed
  on-big:
    from: eventflow
    match: {type: web.big}
    emit: web.bigger
"""
)


async def uids(flow: Flow) -> dict[str, UUID]:
    return {row["type"]: row["uid"] for row in await flow.fetch("SELECT type, uid FROM event")}


async def show(flow: Flow, uid: UUID) -> dict[str, Any]:
    return await shown(flow.pool, flow.revisions, uid)


async def test_an_emitted_event_names_its_rule_and_the_event_that_it_fired_on(flow: Flow) -> None:
    await flow.push(event(200, hit=True))
    await flow.drain()
    by_type = await uids(flow)
    cause = (await show(flow, by_type["web.big"]))["cause"]
    assert (cause["rule"], cause["event_uid"], cause["event"]) == (
        "also-hits", by_type["webhook.received"], "e200",
    )  # fmt: skip
    assert cause["run_id"] is None
    explained = await explain_stored(flow.pool, flow.revisions.current, by_type["web.big"])
    assert explained.as_json()["cause"] == cause
    async with flow.pool.acquire() as conn:
        firings = {row["rule"]: row for row in await set_off(conn, by_type["webhook.received"])}
        assert (
            await find_firing(conn, str(firings["hits"]["firing_id"])[-12:]) == firings["hits"]["firing_id"]
        )
    assert (firings["also-hits"]["emitted_uid"], firings["also-hits"]["run_id"]) == (by_type["web.big"], None)
    assert firings["hits"]["emitted_uid"] is None


async def test_the_outcome_of_a_run_names_the_run_and_what_started_it(flow: Flow) -> None:
    await flow.apply(CHAIN)
    await flow.push(event(1, hit=True))
    await flow.finish_all(fail="second")
    await flow.drain()
    by_type = await uids(flow)
    (run,) = await flow.fetch("SELECT id FROM run")
    cause = (await show(flow, by_type["eventflow.run.failed"]))["cause"]
    assert (cause["run_id"], cause["workflow"], cause["rule"]) == (run["id"], "load", "hits")
    assert cause["event_uid"] == by_type["webhook.received"]
    assert (await show(flow, by_type["load.failed"]))["cause"]["event_uid"] == by_type["eventflow.run.failed"]


async def test_an_event_from_outside_has_no_cause_and_a_replay_names_its_letter(flow: Flow) -> None:
    await flow.push(event(3, strict=True), broken())
    async with flow.pool.acquire() as conn:
        (row,) = await views.events(conn)
    assert (await show(flow, row["uid"]))["cause"] is None
    (letter,) = await flow.fetch("SELECT id FROM dead_letter WHERE stage = 'match'")
    await flow.replay(letter["id"])
    await flow.drain()
    async with flow.pool.acquire() as conn:
        again = (await views.events(conn))[0]
    assert (await show(flow, again["uid"]))["cause"]["replayof"] == str(letter["id"])


async def test_bytes_that_are_no_json_are_shown_as_they_are(flow: Flow) -> None:
    await flow.push(event(1))
    await flow.fetch("UPDATE event SET data = $1", b"\xff\x00")
    async with flow.pool.acquire() as conn:
        (row,) = await views.events(conn)
    found = await show(flow, row["uid"])
    assert (found["data"], found["raw"], found["raw_is"]) == (None, b"\xff\x00", "hex")
