"""What the environment may say, and what is said of what it may not."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from eventflow.errors import UsageError
from eventflow.settings import Settings, load_settings, unknown_variables

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"EVENTFLOW_{name.upper()}", raising=False)


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    settings = load_settings()
    assert settings.address == ("127.0.0.1", 8642)
    assert not settings.http_explicit
    assert settings.data == Path("/data/eventflow")
    assert (settings.lease, settings.grace) == (timedelta(seconds=30), timedelta(seconds=30))


@pytest.mark.parametrize(
    ("text", "address"),
    [("0.0.0.0:80", ("0.0.0.0", 80)), (":80", ("0.0.0.0", 80)), ("[::1]:8000", ("::1", 8000))],
)
def test_an_address_asked_for_by_name(
    text: str, address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTFLOW_HTTP", text)
    assert load_settings().address == address
    assert load_settings().http_explicit


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTFLOW_HTTP", "")
    monkeypatch.setenv("EVENTFLOW_DATABASE_URL", "")
    assert not load_settings().http_explicit
    assert load_settings().database_url is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("EVENTFLOW_LEASE", "30"),
        ("EVENTFLOW_LEASE", "0s"),
        ("EVENTFLOW_HTTP", "8642"),
        ("EVENTFLOW_HTTP", "h:99999"),
        ("EVENTFLOW_LOG", "xml"),
        ("EVENTFLOW_ALLOW_UNSAFE_DURABILITY", "perhaps"),
    ],
)
def test_what_cannot_be_used_is_named_with_what_it_takes(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(UsageError, match=rf"{name}: cannot use '{text}'; it takes "):
        load_settings()


def test_every_wrong_variable_is_named_and_no_password_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTFLOW_DATABASE_URL", "mysql://me:hidden@db/flows")
    monkeypatch.setenv("EVENTFLOW_GRACE", "soon")
    with pytest.raises(UsageError) as caught:
        load_settings()
    assert "EVENTFLOW_DATABASE_URL" in str(caught.value)
    assert "EVENTFLOW_GRACE" in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_misspelt_variable_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTFLOW_DATABSE_URL", "postgresql://db/flows")
    monkeypatch.setenv("EVENTFLOW_RUN_ID", "set by a shell task")
    monkeypatch.setenv("EVENTFLOW_TEST_KAFKA", "for the tests")
    assert unknown_variables() == {"EVENTFLOW_DATABSE_URL": "EVENTFLOW_DATABASE_URL"}


def test_the_page_names_every_setting() -> None:
    page = PAGE.read_text()
    assert [name for name in Settings.model_fields if f"`EVENTFLOW_{name.upper()}`" not in page] == []
