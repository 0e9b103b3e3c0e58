"""What the lists and `explain` say of a `serve` that has worked, and what they say to a wrong question."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.acceptance.commands.conftest import Command, World


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("events", "ingested source type subject id class uid partition size"),
        (
            "sources",
            "source partition state owner position lag rate silence rhythm taken duplicates stalled message",
        ),
        ("rules", "rule state does firings last_fired where_errors loop_skips dead_letters revision"),
        ("firings", "at rule state event run_state run_id firing_id revision reason"),
        ("runs", "created workflow rule state duration event error run_id revision"),
        ("dlq", "created stage state source rule event position attempts reason id"),
        ("audit", "source taken matched open late dead unmatched retired missing outside unknown balanced"),
        ("db status", "number name applied"),
    ],
)
def test_lists_are_one_array_of_objects(
    ended: list[Any], eventflow: Command, command: str, words: str
) -> None:
    rows = eventflow(*command.split(), "--json").json
    assert rows
    for row in rows:
        assert set(words.split()) <= set(row)
    if command != "db status":
        assert len(eventflow(*command.split(), "--json", "--limit", "1").json) == 1
        assert eventflow(*command.split(), "--since", "1d").code == 0
    table = eventflow(*command.split()).out.splitlines()
    assert len(table) >= len(rows) + 1


def test_runs_tell_which_file_failed_and_why(ended: list[dict[str, Any]], eventflow: Command) -> None:
    by_file = {run["event"]: run for run in ended}
    assert by_file["orders_eu.csv#1"]["state"] == "succeeded"
    failed = by_file["orders_us.csv#1"]
    assert failed["state"] == "failed"
    assert "task 'copy' failed" in failed["error"]
    shown = eventflow("runs", "show", failed["run_id"], "--json").json
    assert [(task["task"], task["state"]) for task in shown["tasks"]] == [("copy", "failed")]
    assert shown["params"]["path"].endswith("landing/orders_us.csv")
    assert "copy | copying" in eventflow("runs", "logs", failed["run_id"]).out
    assert failed["run_id"] in eventflow("runs").out
    assert eventflow("runs", "--state", "succeeded", "--json").json == [by_file["orders_eu.csv#1"]]


def test_a_run_is_found_by_the_end_of_its_id(ended: list[dict[str, Any]], eventflow: Command) -> None:
    run = ended[0]["run_id"]
    assert eventflow("runs", "show", run[-12:], "--json").json["run_id"] == run
    assert eventflow("explain", ended[0]["event"]).code == 0
    instead = eventflow("explain", run)
    assert (instead.code, f"eventflow runs show {run}" in instead.err) == (2, True)


def test_a_task_that_never_started_is_shown_and_a_failed_one_tells_why_in_its_log(
    ended: list[Any], eventflow: Command
) -> None:
    done = eventflow("run", "steps", "--wait", "--json")
    assert done.code == 1
    run = eventflow("runs", "-n", "1", "--workflow", "steps", "--json").json[0]["run_id"]
    shown = eventflow("runs", "show", run, "--json").json
    assert [(task["task"], task["state"]) for task in shown["tasks"]] == [
        ("first", "failed"),
        ("second", "not started"),
    ]
    logged = eventflow("runs", "logs", run[-12:])
    assert logged.err == ""
    assert logged.out.startswith("first ! ")
    assert "did you mean 'second'" in eventflow("runs", "logs", run, "--task", "secnd").err


def test_sources_name_the_node_that_serves_them(ended: list[Any], eventflow: Command) -> None:
    rows = {row["source"]: row for row in eventflow("sources", "--json").json}
    assert {rows[name]["state"] for name in ("landing", "web")} == {"running"}
    assert rows["landing"]["owner"] == rows["web"]["owner"]
    assert re.fullmatch(r".+:\d+", rows["web"]["owner"])


def test_an_event_is_shown_with_its_content(ended: list[Any], at_work: World, eventflow: Command) -> None:
    path = str(at_work.folder / "landing" / "orders_eu.csv")
    found = eventflow("events", "show", path, "--json").json
    assert (found["id"], found["type"], found["raw_is"]) == ("orders_eu.csv#1", "file.arrived", "json")
    assert found["data"]["path"] == path
    assert (found["cause"], found["dead_letters"]) == (None, [])
    assert [firing["workflow"] for firing in found["set_off"]] == ["load"]
    assert f'"path": "{path}"' in eventflow("events", "show", found["uid"][-12:]).out
    assert "no event 'nothing'" in eventflow("events", "show", "nothing").err


def test_explain_of_a_file_that_is_no_event_names_the_source_and_its_pattern(
    ended: list[Any], at_work: World, eventflow: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(at_work.folder)
    for name in ("readme.txt", "landing/readme.txt", str(at_work.folder / "landing" / "readme.txt")):
        answer = eventflow("explain", name)
        assert answer.code == 2
        assert (
            "source 'landing': its pattern '{dataset}_{region}.csv' does not take 'readme.txt'" in answer.err
        )
    assert "source 'landing'" not in eventflow("explain", "flow.yaml").err
    assert eventflow("audit", "--json").json[0]["ignored_names"] == ["readme.txt"]
    assert "no pattern takes readme.txt" in eventflow("audit").err


def test_explain_says_what_fired_and_what_was_near(
    ended: list[Any], at_work: World, eventflow: Command
) -> None:
    landed = eventflow("explain", str(at_work.folder / "landing" / "orders_eu.csv"))
    assert "orders-landed: fired" in landed.out
    assert "load succeeded" in landed.out
    near = eventflow("explain", "landing/returns_eu.csv", "returns-landed")
    assert "FAIL where event.data.size > 1000: false" in near.out
    assert "event.data.size = 4" in near.out
    found = eventflow("explain", "returns_eu.csv#1", "--json").json
    outcomes = {rule["rule"]: rule["outcome"] for rule in found["rules"]}
    assert outcomes == {"returns-landed": "not matched", "orders-landed": "not matched"}


def test_explain_of_a_record_that_never_became_an_event_points_at_its_letter(
    ended: list[Any], eventflow: Command
) -> None:
    (letter,) = eventflow("dlq", "--stage", "decode", "--json").json
    answer = eventflow("explain", letter["id"])
    assert answer.code == 2
    assert f"eventflow dlq show {letter['id']}" in answer.err


def test_the_audit_counts_files_that_nobody_asked_for_and_misses_none(
    ended: list[Any], eventflow: Command
) -> None:
    books = {row["source"]: row for row in eventflow("audit", "--json").json}
    landing = books["landing"]
    assert (landing["outside"], landing["unknown"], landing["ignored"]) == (3, 0, 1)
    assert (books["web"]["taken"], books["web"]["dead"], books["web"]["unmatched"]) == (2, 1, 1)
    assert all(row["balanced"] for row in books.values())
    assert "everything is accounted for" in eventflow("audit").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("runs show nothing", "no run 'nothing'"),
        ("runs show 0123456789abcdef", "no run '0123456789abcdef'"),
        ("runs --state asleep", "none of running"),
        ("runs --since yesterday", "'yesterday' is neither an age"),
        ("runs --limit 0", "greater than or equal to 1"),
        ("dlq show nothing", "no dead letter 'nothing'"),
        ("dlq --stage lost", "none of decode"),
        ("dlq replay", "--all"),
        ("dlq replay --all 05387648b861", "--all"),
        ("explain nothing", "no event 'nothing'"),
        ("explain orders_eu.csv orders-lnded", "did you mean 'orders-landed'"),
        ("run lod -p path=x", "did you mean 'load'"),
        ("run load", "'path'"),
        ("events --source ladning", "unknown source 'ladning'"),
        ("firings --rule orders-lnded", "did you mean 'orders-landed'"),
        ("runs --workflow lod", "did you mean 'load'"),
        ("runs --rule nosuch --state failed", "unknown rule 'nosuch'"),
        ("dlq --source nosuch", "unknown source 'nosuch'"),
        ("dlq replay --all --rule nosuch", "unknown rule 'nosuch'"),
        ("run load -p path=a -p path=b", "'path' is given twice"),
        ("run load -p path", "'path' is no NAME=VALUE"),
        ("run sleep -p seconds=soon", "must be an int"),
        ("sources pause landig", "did you mean 'landing'"),
        ("rules pause orders-landed", "not supported yet"),
        ("apply nowhere.yaml", "nowhere.yaml"),
        ("check nowhere.yaml", "nowhere.yaml"),
        ("test nowhere.yaml", "nowhere.yaml"),
        ("backtest x", "No such command"),
    ],
)
def test_wrong_use_exits_2_and_says_what_to_do(
    ended: list[Any], eventflow: Command, words: str, said: str
) -> None:
    answer = eventflow(*words.split())
    assert answer.code == 2
    assert said in answer.err
    assert answer.out == ""


def test_a_filter_that_names_what_there_is_may_find_nothing(ended: list[Any], eventflow: Command) -> None:
    for words in ("events --source eventflow", "firings --rule returns-landed", "dlq --rule returns-landed"):
        answer = eventflow(*words.split())
        assert (answer.code, answer.out) == (0, "")


def test_an_ambiguous_beginning_lists_what_it_may_mean(ended: list[Any], eventflow: Command) -> None:
    answer = eventflow("runs", "show", ended[0]["run_id"][:4])
    assert answer.code == 2
    assert ended[-1]["run_id"] in answer.err
