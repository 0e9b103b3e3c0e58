"""The webhook page does what it says: its rule file loads, its commands work when pasted."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from eventflow.event import decode_json
from eventflow.rulefile.connectors import find_connectors
from eventflow.rulefile.load import load
from eventflow.store.pool import Pool
from tests.integration.test_webhook import running

PAGE = (Path(__file__).parents[2] / "docs/connectors/webhook.md").read_text()
YAML = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
SHELL = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", YAML)
def test_a_rule_file_of_the_page_loads(text: str, tmp_path: Path) -> None:
    loaded = load({"page.yaml": text.encode()}, folder=tmp_path, connectors=find_connectors())
    assert not [str(problem) for problem in loaded.warnings]


async def test_the_command_of_the_page_starts_the_run_of_the_page_once(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGE_SECRET", "between GitHub and us")
    async with running(pool, tmp_path, YAML[0]) as node:
        for _ in range(2):
            pasted = SHELL[1].replace("127.0.0.1:8642", f"127.0.0.1:{node.port}")
            shell = await asyncio.create_subprocess_exec("sh", "-c", pasted, stdout=-1, stderr=-1)
            answer, _ = await shell.communicate()
            assert answer.startswith(b"HTTP/1.1 202 "), answer
            assert json.loads(answer.rpartition(b"\r\n\r\n")[2]) == {"id": "72d3162e-cc78"}
        (run,) = await node.fetch("SELECT workflow, params FROM run")
        assert run["workflow"] == "build"
        assert decode_json(run["params"]) == {"repository": "acme/shop", "commit": "6dcb09b5"}
