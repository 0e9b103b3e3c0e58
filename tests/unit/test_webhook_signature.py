"""Which requests are authentic."""

from __future__ import annotations

import ast
import base64
import hashlib
import hmac
import inspect
from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connectors.webhook import signature as module
from connectors.webhook.config import HmacVerification
from connectors.webhook.signature import KEYS_AGE, HmacVerifier

BODY = b'{"a": 1}'


def verifier(secrets: Mapping[str, str] | None = None, **words: object) -> HmacVerifier:
    config = {"scheme": "hmac", "header": "X-Signature", "secrets": ["old", "${secret.NEW}"]} | words
    return HmacVerifier(HmacVerification.model_validate(config), (secrets or {"NEW": "new"}).__getitem__)


def hexdigest(key: bytes, body: bytes = BODY, algorithm: str = "sha256") -> bytes:
    return hmac.new(key, body, algorithm).hexdigest().encode()


@pytest.mark.parametrize("key", [b"old", b"new"])
def test_each_of_several_secrets_may_have_signed(key: bytes) -> None:
    assert verifier().authentic(hexdigest(key), BODY)
    assert verifier().authentic(hexdigest(key).upper(), BODY)


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha384", "sha512"])
def test_each_algorithm_in_base64_after_a_prefix(algorithm: str) -> None:
    checks = verifier(algorithm=algorithm, encoding="base64", prefix="v1,")
    signed = base64.b64encode(hmac.digest(b"old", BODY, algorithm))
    assert checks.authentic(b"v1," + signed, BODY)
    assert not checks.authentic(signed, BODY)
    assert not checks.authentic(b"v2," + signed, BODY)


def test_another_body_key_or_algorithm_is_not_authentic() -> None:
    assert not verifier().authentic(hexdigest(b"old"), BODY + b" ")
    assert not verifier().authentic(hexdigest(b"other"), BODY)
    assert not verifier().authentic(hexdigest(b"old", algorithm="sha1"), BODY)
    assert not verifier().authentic(hashlib.sha256(BODY).hexdigest().encode(), BODY)


@given(signature=st.none() | st.binary(max_size=200), encoding=st.sampled_from(["hex", "base64"]))
@example(signature=b"\xff" * 64, encoding="hex")
@example(signature=b"=", encoding="base64")
@example(signature=b"", encoding="base64")
@example(signature=hexdigest(b"old")[:-1], encoding="hex")
@example(signature="é".encode() * 32, encoding="hex")
def test_a_malformed_signature_is_false_and_nothing_else(signature: bytes | None, encoding: str) -> None:
    assert verifier(encoding=encoding).authentic(signature, BODY) is False


def test_a_rotated_secret_counts_without_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"NEW": "new"}
    checks = verifier(secrets)
    assert checks.authentic(hexdigest(b"new"), BODY)
    secrets["NEW"] = "newer"
    now = module.time.monotonic() + KEYS_AGE
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    assert not checks.authentic(hexdigest(b"new"), BODY)
    assert checks.authentic(hexdigest(b"newer"), BODY)


def test_an_empty_secret_is_refused_and_not_used_as_a_key() -> None:
    with pytest.raises(LookupError, match="is empty"):
        verifier({"NEW": ""}).authentic(hexdigest(b""), BODY)


def test_no_digest_is_compared_with_an_operator() -> None:
    tree = ast.parse(inspect.getsource(module))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Eq | ast.NotEq)]
