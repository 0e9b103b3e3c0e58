"""Rule sets by revision, and the folders their code is unpacked to."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventflow.errors import UsageError
from eventflow.revisions import Revisions
from eventflow.rulefile.connectors import find_connectors
from eventflow.store import rulesets
from eventflow.store.failures import is_disconnect
from eventflow.store.pool import Pool


async def applied(pool: Pool, code_root: Path) -> Revisions:
    async with pool.acquire() as conn:
        await rulesets.apply(
            conn, {"jobs.py": b"x = 1", "sub/more.py": b""}, folder=Path("/"), origin="test",
            code_version="0", take_over=True,
        )  # fmt: skip
    return Revisions(pool, find_connectors(), code_root)


async def test_a_revision_runs_from_exactly_its_own_files(pool: Pool, tmp_path: Path) -> None:
    revisions = await applied(pool, tmp_path / "code")
    folder = await revisions.code_folder(1)
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*.py")) == ["jobs.py", "sub/more.py"]
    assert await revisions.code_folder(1) == folder
    assert [p.name for p in (tmp_path / "code").iterdir()] == [folder.name]


async def test_code_that_cannot_be_unpacked_is_no_lost_connection(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "code").write_text("a file where the folder should be")
    revisions = await applied(pool, tmp_path / "code")
    with pytest.raises(UsageError, match="revision 1") as caught:
        await revisions.code_folder(1)
    assert not is_disconnect(caught.value)
