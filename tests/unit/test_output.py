"""What commands print: nothing that a terminal would obey, and nothing cut that a person must copy."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from eventflow.cli import output

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\nb\rc\x07", r"a\x0ab\x0dc\x07"),
        ("\u202etxt.exe", r"\u202etxt.exe"),
        ("\x9b2J", r"\x9b2J"),
        ("\u2028", r"\u2028"),
        ("\U000e0041", r"\U000e0041"),
        ("\udc80", r"\udc80"),
        ("na\u00efve \u65e5\u672c", "na\u00efve \u65e5\u672c"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_instead(hostile: str, shown: str) -> None:
    assert output.visible(hostile) == shown


def test_payloads_are_text_where_they_can_be_else_hexadecimal() -> None:
    assert output.payload_text(b'{"a":\n\t1}\x1b') == '{"a":\n\t1}\\x1b'
    assert output.payload_text(b"\xff\x00") == "ff 00"
    assert output.payload_text(bytes([255] * 40)).splitlines()[1] == " ".join(["ff"] * 8)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (0.25, "0.25s"),
        (9.5, "9.5s"),
        (65, "1m 5s"),
        (3_600, "1h 0m"),
        (273_600, "3d 4h"),
        (-5, "0s"),
    ],
)
def test_durations_have_two_units(seconds: float, shown: str) -> None:
    assert output.duration(timedelta(seconds=seconds)) == shown


def test_times_carry_their_age() -> None:
    assert output.moment(NOW - timedelta(minutes=3), NOW) == "2026-01-31T11:57:00Z 3m ago"
    assert output.age(NOW + timedelta(hours=2), NOW) == "in 2h"
    assert output.age(NOW - timedelta(seconds=9.9), NOW) == "9s ago"


def test_cells_are_one_line_of_printable_text() -> None:
    cells = [
        output.cell(value, NOW) for value in (None, True, "", "a\nb", b"\x1b", {"a": [1]}, [], [1, None])
    ]
    assert cells == ["-", "yes", '""', "a\\x0ab", "\\x1b", '{"a": [1]}', "-", "1, -"]


def test_json_is_ascii_with_times_durations_bytes_and_ids(capsys: pytest.CaptureFixture[str]) -> None:
    id_ = uuid4()
    row = {
        "id": id_,
        "at": NOW,
        "took": timedelta(seconds=1.5),
        "raw": b"\xff",
        "text": b"ok",
        "name": "\u65e5\x1b",
    }
    output.print_json([row])
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert "\x1b" not in printed
    assert json.loads(printed) == [
        {
            "id": str(id_),
            "at": "2026-01-31T12:00:00Z",
            "took": 1.5,
            "raw": "ff",
            "text": "ok",
            "name": "\u65e5\x1b",
        }
    ]


def test_piped_tables_are_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(["name", "id"], [["x" * 300, "1"], ["y", "2"]])
    assert capsys.readouterr().out.splitlines() == [
        "name" + " " * 298 + "id",
        "x" * 300 + "  1",
        "y" + " " * 301 + "2",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;]*m", "", self.getvalue())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Terminal]:
    """Standard output as a terminal of so many columns."""

    def make(columns: int) -> Terminal:
        for name, value in {"COLUMNS": str(columns), "LINES": "50", "TERM": "xterm"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "stdout", made := Terminal())
        return made

    return make


COLUMNS = ("created", "workflow", "state", "error", "run_id")
ROWS = [
    {
        "created": NOW,
        "workflow": "load-orders",
        "state": "failed",
        "error": "it broke " * 9,
        "run_id": uuid4(),
    },
    {"created": NOW, "workflow": "load-orders", "state": "succeeded", "error": None, "run_id": uuid4()},
]


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
def test_ids_can_be_copied_on_any_terminal(terminal: Callable[[int], Terminal], columns: int) -> None:
    screen = terminal(columns)
    output.print_rows(ROWS, COLUMNS, as_json=False, empty="")
    lines = screen.text.splitlines()
    assert max(map(len, lines)) <= columns
    for row in ROWS:
        assert sum(str(row["run_id"]) in line for line in lines) == 1
    assert screen.text.count("broke") == 9


def test_a_wide_terminal_gets_a_table_with_ages(terminal: Callable[[int], Terminal]) -> None:
    screen = terminal(200)
    output.print_rows(ROWS, COLUMNS, as_json=False, empty="")
    assert screen.text.splitlines()[0].split() == list(COLUMNS)
    assert "2026-" not in screen.text
    assert " ago" in screen.text or "in " in screen.text


def test_an_empty_list_says_so_beside_the_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_rows([], COLUMNS, as_json=False, empty="no runs")
    assert capsys.readouterr() == ("", "no runs\n")
    output.print_rows([], COLUMNS, as_json=True, empty="no runs")
    assert capsys.readouterr().out == "[]\n"


def test_a_text_of_several_lines_stands_below_its_word(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_fields({"error": "KeyError: 'x'\n  File \x1b[2J, line 3", "state": "failed"})
    assert capsys.readouterr().out == (
        "error  \n    KeyError: 'x'\n      File \\x1b[2J, line 3\nstate  failed\n"
    )
