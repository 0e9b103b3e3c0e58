"""docker-compose.yml and Dockerfile as files: what they name exists, nothing in them is left to chance."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from eventflow.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


@pytest.fixture(params=sorted(SERVICES))
def service(request: pytest.FixtureRequest) -> dict[str, Any]:
    return SERVICES[request.param]


def instructions(word: str) -> list[str]:
    joined = re.sub(r"\\\n\s*", "", DOCKERFILE)
    return [line.removeprefix(word).strip() for line in joined.splitlines() if line.startswith(word)]


def test_postgres_kafka_and_eventflow_are_there() -> None:
    assert set(SERVICES) == {"postgres", "kafka", "eventflow"}


def test_every_service_keeps_its_data_and_says_whether_it_is_well(service: dict[str, Any]) -> None:
    volumes = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["volumes"]
    assert any(mount.split(":")[0] in volumes for mount in service["volumes"])
    assert "healthcheck" in service or ("build" in service and len(instructions("HEALTHCHECK")) == 1)


def test_nothing_is_reachable_from_other_machines(service: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_images_have_a_version_and_no_registry(service: dict[str, Any]) -> None:
    if "image" in service:
        name, _, version = service["image"].rpartition(":")
        assert name
        assert version[0].isdigit()
        assert "." not in name


def test_eventflow_waits_until_the_others_are_well() -> None:
    waits = SERVICES["eventflow"]["depends_on"]
    assert waits == {name: {"condition": "service_healthy"} for name in ("postgres", "kafka")}


def test_every_setting_that_is_set_exists() -> None:
    named = set(re.findall(r"\bEVENTFLOW_[A-Z_]+", DOCKERFILE)) | {
        name for name in SERVICES["eventflow"]["environment"] if name.startswith("EVENTFLOW_")
    }
    assert named
    assert {name.removeprefix("EVENTFLOW_").lower() for name in named} <= set(Settings.model_fields)


def test_both_passwords_are_one_and_may_be_replaced() -> None:
    password = "${POSTGRES_PASSWORD:-eventflow}"
    assert SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD"] == password
    assert f":{password}@postgres:5432/" in SERVICES["eventflow"]["environment"]["EVENTFLOW_DATABASE_URL"]


def test_draining_has_more_time_than_eventflow_takes() -> None:
    seconds = int(SERVICES["eventflow"]["stop_grace_period"].removesuffix("s"))
    assert seconds > Settings.model_fields["grace"].default.total_seconds()


def test_the_image_has_only_what_the_lock_has_and_checks_its_hashes() -> None:
    commands = [command for line in instructions("RUN") for command in line.split("&&")]
    installs = [command for command in commands if re.search(r"pip (install|sync)", command)]
    assert len(installs) == 3
    for command in installs:
        assert "--require-hashes" in command or "--no-deps --no-build-isolation ." in command


def test_the_image_does_not_run_as_root() -> None:
    assert instructions("USER") == ["eventflow"]
    assert DOCKERFILE.rindex("USER") > DOCKERFILE.rindex("RUN")


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in instructions("COPY"):
        if not line.startswith("--from"):
            for name in line.split()[:-1]:
                assert (ROOT / name).exists()
                assert f"!{name}" in ignored
