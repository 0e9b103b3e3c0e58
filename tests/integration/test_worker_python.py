"""Python tasks: what they get, what they give back, what of theirs goes wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.integration.conftest import task

if TYPE_CHECKING:
    from tests.integration.conftest import Stage


async def test_an_async_function_a_plain_one_and_a_command_give_results(stage: Stage) -> None:
    stage.code("""
        async def waits(n):
            return {"n": n + 1}

        def computes(n):
            return {"n": n + 2}
    """)
    number = {"n": "${params.n}"}
    stage.workflow(task("task", "jobs:waits", number), name="one", params={"n": "int"})
    stage.workflow(task("task", "jobs:computes", number), name="two", params={"n": "int"})
    stage.workflow(task("task", ["sh", "-c", "echo reading; echo '{\"n\": 4}'"]), name="three")
    async with stage.worker():
        runs = [
            await stage.start(name, {"n": 1} if name != "three" else {}) for name in ("one", "two", "three")
        ]
        assert [await stage.result(run) for run in runs] == [{"n": 2}, {"n": 3}, {"n": 4}]
        assert await stage.log(runs[2]) == 'reading\n{"n": 4}\n'
