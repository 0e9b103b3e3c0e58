"""`make planted`: every bug planted at the sources is put into a copy of the tree, and must be noticed.

`make planted ROW="f1 k5"` runs some rows; `--list` names them; `--write-page` makes the tables of
docs/failures.md anew. Exits 1 where a test is not green on the clean copy and red on the other.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.planted import judge, page
from tests.planted.judge import Verdict
from tests.planted.rows import Row, complaints, read


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.planted", description=__doc__)
    parser.add_argument("rows", nargs="*", help="such as f1 k5; all of them where none is named")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--write-page", action="store_true")
    asked = parser.parse_args()
    rows = read()
    unknown = set(asked.rows) - {row.name for row in rows}
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    if asked.write_page:
        page.PAGE.write_text(page.filled_in(page.PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")
        return 0
    if asked.list:
        for row in rows:
            print(f"{row.name:5s} {row.title}: {row.patch or row.reason}")
        return 0
    for complaint in complaints():
        print(complaint, file=sys.stderr)
    chosen = [row for row in rows if row.tests and (not asked.rows or row.name in asked.rows)]
    with tempfile.TemporaryDirectory(prefix="planted-clean-") as folder:
        copy = judge.copy_tree(Path(folder, "tree"))
        clean, said = judge.run((test for row in chosen for test in row.tests), copy)
    if set(clean.values()) != {Verdict.green}:
        print(said, file=sys.stderr, flush=True)
    return 1 if sum(not _noticed(row, clean) for row in chosen) else 0


def _noticed(row: Row, verdicts: Mapping[str, Verdict]) -> bool:
    began = time.monotonic()
    clean = judge.together(row, verdicts, Verdict.green)
    planted, said = _planted(row) if clean is Verdict.green else (None, "")
    well = planted is Verdict.red
    took = time.monotonic() - began
    verdict = "noticed" if well else "NOT NOTICED" if planted else "CANNOT TELL"
    print(f"{row.name:5s} clean {clean:8s} planted {planted or '-':14s} {took:4.0f} s  {verdict}", flush=True)
    if planted and not well:
        print(said, file=sys.stderr, flush=True)
    return well


def _planted(row: Row) -> tuple[Verdict, str]:
    """What the row's tests say with its bug in the tree."""
    with tempfile.TemporaryDirectory(prefix=f"planted-{row.name}-") as folder:
        copy = judge.copy_tree(Path(folder, "tree"))
        if objection := judge.plant(row, copy):
            return Verdict.no_fit, objection
        verdicts, said = judge.run(row.tests, copy)
        return judge.together(row, verdicts, Verdict.red), said


if __name__ == "__main__":
    sys.exit(main())
