"""A real `serve` on an embedded Postgres with a short past, and a way to give it commands."""

from __future__ import annotations

import json
import os
import re
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

from eventflow.cli.main import main

DEADLINE = 30.0
PROGRAM = [sys.executable, "-m", "eventflow"]
SERVING = re.compile(r"\bserving\b.*url=(http://\S+)")
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
  steps:
    tasks: {first: {shell: ["false"]}, second: {shell: ["true"], after: first}}
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
    log = folder / "serve.log"
    with log.open("w") as stderr:
        server = subprocess.Popen(
            [*PROGRAM, "serve", str(folder / "flow.yaml")], stderr=stderr, env=environment(folder)
        )
    try:
        found = until(lambda: SERVING.search(log.read_text()), bool)
        made = World(folder, found[1])
        until(made.healthy, bool)
        made.land("orders_eu.csv", "a,b\n1,2\n")
        made.land("orders_us.csv", "bad\n")
        made.land("returns_eu.csv", "a\n1\n")
        made.land("readme.txt", "nobody asks for this")
        made.post(b'{"n": "first", "qty": 1}')
        made.post(b'{"n": "broken", "qty": ')
        yield made
    finally:
        server.terminate()  # in order, so that the embedded Postgres stops with it
        assert server.wait(DEADLINE) == 0


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
