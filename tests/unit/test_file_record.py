"""What a look at a file means beside what the ledger knows: one path over several looks."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from connectors.file.fingerprint import FileMark, Signature, Standing, decode, encode, signature_of
from connectors.file.look import Look, Seen
from connectors.file.pattern import PathPattern
from connectors.file.record import Recorder
from eventflow.event import Broken, Event
from eventflow.source import Known

PATH = b"a.csv"


def whole(content: str, *, inode: int = 1, mtime: int = 10) -> Look:
    return Look(PATH, Seen.whole, Signature(len(content), mtime, inode, mtime), content.encode())


def by_stat(size: int, mtime: int) -> Look:
    return Look(PATH, Seen.whole, Signature(size, mtime, 1, mtime))


def broken(mtime: int, *, ctime: int = 0) -> Look:
    return Look(PATH, Seen.broken, Signature(3, mtime, 1, ctime or mtime), reason="no")


GONE = Look(PATH, Seen.gone)
LINKED_OUT = Look(PATH, Seen.refused)
NOTHING = ""


@pytest.mark.parametrize(
    ("looks", "says"),
    [
        ([whole("a"), whole("a")], ["arrived 1", NOTHING]),
        ([whole("a"), whole("a", mtime=11, inode=2)], ["arrived 1", NOTHING]),
        ([whole("a"), whole("b"), whole("a")], ["arrived 1", "changed 2", "changed 3"]),
        ([whole("a"), GONE, whole("a")], ["arrived 1", "removed 2", "arrived 3"]),
        ([whole("a"), GONE, GONE], ["arrived 1", "removed 2", NOTHING]),
        ([whole("a"), LINKED_OUT, whole("b")], ["arrived 1", "removed 2", "arrived 3"]),
        ([GONE, LINKED_OUT], [NOTHING, NOTHING]),
        ([by_stat(5, 10), by_stat(5, 10), by_stat(5, 11)], ["arrived 1", NOTHING, "changed 2"]),
        ([by_stat(5, 10), whole("abcde", mtime=10)], ["arrived 1", NOTHING]),
        ([broken(1), broken(1), broken(2)], ["broken", NOTHING, "broken"]),
        ([broken(1), broken(1, ctime=9)], ["broken", NOTHING]),
        ([broken(1), whole("a")], ["broken", "arrived 1"]),
        ([whole("a"), broken(1), whole("a")], ["arrived 1", "broken", NOTHING]),
        ([whole("a"), broken(1), whole("b")], ["arrived 1", "broken", "changed 2"]),
        ([broken(1), GONE, whole("a")], ["broken", NOTHING, "arrived 1"]),
        ([broken(1), GONE, broken(1)], ["broken", NOTHING, "broken"]),
    ],
)
def test_looks_become_records(looks: Sequence[Look], says: Sequence[str]) -> None:
    recorder = Recorder("files", b"/landing", PathPattern("**"), removals=True)
    known: Known | None = None
    said: list[str] = []
    for look in looks:
        outcome = recorder.decide(look, known)
        record = outcome.record
        if isinstance(record, Event):
            assert record.id == f"a.csv#{record.data['generation']}"
            said.append(f"{record.type.removeprefix('file.')} {record.data['generation']}")
        else:
            said.append("broken" if isinstance(record, Broken) else NOTHING)
        if outcome.mark:
            assert outcome.mark.generation == (known.generation if known else 0) + 1
            known = Known(outcome.mark.fingerprint, outcome.mark.generation, outcome.mark.present)
    assert said == says


@pytest.mark.parametrize(
    ("mtime", "modified"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1_000_000_000, "1969-12-31T23:59:59Z"),
        (4_102_444_800_000_000_000, "2100-01-01T00:00:00Z"),
        (2**63 - 2, "2262-04-11T23:47:16.854775Z"),
        (2**63 - 1, None),
    ],
)
def test_any_time_of_modification_can_be_said(mtime: int, modified: str | None) -> None:
    recorder = Recorder("files", b"/landing", PathPattern("**"), removals=False)
    record = recorder.decide(whole("a", mtime=mtime), None).record
    assert isinstance(record, Event)
    assert record.data["modified"] == modified


@pytest.mark.parametrize("nanoseconds", [-(10**26), -1, 0, 2**63, 10**26])
def test_a_time_of_any_year_fits_the_ledger(nanoseconds: int) -> None:
    """A file system of 64-bit seconds holds such years; few of those that tests run on do."""
    status: Any = SimpleNamespace(st_size=1, st_mtime_ns=nanoseconds, st_ino=2, st_ctime_ns=3)
    mark = FileMark(Standing.handed_over, 1, signature_of(status))
    assert decode(encode(mark)) == mark
