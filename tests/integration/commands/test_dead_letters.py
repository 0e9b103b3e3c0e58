"""Dead letters as a person handles them."""

from __future__ import annotations

import asyncio

import pytest

from eventflow.cli.naming import event_named
from eventflow.errors import UsageError
from eventflow.event import JSON, Broken, encode_json
from eventflow.store import dead_letters
from eventflow.store.dead_letters import LetterNotOpen, Stage
from tests.integration.commands.conftest import Flow, broken, event


async def test_each_stage_keeps_its_reason_and_the_original_bytes(flow: Flow) -> None:
    mangled = broken()
    await flow.push(mangled, event(1, strict=True), event(2, needy=True), event(3, hit=True))
    await flow.finish_all(fail="second")
    async with flow.pool.acquire() as conn:
        rows = await dead_letters.letters(conn)
        letters = {row["stage"]: await dead_letters.show(conn, row["id"]) for row in rows}
    assert set(letters) == {"decode", "match", "start", "run"}
    assert letters["decode"]["raw"] == mangled.raw
    assert letters["decode"]["position"] == {"at": 7}
    assert letters["match"]["rule"] == "strict"
    assert letters["match"]["raw"] == event(1, strict=True).raw
    assert "must" in letters["start"]["reason"]
    assert letters["run"]["reason"] == "task 'second' failed: it broke"
    assert letters["run"]["event"] == "e3"


async def test_a_broken_record_is_found_by_the_place_where_it_stood(flow: Flow) -> None:
    at: list[JSON] = [{"topic": "payments.v1", "partition": 1, "offset": 2}, "a/b\x00.csv", "landing/ü.csv"]
    await flow.push(*(Broken("web", b"{", "no JSON", position) for position in at), event(1, strict=True))
    async with flow.pool.acquire() as conn:
        rows = {encode_json(row["position"]): row["id"] for row in await dead_letters.letters(conn)}
        assert (await dead_letters.show(conn, rows[encode_json(at[1])]))["position"] == at[1]
        assert await dead_letters.find_place(conn, "payments.v1/1/2") == rows[encode_json(at[0])]
        assert await dead_letters.find_place(conn, "web/payments.v1/1/2") == rows[encode_json(at[0])]
        assert await dead_letters.find_place(conn, "landing/ü.csv") == rows[encode_json(at[2])]
        with pytest.raises(UsageError, match="no dead letter of a record at"):
            await dead_letters.find_place(conn, "payments.v1/1")
    letter = rows[encode_json(at[0])]
    with pytest.raises(UsageError, match=f"is no event but a dead letter; `eventflow dlq show {letter}`"):
        await event_named(flow.pool, "payments.v1/1/2")


async def test_the_list_narrows_by_stage_rule_source_and_number(flow: Flow) -> None:
    await flow.push(broken(), event(1, strict=True), event(2, needy=True))
    async with flow.pool.acquire() as conn:
        assert [r["stage"] for r in await dead_letters.letters(conn, stage=Stage.decode)] == ["decode"]
        assert [r["stage"] for r in await dead_letters.letters(conn, rule="strict")] == ["match"]
        assert len(await dead_letters.letters(conn, source="web")) == 3
        assert len(await dead_letters.letters(conn, limit=2)) == 2
        assert await dead_letters.letters(conn, source="landing") == []


async def test_the_beginning_of_an_id_is_enough_where_only_one_has_it(flow: Flow) -> None:
    await flow.push(broken(), broken(b"{"))
    async with flow.pool.acquire() as conn:
        first, second = await dead_letters.open_ids(conn)
        assert await dead_letters.find_letter(conn, str(first)) == first
        same = next(n for n in range(36, 0, -1) if str(first)[:n] == str(second)[:n])
        with pytest.raises(UsageError, match="more than one"):
            await dead_letters.find_letter(conn, str(first)[:same])
        with pytest.raises(UsageError, match="no dead letter 'nothing'"):
            await dead_letters.find_letter(conn, "nothing")


async def test_the_end_of_an_id_is_enough(flow: Flow) -> None:
    await flow.push(broken(), broken(b"{"))
    async with flow.pool.acquire() as conn:
        first, second = await dead_letters.open_ids(conn)
        for ending in (str(first)[-12:], str(first)[-14:], first.hex[-20:].upper()):
            assert await dead_letters.find_letter(conn, ending) == first
        assert await dead_letters.find_letter(conn, str(second)[-12:]) == second


async def test_a_replayed_letter_is_neither_edited_nor_discarded(flow: Flow) -> None:
    await flow.push(event(1, strict=True, hit=True))
    letter = await flow.letter()
    await flow.replay(letter)
    async with flow.pool.acquire() as conn:
        with pytest.raises(LetterNotOpen, match=r"was replayed at \S+Z$"):
            await dead_letters.edit(conn, letter, None)
        with pytest.raises(LetterNotOpen, match=r"was replayed at \S+Z$"):
            await dead_letters.discard(conn, [letter])


async def test_an_edit_stands_beside_the_original_and_can_be_taken_back(flow: Flow) -> None:
    await flow.push(broken(b"{"))
    letter = await flow.letter()
    async with flow.pool.acquire() as conn:
        await dead_letters.edit(conn, letter, b"{}")
        shown = await dead_letters.show(conn, letter)
        assert (shown["raw"], shown["edited"]) == (b"{", b"{}")
        await dead_letters.edit(conn, letter, None)
        assert (await dead_letters.show(conn, letter))["edited"] is None


async def test_discarding_is_all_or_nothing_and_keeps_the_bytes_and_the_reason(flow: Flow) -> None:
    await flow.push(broken(b"["), broken(b"{"))
    async with flow.pool.acquire() as conn:
        first, second = await dead_letters.open_ids(conn)
        await dead_letters.discard(conn, [second])
        with pytest.raises(LetterNotOpen, match="discarded"):
            await dead_letters.discard(conn, [first, second])
        assert await dead_letters.open_ids(conn) == [first]
        await dead_letters.discard(conn, [first], "sent by mistake")
        shown = await dead_letters.show(conn, first)
    assert (shown["state"], shown["resolution"], shown["raw"]) == ("discarded", "sent by mistake", b"[")


async def test_a_discarded_letter_is_neither_edited_nor_replayed(flow: Flow) -> None:
    await flow.push(broken(b"{}"))
    letter = await flow.letter()
    async with flow.pool.acquire() as conn:
        await dead_letters.discard(conn, [letter])
        with pytest.raises(LetterNotOpen):
            await dead_letters.edit(conn, letter, b"{}")
    with pytest.raises(LetterNotOpen):
        await flow.replay(letter, again=True)


async def test_of_two_people_who_discard_the_same_letters_one_is_told_so(flow: Flow) -> None:
    await flow.push(*(broken(b"{%d" % n) for n in range(10)))

    async def discard(backwards: bool) -> int:
        async with flow.pool.acquire() as conn:
            ids = await dead_letters.open_ids(conn)
            return await dead_letters.discard(conn, ids[::-1] if backwards else ids)

    done = await asyncio.gather(discard(False), discard(True), return_exceptions=True)
    assert sorted(type(one).__name__ for one in done) in (["LetterNotOpen", "int"], ["int", "int"])
    assert await flow.count("dead_letter WHERE state = 'discarded'") == 10
