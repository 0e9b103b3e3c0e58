"""Commands that change something, against a `serve` that goes on working."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.commands.conftest import RULES, Command, World, until


def test_a_run_is_started_waited_for_and_cancelled(at_work: World, eventflow: Command) -> None:
    done = eventflow("run", "sleep", "-p", "seconds=0", "--wait", "--json").json
    assert (done["state"], done["params"]) == ("succeeded", {"seconds": 0})
    long = eventflow("run", "sleep", "-p", "seconds=600", "--json").json["run_id"]
    assert eventflow("runs", "cancel", long).code == 0
    assert eventflow("runs", "show", long, "--json").json["state"] == "cancelled"
    again = eventflow("runs", "cancel", long)
    assert again.code == 1
    assert "not running" in again.err


def test_a_run_that_fails_exits_1(at_work: World, eventflow: Command) -> None:
    failed = eventflow("run", "load", "-p", "path=/nowhere/at/all; exit 3", "--wait")
    assert failed.code == 1
    assert "failed" in failed.out


def test_a_mended_letter_comes_back_in(ended: list[Any], eventflow: Command, tmp_path: Path) -> None:
    (letter,) = eventflow("dlq", "--stage", "decode", "--json").json
    refused = eventflow("dlq", "replay", letter["id"])
    assert refused.code == 1
    assert "dlq edit" in refused.err
    mended = tmp_path / "mended.json"
    mended.write_bytes(b'{"n": "mended", "qty": 2}')
    assert eventflow("dlq", "edit", letter["id"], "--set-file", str(mended)).code == 0
    (sent,) = eventflow("dlq", "replay", letter["id"], "--json").json
    assert (sent["became"], sent["error"]) == ("event", None)
    events = until(
        lambda: eventflow("events", "--source", "web", "--json").json,
        lambda events: any(event["id"] == sent["event"] for event in events),
    )
    assert len(events) == 2
    shown = eventflow("dlq", "show", letter["id"], "--json").json
    assert (shown["state"], shown["raw"]) == ("replayed", '{"n": "broken", "qty": ')
    assert shown["edited"] == '{"n": "mended", "qty": 2}'
    assert eventflow("audit").code == 0


def test_an_editor_that_fails_leaves_the_letter_alone(
    ended: list[Any], at_work: World, eventflow: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (letter,) = eventflow("dlq", "--rule", "orders-landed", "--json", "-n", "1").json
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)
    assert "--set-file" in eventflow("dlq", "edit", letter["id"]).err
    monkeypatch.setenv("EDITOR", "false")
    assert eventflow("dlq", "edit", letter["id"]).code == 2
    monkeypatch.setenv("EDITOR", "sed -i s/orders/ORDERS/")
    assert eventflow("dlq", "edit", letter["id"]).code == 0
    assert "ORDERS" in eventflow("dlq", "show", letter["id"], "--json").json["edited"]
    assert eventflow("dlq", "edit", letter["id"], "--undo").code == 0
    assert eventflow("dlq", "show", letter["id"], "--json").json["edited"] is None


def test_a_mended_run_is_retried(ended: list[Any], at_work: World, eventflow: Command) -> None:
    at_work.land("orders_uk.csv", "bad\n")
    runs = until(
        lambda: eventflow("runs", "--state", "failed", "--json").json,
        lambda runs: any(run["subject"] == "orders_uk.csv" for run in runs),
    )
    (run,) = [run for run in runs if run["subject"] == "orders_uk.csv"]
    at_work.land("orders_uk.csv", "good\n")
    assert eventflow("runs", "retry", run["run_id"]).code == 0
    until(
        lambda: eventflow("runs", "show", run["run_id"], "--json").json,
        lambda shown: shown["state"] == "succeeded",
    )
    assert eventflow("runs", "retry", run["run_id"]).code == 1
    assert run["run_id"] not in {letter["run_id"] for letter in eventflow("dlq", "--json").json}


def test_a_paused_source_is_not_read_until_it_is_resumed(at_work: World, eventflow: Command) -> None:
    assert eventflow("sources", "pause", "landing").code == 0
    (row,) = [row for row in eventflow("sources", "--json").json if row["source"] == "landing"]
    assert (row["state"], row["owner"]) == ("paused", None)
    at_work.land("returns_late.csv", "a\n")
    assert eventflow("sources", "resume", "landing").code == 0
    until(
        lambda: eventflow("events", "--json").json,
        lambda events: any(event["subject"] == "returns_late.csv" for event in events),
    )
    assert "--from is not for the connector 'file'" in _moved_while_paused(eventflow)


def _moved_while_paused(eventflow: Command) -> str:
    assert eventflow("sources", "pause", "landing").code == 0
    refused = eventflow("sources", "resume", "landing", "--from", "earliest")
    assert refused.code == 2
    assert eventflow("sources", "resume", "landing").code == 0
    return refused.err


def test_an_event_is_sent_in_again(ended: list[Any], eventflow: Command) -> None:
    before = eventflow("events", "--source", "web", "--json").json
    first = before[-1]
    assert f"{first['uid']}: sent in as event" in eventflow("events", "replay", first["uid"][-12:]).out
    events = until(
        lambda: eventflow("events", "--source", "web", "--json").json,
        lambda events: len(events) == len(before) + 1,
    )
    assert eventflow("events", "show", events[0]["uid"], "--json").json["replayof"] == first["uid"]
    assert f"it is a replay of {first['uid']}" in eventflow("explain", events[0]["uid"]).out
    assert eventflow("events", "replay", first["uid"], "nothing").code == 2


def test_a_discarded_letter_says_why(ended: list[Any], eventflow: Command) -> None:
    (letter,) = eventflow("dlq", "--rule", "orders-landed", "--json", "-n", "1").json
    assert eventflow("dlq", "discard", letter["id"], "--reason", "known bad file").code == 0
    assert eventflow("dlq", "show", letter["id"], "--json").json["resolution"] == "known bad file"
    assert eventflow("dlq", "discard", letter["id"]).code == 1
    assert eventflow("audit", "--inside").code == 0


def test_apply_plans_applies_and_repeats_nothing(
    at_work: World, eventflow: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(at_work.folder / "flow.yaml")
    assert "nothing would change" in eventflow("apply", path, "--plan").out
    assert "nothing changed" in eventflow("apply", path).out
    other = at_work.folder / "other.yaml"
    other.write_text("rules: {}\n")
    planned, refused = eventflow("apply", str(other), "--plan"), eventflow("apply", str(other))
    assert (planned.code, planned.err) == (refused.code, refused.err) == (2, refused.err)
    assert "--take-over" in refused.err
    planned = eventflow("apply", str(other), "--plan", "--take-over")
    assert "- rule orders-landed" in planned.out
    assert "- source web" in planned.out


def test_a_plan_names_what_is_new_changed_and_gone(
    tmp_path: Path, database: str, eventflow: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTFLOW_DATABASE_URL", database)
    path = tmp_path / "flow.yaml"
    path.write_text(RULES)
    assert "+ rule orders-landed" in eventflow("apply", str(path), "--plan").out
    assert eventflow("apply", str(path)).code == 0
    path.write_text("# a word\n" + RULES)
    assert "only texts change" in eventflow("apply", str(path), "--plan").out
    path.write_text(RULES.replace("> 1000", "> 2000").replace("  sleep:", "  doze:"))
    (tmp_path / "jobs.py").write_text("def f(): ...\n")
    planned = [line.strip() for line in eventflow("apply", str(path), "--plan").out.splitlines()]
    assert planned[1:-1] == [
        "+ workflow doze",
        "- workflow sleep",
        "~ rule returns-landed",
        "~ the Python code of tasks",
    ]
