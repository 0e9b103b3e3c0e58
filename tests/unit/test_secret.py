"""Secrets from files: what is in doubt is said, not shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventflow.secret import secret


@pytest.mark.parametrize("text", ["\ufeffabc", "abc\n\n", "abc ", "\tabc"])
def test_white_space_around_a_secret_is_part_of_it_and_said_once(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "key"
    path.write_text(text, newline="")
    monkeypatch.setenv("KEY_FILE", str(path))
    assert secret("KEY") == secret("KEY") != "abc"
    said = capsys.readouterr().out
    assert (said.count("secret_in_doubt"), "abc" in said) == (1, False)


def test_one_newline_at_the_end_is_no_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text("abc\n")
    monkeypatch.setenv("KEY_FILE", str(tmp_path / "key"))
    assert (secret("KEY"), capsys.readouterr().out) == ("abc", "")
