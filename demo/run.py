"""`make demo`: real files land in a watched folder, and each starts its pipeline exactly once.

Starts `eventflow serve rules/files.yaml` on an embedded Postgres below `.demo/`, drops three CSV files of the
vega_datasets package into `.demo/landing/` (one cut off in mid-row, one copied in slowly, one dropped twice),
waits for the runs, and checks that every expected one happened exactly once.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "rules" / "files.yaml"
HOME = ROOT / ".demo"
LANDING = HOME / "landing"
EVENTFLOW = [sys.executable, "-m", "eventflow"]
ENV = {**os.environ, "EVENTFLOW_DATA": str(HOME), "EVENTFLOW_LOG": "json"}
ENV.pop("EVENTFLOW_DATABASE_URL", None)
EXPECTED = {"airports.csv": "failed", "seattle-weather.csv": "succeeded", "stocks.csv": "succeeded"}
PATIENCE_SECONDS = 90


def say(text: str) -> None:
    print(text, flush=True)


def ask(*command: str) -> Any:
    """The JSON that an eventflow command prints."""
    argv = [*EVENTFLOW, *command, "--json"]
    done = subprocess.run(argv, env=ENV, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"eventflow {' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


@contextmanager
def serving() -> Iterator[None]:
    """`eventflow serve rules/files.yaml` until the block ends; its log goes to .demo/serve.log."""
    with (HOME / "serve.log").open("ab") as log:
        serve = subprocess.Popen([*EVENTFLOW, "serve", str(RULES)], env=ENV, stdout=log, stderr=log)
        try:
            wait_for("the landing folder to be watched", lambda: watched(serve))
            yield
        finally:
            serve.send_signal(signal.SIGTERM)
            serve.wait(30)


def watched(serve: subprocess.Popen[bytes]) -> bool:
    if serve.poll() is not None:
        raise SystemExit(f"eventflow serve ended; its log is {HOME / 'serve.log'}")
    try:
        return any(s["source"] == "landing" and s["state"] == "running" for s in ask("sources"))
    except SystemExit:
        return False  # its database is still being made


def wait_for(what: str, happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {PATIENCE_SECONDS} s for {what}; the log is {HOME / 'serve.log'}")
        time.sleep(0.2)


def datasets() -> Path:
    """The folder of CSV files inside the vega_datasets wheel, which is not imported."""
    spec = importlib.util.find_spec("vega_datasets")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the package vega_datasets is not installed; `make demo` installs it")
    return Path(spec.submodule_search_locations[0]) / "_data"


def drop_cut_off(name: str) -> None:
    content = (datasets() / name).read_bytes()
    say(f"  {name}: cut off in mid-row after 100,000 of {len(content):,} bytes")
    partial = LANDING / f".{name}.partial"
    partial.write_bytes(content[:100_000])
    partial.rename(LANDING / name)


def drop_slowly(name: str, seconds: float = 3) -> None:
    content = (datasets() / name).read_bytes()
    say(f"  {name}: {len(content):,} bytes over {seconds:.0f} s")
    with (LANDING / name).open("wb", buffering=0) as file:
        for start in range(0, len(content), 4096):
            file.write(content[start : start + 4096])
            time.sleep(seconds * 4096 / len(content))


def drop_twice(name: str) -> None:
    say(f"  {name}: dropped twice, the same bytes")
    for _ in range(2):
        partial = LANDING / f".{name}.partial"
        shutil.copyfile(datasets() / name, partial)
        partial.rename(LANDING / name)
        time.sleep(0.5)


def runs() -> list[dict[str, Any]]:
    """The runs of the demo's own files; a user may have dropped others."""
    return [run for run in ask("runs") if run["rule"] == "csv-landed" and subject(run) in EXPECTED]


def ended() -> Callable[[], bool]:
    shown: set[str] = set()

    def look() -> bool:
        found = runs()
        for run in found:
            if run["state"] != "running" and run["run_id"] not in shown:
                shown.add(run["run_id"])
                say(f"  {subject(run)}: {run['state']}")
        return len(found) >= len(EXPECTED) and all(run["state"] != "running" for run in found)

    return look


def subject(run: dict[str, Any]) -> str:
    return str(run["subject"])


def report(found: list[dict[str, Any]]) -> bool:
    """Print each run with its file, duration and result; True where they are what was expected."""
    say(f"\n{'file':20} {'state':10} {'seconds':>8}  {'run':36}  result")
    for run in sorted(found, key=subject):
        details = ask("runs", "show", run["run_id"])
        result = run["error"] or next(
            (task["result"] for task in details["tasks"] if task["task"] == "convert"), None
        )
        seconds, run_id = run["duration"], run["run_id"]
        say(f"{subject(run):20} {run['state']:10} {seconds:8.2f}  {run_id}  {shorten(result)}")
    states = {name: [run["state"] for run in found if subject(run) == name] for name in EXPECTED}
    return states == {name: [state] for name, state in EXPECTED.items()} and len(found) == len(EXPECTED)


def shorten(result: object) -> str:
    if isinstance(result, dict):
        target = Path(result["parquet"]).relative_to(ROOT)
        return f"{result['rows']:,} rows -> {target} ({result['bytes']:,} bytes)"
    return str(result).splitlines()[0]


def main() -> int:
    again = (HOME / "postgres").exists()
    LANDING.mkdir(parents=True, exist_ok=True)
    say(f"eventflow demo; all its data is in {HOME}\nstarting eventflow on an embedded Postgres ...")
    with serving():
        before = {run["run_id"] for run in runs()} if again else set[str]()
        say(f"dropping files into {LANDING}")
        drop_cut_off("airports.csv")
        drop_twice("stocks.csv")
        drop_slowly("seattle-weather.csv")
        say("waiting for their runs ...")
        wait_for("all runs to end", ended())
        time.sleep(3)  # nothing more may come: longer than the quiet time and a look at the folder
        found = runs()
        new = {run["run_id"] for run in found} - before
        correct = report(found)
        ids = {run["run_id"] for run in found}
        letters = [letter for letter in ask("dlq") if letter["run_id"] in ids]
        for letter in letters:
            reason = letter["reason"].splitlines()[0]
            say(f"\ndead letter {letter['id']} (stage {letter['stage']}): {reason}")
    if again and not new:
        say("\nnothing is new: every file was seen before, with the same bytes")
    say(f"\nlook around:\n  export EVENTFLOW_DATA={shlex.quote(str(HOME))}")
    for command in ("runs", "events", "sources", "dlq", "audit", "explain stocks.csv#1"):
        say(f"  .venv/bin/eventflow {command}")
    say("  .venv/bin/eventflow serve rules/files.yaml   # then drop files of your own into .demo/landing")
    say("\nok: every expected run happened exactly once" if correct else "\nNOT as expected; see above")
    return 0 if correct and len(letters) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
