"""Every command against a real `serve` on an embedded Postgres: what it prints, and how it exits."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from eventflow.cli.main import app, main

DEADLINE = 30.0
PROGRAM = [sys.executable, "-m", "eventflow"]
RULES = """
sources:
  landing:
    connector: file
    path: landing
    pattern: "{dataset}_{region}.csv"
    settle: {quiet: 200ms}
    initial: process
  web: {connector: webhook, verify: none, id: data.n}
workflows:
  load:
    params: {path: string}
    tasks:
      copy: {shell: ["sh", "-c", "echo copying ${params.path}; ! grep -q bad ${params.path}"]}
  sleep:
    params: {seconds: int}
    tasks: {wait: {shell: ["sleep", "${string(params.seconds)}"]}}
rules:
  orders-landed:
    from: landing
    match: {type: file.arrived, data.dataset: orders}
    run: load
    with: {path: "${event.data.path}"}
  returns-landed:
    from: landing
    match: {type: file.arrived, data.dataset: returns}
    where: event.data.size > 1000
    run: load
    with: {path: "${event.data.path}"}
"""


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


Command = Callable[..., Answer]


@pytest.fixture
def eventflow(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """A command in this process, from its arguments to its exit code; a traceback fails the test."""

    def run(*words: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["eventflow", *words])
        with pytest.raises(SystemExit) as exit_:
            main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        code = exit_.value.code
        return Answer(code if isinstance(code, int) else 0, printed.out, printed.err)

    return run


@dataclass
class World:
    """A folder with rules and landing place, its data folder, and a `serve` that runs on both."""

    folder: Path
    server: subprocess.Popen[str]
    url: str

    def land(self, name: str, content: str) -> Path:
        hidden = self.folder / f".{name}"
        hidden.write_text(content)
        return hidden.rename(self.folder / "landing" / name)

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=10) as answer:
                return answer.status == 200
        except urllib.error.HTTPError as error:
            error.close()
            return False

    def post(self, body: bytes) -> None:
        request = urllib.request.Request(
            f"{self.url}/hooks/web", body, {"content-type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 202


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EVENTFLOW_")}
    return kept | {"EVENTFLOW_DATA": str(folder / "data"), "EVENTFLOW_HTTP": "127.0.0.1:0"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    (folder / "landing").mkdir()
    (folder / "flow.yaml").write_text(RULES)
    server = subprocess.Popen(
        [*PROGRAM, "serve", str(folder / "flow.yaml")],
        stderr=subprocess.PIPE, text=True, env=environment(folder),
    )  # fmt: skip
    try:
        made = World(folder, server, _url(server))
        until(made.healthy, bool)
        made.land("orders_eu.csv", "a,b\n1,2\n")
        made.land("orders_us.csv", "bad\n")
        made.land("returns_eu.csv", "a\n1\n")
        made.land("readme.txt", "nobody asks for this")
        made.post(b'{"n": "first", "qty": 1}')
        made.post(b'{"n": "broken", "qty": ')
        yield made
    finally:
        server.kill()
        server.wait()
        assert server.stderr
        server.stderr.close()
        shutil.rmtree(folder / "landing")


def _url(server: subprocess.Popen[str]) -> str:
    assert server.stderr
    for line in server.stderr:
        if found := re.search(r"\bserving\b.*url=(http://\S+)", line):
            return found[1]
    raise AssertionError("serve ended before it was serving")


@pytest.fixture
def at_work(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world, with this process' settings pointing at it."""
    for name in list(os.environ):
        if name.startswith("EVENTFLOW_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("EVENTFLOW_DATA", str(world.folder / "data"))
    return world


def until(ask: Callable[[], Any], enough: Callable[[Any], bool]) -> Any:
    """Ask until the answer is enough; what was answered last is shown when it never is."""
    deadline = time.monotonic() + DEADLINE
    while not enough(answer := ask()):
        assert time.monotonic() < deadline, f"not in {DEADLINE} s: {answer}"
    return answer


@pytest.fixture
def ended(at_work: World, eventflow: Command) -> list[dict[str, Any]]:
    """The runs of the two files, both ended."""
    return until(
        lambda: eventflow("runs", "--workflow", "load", "--json").json,
        lambda runs: len(runs) >= 2 and all(run["ended"] for run in runs),
    )


# ---------------------------------------------------------------------- looking around


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("events", "ingested source type subject id class uid partition size"),
        ("sources", "source partition state owner position taken duplicates last_event silence message"),
        ("rules", "rule state does firings last_fired where_errors loop_skips dead_letters revision"),
        ("firings", "at rule state event run_state run_id firing_id revision reason"),
        ("runs", "created workflow rule state duration event error run_id revision"),
        ("dlq", "created stage state source rule event attempts reason id"),
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
    assert by_file["orders_eu.csv"]["state"] == "succeeded"
    failed = by_file["orders_us.csv"]
    assert failed["state"] == "failed"
    assert "task 'copy' failed" in failed["error"]
    shown = eventflow("runs", "show", failed["run_id"], "--json").json
    assert [(task["task"], task["state"]) for task in shown["tasks"]] == [("copy", "failed")]
    assert shown["params"]["path"].endswith("landing/orders_us.csv")
    assert "copy | copying" in eventflow("runs", "logs", failed["run_id"]).out
    assert failed["run_id"] in eventflow("runs").out
    assert eventflow("runs", "--state", "succeeded", "--json").json == [by_file["orders_eu.csv"]]


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


def test_the_audit_counts_files_that_nobody_asked_for_and_misses_none(
    ended: list[Any], eventflow: Command
) -> None:
    books = {row["source"]: row for row in eventflow("audit", "--json").json}
    landing = books["landing"]
    assert (landing["outside"], landing["unknown"], landing["ignored"]) == (3, 0, 1)
    assert (books["web"]["taken"], books["web"]["dead"], books["web"]["unmatched"]) == (2, 1, 1)
    assert all(row["balanced"] for row in books.values())
    assert "everything is accounted for" in eventflow("audit").out


# ---------------------------------------------------------------------- doing something


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
        lambda runs: any(run["event"] == "orders_uk.csv" for run in runs),
    )
    (run,) = [run for run in runs if run["event"] == "orders_uk.csv"]
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
    assert "not supported yet" in eventflow("sources", "pause", "web").err


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
    assert "- flow.yaml" in eventflow("apply", str(other), "--plan").out
    refused = eventflow("apply", str(other))
    assert refused.code == 2
    assert "--take-over" in refused.err


# ---------------------------------------------------------------------- wrong use


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
        ("dlq replay --all 0199f3a2", "--all"),
        ("explain nothing", "no event 'nothing'"),
        ("explain orders_eu.csv orders-lnded", "did you mean 'orders-landed'"),
        ("run lod -p path=x", "did you mean 'load'"),
        ("run load", "'path'"),
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


def test_an_ambiguous_beginning_lists_what_it_may_mean(ended: list[Any], eventflow: Command) -> None:
    answer = eventflow("runs", "show", ended[0]["run_id"][:4])
    assert answer.code == 2
    assert ended[-1]["run_id"] in answer.err


@pytest.mark.parametrize("command", ["apply", "serve", "check"])
def test_a_broken_rule_file_is_refused_at_its_place(
    tmp_path: Path, eventflow: Command, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("EVENTFLOW_DATA", str(tmp_path / "data"))
    (tmp_path / "flow.yaml").write_text("rules:\n  one: {match: {type: x}, runn: load}\n")
    answer = eventflow(command, str(tmp_path / "flow.yaml"))
    assert answer.code == 2
    assert f"{tmp_path}/flow.yaml:2:" in answer.out + answer.err
    assert "run" in answer.out + answer.err
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("variable", "value", "code", "said"),
    [
        ("DATABASE_URL", "mysql://me:hush@db/flows", 2, "EVENTFLOW_DATABASE_URL"),
        (
            "DATABASE_URL",
            "postgresql://me:hush@127.0.0.1:1/flows",
            1,
            "127.0.0.1:1/flows: connection refused",
        ),
        ("DATABASE_URL", "postgresql://me:hush@127.0.0.1:notaport/flows", 2, "a port is a number"),
        (
            "DATABASE_URL",
            "postgresql://me:hush@no-such-host.invalid/flows",
            1,
            "cannot use Postgres at no-such-host.invalid/flows",
        ),
        ("LEASE", "soon", 2, "EVENTFLOW_LEASE"),
        ("HTTP", "here", 2, "EVENTFLOW_HTTP"),
        ("LOG", "loud", 2, "EVENTFLOW_LOG"),
        ("DATA", "/proc/nowhere", 2, "there is no database yet"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_and_keeps_its_password(
    eventflow: Command, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, code: int, said: str
) -> None:
    monkeypatch.setenv(f"EVENTFLOW_{variable}", value)
    answer = eventflow("runs")
    assert answer.code == code
    assert said in answer.err
    assert "hush" not in answer.err


def test_a_serve_without_its_postgres_says_so_and_ends(tmp_path: Path) -> None:
    url = "postgresql://me:hush@127.0.0.1:1/flows"
    ended = subprocess.run(
        [*PROGRAM, "serve"], capture_output=True, text=True, check=False, timeout=DEADLINE,
        env=environment(tmp_path) | {"EVENTFLOW_DATABASE_URL": url},
    )  # fmt: skip
    assert ended.returncode == 1
    assert "cannot use Postgres at 127.0.0.1:1/flows: connection refused" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "hush" not in ended.stderr


def test_a_database_that_was_never_migrated_says_so(
    empty_database: str, eventflow: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTFLOW_DATABASE_URL", empty_database)
    answer = eventflow("runs")
    assert answer.code == 1
    assert "eventflow db migrate" in answer.err
    assert eventflow("db", "status").code == 1
    assert "applied" in eventflow("db", "migrate").out
    assert eventflow("db", "status").code == 0
    assert eventflow("runs").code == 0
    assert "holds no rule set yet" in eventflow("rules").err


def test_there_is_no_database_before_there_is_one(
    tmp_path: Path, eventflow: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVENTFLOW_DATABASE_URL", raising=False)
    monkeypatch.setenv("EVENTFLOW_DATA", str(tmp_path / "data"))
    answer = eventflow("runs")
    assert answer.code == 2
    assert "eventflow serve" in answer.err
    assert not (tmp_path / "data").exists()


# ---------------------------------------------------------------------- help


def commands() -> list[str]:
    root: Any = get_command(app)
    return ["", *(name for name in root.commands)] + [
        f"{name} {sub}" for name, group in root.commands.items() for sub in getattr(group, "commands", {})
    ]


@pytest.mark.parametrize("command", commands())
def test_help_teaches_by_example(eventflow: Command, command: str) -> None:
    answer = eventflow(*command.split(), "--help")
    assert answer.code == 0
    assert "Examples:" in answer.out
    assert f"eventflow {command}".strip() in answer.out.partition("Examples:")[2]


def test_help_imports_neither_the_database_nor_the_rules() -> None:
    heavy = "asyncpg|pydantic|cel_expr_python|ruamel|uvicorn|structlog|rich"
    script = "import sys; import eventflow.cli.main; print(' '.join(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert [name for name in loaded if re.fullmatch(heavy, name)] == []


# ---------------------------------------------------------------------- the last one stops it


def test_commands_work_without_a_serve_and_leave_nothing_running(
    ended: list[Any], at_work: World, eventflow: Command
) -> None:
    at_work.server.send_signal(signal.SIGTERM)
    assert at_work.server.wait(DEADLINE) == 0
    pid_file = at_work.folder / "data" / "postgres" / "postmaster.pid"
    assert not pid_file.exists()
    assert len(eventflow("runs", "--workflow", "load", "--json").json) >= 2
    assert not pid_file.exists()
    started = eventflow("run", "sleep", "-p", "seconds=0")
    assert started.code == 0
    assert "no `eventflow serve` is running" in started.err
