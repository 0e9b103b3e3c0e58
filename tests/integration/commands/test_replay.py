"""A dead letter's way back in: neither swallowed nor doubled, and no rule runs that did not fail."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from eventflow.errors import EventflowError
from eventflow.event import Broken, decode_json, new_uid
from eventflow.replay import Replay, ReplayRefused, replay_event
from eventflow.store import audit, dead_letters, runs
from eventflow.store.dead_letters import LetterNotOpen
from eventflow.store.pool import Connection
from tests.integration.commands.conftest import RULES, Flow, broken, event

# Who waits for a lock of ours, and who waits behind them.
BLOCKED = """
WITH RECURSIVE waiting AS (
    SELECT pid FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))
    UNION
    SELECT a.pid FROM pg_stat_activity AS a JOIN waiting AS w ON w.pid = ANY(pg_blocking_pids(a.pid))
)
SELECT count(*) FROM waiting
"""


async def edited(flow: Flow, content: bytes) -> Any:
    """The one open letter, mended."""
    letter = await flow.letter()
    async with flow.pool.acquire() as conn:
        await dead_letters.edit(conn, letter, content)
    return letter


async def test_mended_bytes_come_back_as_a_new_event_for_all_rules(flow: Flow) -> None:
    await flow.push(broken())
    letter = await edited(flow, b'{"n": 200, "hit": true}')
    replayed = await flow.replay(letter)
    assert replayed.kind == "event"
    await flow.drain()

    (row,) = await flow.fetch("SELECT * FROM event WHERE source = 'web'")
    assert row["id"] == replayed.event
    assert (row["type"], row["data"]) == ("webhook.received", b'{"n": 200, "hit": true}')
    assert decode_json(row["attributes"])["replayof"] == str(letter)
    assert {r["rule"] for r in await flow.fetch("SELECT rule FROM firing")} == {"hits", "also-hits"}
    (kept,) = await flow.fetch("SELECT * FROM dead_letter")
    assert (kept["state"], kept["replays"], bytes(kept["raw"])) == ("replayed", 1, broken().raw)


async def test_bytes_that_are_still_no_event_are_refused_and_the_letter_stays_open(flow: Flow) -> None:
    await flow.push(broken())
    letter = await flow.letter()
    with pytest.raises(ReplayRefused, match=r"the bytes still are no event.*dlq edit"):
        await flow.replay(letter)
    await edited(flow, b"[1")
    with pytest.raises(ReplayRefused, match="the edited bytes are no event"):
        await flow.replay(letter)
    assert await flow.letter() == letter
    assert await flow.count("outbox") == 0


async def test_a_second_replay_must_be_asked_for_and_is_an_event_of_its_own(flow: Flow) -> None:
    await flow.push(broken(b"{"))
    letter = await edited(flow, b'{"n": 1, "hit": true}')
    first = await flow.replay(letter)
    with pytest.raises(LetterNotOpen, match=r"replayed.*--again"):
        await flow.replay(letter)
    second = await flow.replay(letter, again=True)
    await flow.drain()
    assert (first.event, second.event) == (f"{letter}.1", f"{letter}.2")
    assert await flow.count("event WHERE source = 'web'") == 2
    assert await flow.count("run") == 2


async def blocked(flow: Flow, holder: Connection, number: int) -> None:
    """Returns when so many backends wait for this connection.

    Asked on another one: inside a transaction pg_stat_activity stays as it was first seen.
    """
    async with asyncio.timeout(20), flow.pool.acquire() as conn:
        while await conn.fetchval(BLOCKED, holder.get_server_pid()) < number:
            await asyncio.sleep(0.005)


async def test_of_two_who_replay_one_letter_at_once_one_hears_that_it_was_done(flow: Flow) -> None:
    await flow.push(broken(b"{"))
    letter = await edited(flow, b'{"n": 1, "hit": true}')
    async with flow.pool.acquire() as conn, conn.transaction():
        await conn.execute("SELECT FROM dead_letter FOR UPDATE")
        both = [asyncio.create_task(flow.replay(letter)) for _ in range(2)]
        await blocked(flow, conn, 2)
    ended = await asyncio.gather(*both, return_exceptions=True)
    assert sum(isinstance(one, LetterNotOpen) for one in ended) == 1
    await flow.drain()
    assert await flow.count("event") == 1


async def test_a_replay_locks_the_run_before_the_letter_as_a_retry_does(flow: Flow) -> None:
    await flow.push(event(1, hit=True))
    await flow.finish_all(fail="first")
    letter = await flow.letter()
    async with flow.pool.acquire() as conn, conn.transaction():
        await conn.execute("SELECT FROM run FOR NO KEY UPDATE")
        replay = asyncio.create_task(flow.replay(letter))
        await blocked(flow, conn, 1)
        await conn.execute("SELECT FROM dead_letter FOR UPDATE NOWAIT")
    assert (await replay).kind == "firing"


async def test_each_replay_of_a_run_is_a_firing_of_its_own(flow: Flow) -> None:
    await flow.push(event(1, hit=True))
    await flow.finish_all(fail="first")
    letter = await flow.letter()
    await flow.replay(letter)
    await flow.replay(letter, again=True)
    assert await flow.count("firing") == 3
    assert await flow.count("run") == 3


async def test_a_dry_run_says_what_would_happen_and_changes_nothing(flow: Flow) -> None:
    await flow.push(broken(b"{"), event(1, hit=True))
    letter = await edited(flow, b'{"n": 1, "hit": true}')
    assert (await flow.replay(letter, dry_run=True)).kind == "event"
    assert await flow.letter() == letter
    assert await flow.count("outbox") == 0


async def test_a_letter_of_a_where_comes_back_for_every_rule(flow: Flow) -> None:
    await flow.push(event(1, strict=True))
    letter = await edited(flow, b'{"n": 1, "strict": true, "amount": 11}')
    replayed = await flow.replay(letter)
    assert replayed.event == f"e1!{letter}.1"
    await flow.drain()
    (firing,) = await flow.fetch("SELECT rule FROM firing")
    assert firing["rule"] == "strict"


async def test_a_failed_run_fires_its_rule_again_and_no_other(flow: Flow) -> None:
    await flow.push(event(200, hit=True))
    await flow.drain()
    await flow.finish_all(fail="first")
    letter = await flow.letter()
    replayed = await flow.replay(letter)
    assert (replayed.kind, replayed.rule) == ("firing", "hits")

    firings = await flow.fetch("SELECT rule, replayof, event_uid FROM firing ORDER BY at, rule")
    assert [r["rule"] for r in firings] == ["also-hits", "hits", "hits"]
    assert firings[2]["replayof"] == letter
    assert firings[2]["event_uid"] == firings[1]["event_uid"]
    assert await flow.count("outbox") == 0
    await flow.finish_all()
    states = await flow.fetch("SELECT state FROM run ORDER BY created")
    assert [r["state"] for r in states] == ["failed", "succeeded"]


async def test_a_failed_with_fires_once_it_can(flow: Flow) -> None:
    await flow.push(event(1, needy=True))
    letter = await flow.letter()
    with pytest.raises(ReplayRefused, match=r"fails again: .*must"):
        await flow.replay(letter)
    await edited(flow, b'{"n": 1, "needy": true, "must": 5}')
    await flow.replay(letter)
    (run,) = await flow.fetch("SELECT params FROM run")
    assert decode_json(run["params"]) == {"n": 5}


async def test_a_replay_asks_the_rule_as_it_is_now(flow: Flow) -> None:
    await flow.push(event(1, hit=True))
    await flow.finish_all(fail="first")
    letter = await flow.letter()
    revision = await flow.apply(RULES.replace('{n: "${event.data.n}"}', '{n: "${event.data.n + 1}"}', 1))
    await flow.replay(letter)
    (run,) = await flow.fetch("SELECT params, revision FROM run WHERE state = 'running'")
    assert (decode_json(run["params"]), run["revision"]) == ({"n": 2}, revision)


async def test_a_rule_that_has_gone_or_changed_its_mind_refuses(flow: Flow) -> None:
    await flow.push(event(1, hit=True))
    await flow.finish_all(fail="first")
    letter = await flow.letter()
    await flow.apply(RULES.replace("data.hit: true}\n    run", "data.hit: 7}\n    run"))
    with pytest.raises(ReplayRefused, match="does not fire on it any more; `eventflow explain"):
        await flow.replay(letter)
    await flow.apply(RULES.replace("  hits:", "  other-hits:"))
    with pytest.raises(ReplayRefused, match=r"rule 'hits' is not in the current rule set.*runs retry"):
        await flow.replay(letter)
    assert await flow.letter() == letter


async def test_a_rule_set_that_is_replaced_meanwhile_is_read_again(flow: Flow) -> None:
    await flow.push(event(1, hit=True))
    await flow.finish_all(fail="first")
    letter = await flow.letter()
    other = Flow(flow.pool, flow.folder)
    await other.revisions.refresh()
    revision = await flow.apply(RULES + "\n")
    await other.replay(letter)
    (run,) = await flow.fetch("SELECT revision FROM run WHERE state = 'running'")
    assert run["revision"] == revision


async def test_a_run_that_was_retried_meanwhile_is_not_started_a_second_time(flow: Flow) -> None:
    await flow.push(event(1, hit=True))
    await flow.finish_all(fail="first")
    letter = await flow.letter()
    (run,) = await flow.fetch("SELECT id FROM run")
    async with flow.pool.acquire() as conn:
        assert await runs.retry_run(conn, run["id"])
    with pytest.raises(LetterNotOpen, match="replayed"):
        await flow.replay(letter)
    assert await flow.count("run") == 1


async def test_a_run_that_no_rule_started_is_started_again_with_its_parameters(flow: Flow) -> None:
    now = datetime.now(UTC)
    by_hand = runs.NewRun(
        new_uid(), "load", flow.revisions.current.revision, b'{"n":9}', ("first",), created=now, due=now
    )
    async with flow.pool.acquire() as conn:
        await runs.start_runs(conn, [by_hand])
    await flow.finish_all(fail="first")
    assert (await flow.replay(await flow.letter())).kind == "run"
    rows = await flow.fetch("SELECT state, params FROM run ORDER BY state")
    assert [(r["state"], bytes(r["params"])) for r in rows] == [
        ("failed", b'{"n":9}'),
        ("running", b'{"n":9}'),
    ]


async def test_a_replay_that_fails_half_way_leaves_nothing_behind(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    await flow.push(broken(b"{"))
    letter = await edited(flow, b'{"n": 1, "hit": true}')

    async def killed(*_: object) -> None:
        raise EventflowError("killed here")

    with monkeypatch.context() as patched:
        patched.setattr(dead_letters, "replayed", killed)
        with pytest.raises(EventflowError, match="killed here"):
            await flow.replay(letter)
    assert await flow.count("outbox") == 0
    await Replay(flow.pool, flow.revisions).send(letter)
    assert await flow.count("outbox") == 1


async def test_a_letter_whose_source_says_nothing_of_its_type_needs_one(flow: Flow) -> None:
    await flow.push(Broken("landing", b'{"path": "x"}', "its name is not UTF-8"), source="landing")
    letter = await flow.letter()
    with pytest.raises(ReplayRefused, match="--type"):
        await flow.replay(letter)
    await flow.replay(letter, type_="file.arrived")
    await flow.drain()
    (row,) = await flow.fetch("SELECT source, type FROM event")
    assert (row["source"], row["type"]) == ("landing", "file.arrived")


async def test_a_replay_of_a_replay_does_not_pile_up_names(flow: Flow) -> None:
    await flow.push(event(1, strict=True))
    first = await flow.letter()
    await flow.replay(first)
    await flow.drain()
    second = await flow.letter()
    assert (await flow.replay(second)).event == f"e1!{second}.1"


async def test_an_event_that_matched_nothing_comes_back_in_for_a_mended_rule(flow: Flow) -> None:
    (receipt,) = await flow.push(event(7, needed=True))
    await flow.apply(RULES.replace("data.needy: true", "data.needed: true").replace("data.must", "data.n"))
    sent = [await replay_event(flow.pool, flow.revisions.current, receipt.uid) for _ in range(2)]
    await flow.drain()
    rows = await flow.fetch("SELECT id, attributes FROM event WHERE uid <> $1", receipt.uid)
    assert {row["id"] for row in rows} == set(sent)
    assert len(set(sent)) == 2
    assert {decode_json(row["attributes"])["replayof"] for row in rows} == {str(receipt.uid)}
    assert all(id_.startswith(f"e7!{receipt.uid}.") for id_ in sent)
    assert [row["rule"] for row in await flow.fetch("SELECT rule FROM firing")] == ["needy", "needy"]
    async with flow.pool.acquire() as conn:
        assert not [one for one in await audit.balances(conn) if one.missing]
