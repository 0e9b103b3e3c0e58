"""`ctx.open`: the file of the event, or an error that names both fingerprints. What of a task is kept."""

from __future__ import annotations

import hashlib
import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from eventflow.errors import TaskError
from eventflow.event import decode_json
from eventflow.task import Context, TriggeringEvent, describe_error, encode_result


def context(data: Any) -> Context:
    event = TriggeringEvent(source="landing", id="a#1", type="file.arrived", data=data)
    return Context("run", "flow", "task", 1, {}, event, logging.getLogger("t"))


def described(file: Path, *, hashed: bool) -> dict[str, Any]:
    stat = file.stat()
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=stat.st_mtime_ns // 1000)
    return {
        "path": str(file), "size": stat.st_size, "modified": moment.isoformat().replace("+00:00", "Z"),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest() if hashed else None,
    }  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.csv"
    path.write_text("a,b\né,2\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("hashed", [True, False])
def test_the_file_of_the_event_opens_as_text_and_as_bytes(file: Path, hashed: bool) -> None:
    ctx = context(described(file, hashed=hashed))
    with ctx.open(file) as text, ctx.open(str(file), "rb") as raw:
        assert text.read() == "a,b\né,2\n"
        assert raw.read() == file.read_bytes()


def test_other_bytes_of_the_same_size_and_time_are_noticed(file: Path) -> None:
    data, stat = described(file, hashed=True), file.stat()
    file.write_text("a;b\né,2\n", encoding="utf-8")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(TaskError, match="sha256") as raised:
        context(data).open(file)
    assert data["sha256"] in str(raised.value)
    assert hashlib.sha256(file.read_bytes()).hexdigest() in str(raised.value)


def test_without_a_hash_another_time_of_change_is_noticed(file: Path) -> None:
    data = described(file, hashed=False)
    os.utime(file, ns=(0, 1_700_000_000_123_456_789))
    with pytest.raises(TaskError, match=r"modified .* then, 2023-11-14T22:13:20.123456Z now"):
        context(data).open(file)


def test_another_size_is_named(file: Path) -> None:
    data = described(file, hashed=True)
    file.write_text("")
    with pytest.raises(TaskError, match="size 9 then, 0 now"):
        context(data).open(file)


def test_only_the_file_of_the_event_and_only_for_reading(file: Path) -> None:
    ctx = context(described(file, hashed=True))
    with pytest.raises(TaskError, match="describes no such file"):
        ctx.open(file.parent / "b.csv")
    with pytest.raises(TaskError, match="not for reading"):
        ctx.open(file, "w")
    with pytest.raises(TaskError, match="describes no such file"):
        context(None).open(file)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (nested(65), "deeper than 64"),
        (nested(900), "deeper than 64"),  # encoders go on where decoders give up
        ("a\0b", "a NUL character"),
        (10**200, "more than 100 digits"),
        ("\ud800", "surrogates"),
        (float("nan"), "NaN"),
    ],
)
def test_a_result_is_what_an_event_may_hold(result: Any, told: str) -> None:
    with pytest.raises(TaskError, match=f"the result .*{told}"):
        encode_result(result)


def test_a_result_at_the_limits_is_kept() -> None:
    for result in (nested(64), 10**99, None, {"a": [1.5, True]}):
        assert decode_json(encode_result(result)) == result


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_an_error_is_described_whatever_it_says() -> None:
    assert describe_error(ValueError("a\0b \ud83d é")) == "ValueError: a\\0b \\ud83d é"
    assert describe_error(TaskError("\0")) == "\\0"
    assert len(describe_error(ValueError("x" * 100_000))) < 5_000
    assert describe_error(Mute()) == "Mute: (its message cannot be made: RuntimeError)"


def test_an_error_keeps_what_it_was_raised_from() -> None:
    def load() -> None:
        try:
            int("x")
        except ValueError as error:
            raise RuntimeError("cannot load") from error

    with pytest.raises(RuntimeError) as raised:
        load()
    first, *others = describe_error(raised.value).split("\ncaused by ")
    assert first.startswith("RuntimeError: cannot load\n  File ")
    assert [other.partition("\n")[0] for other in others] == [
        "ValueError: invalid literal for int() with base 10: 'x'"
    ]
    hidden = RuntimeError("alone")
    hidden.__context__, hidden.__suppress_context__ = ValueError("no word of this"), True
    assert describe_error(hidden) == "RuntimeError: alone"
