"""The words of a webhook's block."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from connectors.webhook.config import HmacVerification, WebhookConfig

HMAC = {"scheme": "hmac", "header": "X-Signature", "secrets": ["${secret.GH}"]}


def test_verify_has_to_be_written_out() -> None:
    with pytest.raises(ValidationError, match="Field required"):
        WebhookConfig.model_validate({})
    assert WebhookConfig.model_validate({"verify": "none"}).verify is None


@pytest.mark.parametrize("verify", [None, "", "hmac", False, [], 0])
def test_nothing_else_reads_as_no_verification(verify: Any) -> None:
    with pytest.raises(ValidationError, match="verify is `none` or a map"):
        WebhookConfig.model_validate({"verify": verify})


def test_another_scheme_is_not_supported_yet() -> None:
    with pytest.raises(ValidationError, match="not supported yet") as caught:
        WebhookConfig.model_validate({"verify": {"scheme": "slack", "secrets": ["x"]}})
    assert ("verify", "hmac", "scheme") in [error["loc"] for error in caught.value.errors()]


def test_defaults_are_those_of_the_specification() -> None:
    config = WebhookConfig.model_validate({"verify": HMAC})
    assert isinstance(config.verify, HmacVerification)
    assert (config.verify.prefix, config.verify.algorithm, config.verify.encoding) == ("", "sha256", "hex")
    assert config.limit == 1024 * 1024
    assert (config.dedupe.by, config.dedupe.within) == ("id", timedelta(days=7))


def test_dedupe_is_a_duration_or_says_by_body() -> None:
    config = WebhookConfig.model_validate({"verify": "none", "dedupe": "12h"})
    assert (config.dedupe.by, config.dedupe.within) == ("id", timedelta(hours=12))
    config = WebhookConfig.model_validate({"verify": "none", "dedupe": {"by": "body", "within": "10m"}})
    assert (config.dedupe.by, config.dedupe.within) == ("body", timedelta(minutes=10))


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("limit", "1MB"), ("limit", "0KiB"), ("limit", "-1MiB"), ("limit", "2GiB"), ("limit", True),
        ("limit", "x"), ("dedupe", "7"), ("dedupe", "0s"), ("dedupe", "7 d"), ("dedupe", "999999999d"),
        ("dedupe", {"by": "body"}), ("dedupe", {"by": "header", "within": "1h"}), ("id", ""), ("id", 5),
        ("colour", "red"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused(word: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        WebhookConfig.model_validate({"verify": "none", word: value})


@pytest.mark.parametrize(
    "change",
    [{"secrets": []}, {"secrets": [""]}, {"header": "X Signature"}, {"header": ""}, {"algorithm": "md5"},
     {"encoding": "hexx"}, {"tolerance": "5m"}],
)  # fmt: skip
def test_a_weak_or_misspelt_verification_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        WebhookConfig.model_validate({"verify": HMAC | change})


def test_the_schema_describes_durations_and_sizes_as_text() -> None:
    properties = WebhookConfig.model_json_schema()["properties"]
    assert properties["limit"]["type"] == "string"
