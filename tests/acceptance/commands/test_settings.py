"""What commands say when they cannot begin: a broken file, a wrong setting, no database."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from eventflow.store import pool
from tests.acceptance.commands.conftest import DEADLINE, PROGRAM, Command, environment


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
        ("DATA", f"/tmp/{'x' * 300}", 2, "cannot be read: File name too long; EVENTFLOW_DATA names another"),
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


def test_a_server_that_takes_the_connection_and_never_answers_is_given_up(
    eventflow: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pool.CONNECT_SECONDS == 10
    monkeypatch.setattr(pool, "CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv(
            "EVENTFLOW_DATABASE_URL", f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/flows"
        )
        answer = eventflow("runs")
    assert answer.code == 1
    assert "no answer in time" in answer.err


def test_a_reader_that_has_seen_enough_hears_no_complaint(tmp_path: Path, database: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [*PROGRAM, "db", "status"], stdout=writing, stderr=subprocess.PIPE, check=False, timeout=DEADLINE,
        env=environment(tmp_path) | {"EVENTFLOW_DATABASE_URL": database, "PYTHONUNBUFFERED": ""},
    )  # fmt: skip
    os.close(writing)
    assert ended.stderr == b""


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


def test_commands_need_no_serve_and_leave_nothing_running(
    tmp_path: Path, eventflow: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVENTFLOW_DATABASE_URL", raising=False)
    monkeypatch.setenv("EVENTFLOW_DATA", str(tmp_path / "data"))
    (tmp_path / "flow.yaml").write_text("workflows: {nap: {tasks: {wait: {shell: [sleep, '1']}}}}\n")
    pid_file = tmp_path / "data" / "postgres" / "postmaster.pid"
    assert "revision 1" in eventflow("apply", str(tmp_path / "flow.yaml")).out
    assert not pid_file.exists()
    started = eventflow("run", "nap")
    assert started.code == 0
    assert "no `eventflow serve` is running" in started.err
    (run,) = eventflow("runs", "--json").json
    assert (run["workflow"], run["state"]) == ("nap", "running")
    assert not pid_file.exists()
