"""Which requests are authentic."""

from __future__ import annotations

import ast
import base64
import hashlib
import hmac
import inspect
import random
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import ModuleType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from connectors.webhook import keys as keys_module
from connectors.webhook import signature as module
from connectors.webhook.config import WebhookConfig
from connectors.webhook.keys import KEYS_AGE
from connectors.webhook.signature import Verifier, make_verifier
from eventflow.errors import SourceUnavailable

BODY = b'{"a": 1}'
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def make(verify: Mapping[str, object], secrets: Mapping[str, str] = {}, now: datetime = NOW) -> Verifier:
    config = WebhookConfig.model_validate({"verify": verify}).verify
    assert config is not None
    return make_verifier(config, secrets.__getitem__, lambda: now)


class Hmac:
    """A verifier of `scheme: hmac`, asked with its one header."""

    def __init__(self, secrets: Mapping[str, str] | None = None, **words: object) -> None:
        config = {"scheme": "hmac", "header": "X-Signature", "secrets": ["old", "${secret.NEW}"]} | words
        self._made = make(config, {"NEW": "new"} if secrets is None else secrets)

    def authentic(self, signature: bytes | None, body: bytes) -> bool:
        return self._made.authentic({} if signature is None else {b"x-signature": signature}, body)


verifier = Hmac


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
    now = keys_module.time.monotonic() + KEYS_AGE
    monkeypatch.setattr(keys_module.time, "monotonic", lambda: now)
    assert not checks.authentic(hexdigest(b"new"), BODY)
    assert checks.authentic(hexdigest(b"newer"), BODY)


def test_an_empty_secret_is_refused_and_not_used_as_a_key() -> None:
    with pytest.raises(SourceUnavailable, match="the secret NEW is empty"):
        make({"scheme": "github", "secrets": ["${secret.NEW}"]}, {"NEW": ""}).keys.current()
    assert not verifier({"NEW": ""}).authentic(hexdigest(b""), BODY)


def test_a_secret_that_is_not_set_yet_is_passed_over_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    checks = verifier({})
    assert checks.authentic(hexdigest(b"old"), BODY)
    assert not checks.authentic(hexdigest(b"new"), BODY)
    said = capsys.readouterr().out
    assert (said.count("secret_passed_over"), said.count("the secret NEW")) == (1, 1)


@pytest.mark.parametrize("module", [module, keys_module])
def test_no_digest_is_compared_with_an_operator(module: ModuleType) -> None:
    """W5: `==` stops at the first byte that differs, and its time tells how far a guess is right."""
    source = inspect.getsource(module)
    tree = ast.parse(source)
    compared = [type(op) for node in ast.walk(tree) if isinstance(node, ast.Compare) for op in node.ops]
    assert not {ast.Eq, ast.NotEq, ast.In, ast.NotIn} & set(compared)
    assert module is keys_module or source.count("hmac.compare_digest(") == 1


def test_every_key_is_tried_with_every_signature_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """W5: stopping at the first that fits would tell which of the secrets it is."""
    compared: list[bytes] = []

    def noting(a: bytes, b: bytes) -> bool:
        compared.append(b)
        return a == b

    checks = make({"scheme": "standard", "secrets": [whsec(b"one"), whsec(b"two")]})
    monkeypatch.setattr(module.hmac, "compare_digest", noting)
    for order in ([b"one", b"two"], [b"two", b"one"], [b"no", b"one"]):
        compared.clear()
        assert checks.authentic(standard(order), BODY)
        assert len(compared) == 4


# ---------------------------------------------------------------------- Standard Webhooks


def whsec(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


def standard(
    keys: Sequence[bytes], *, id_: str = "msg_1", at: datetime = NOW, body: bytes = BODY
) -> dict[bytes, bytes]:
    """Headers as the reference library signs, one signature for each key."""
    signed = [Webhook(whsec(key)).sign(id_, at, body.decode()).encode() for key in keys]
    stamp = str(int(at.timestamp())).encode()
    return {b"webhook-id": id_.encode(), b"webhook-timestamp": stamp, b"webhook-signature": b" ".join(signed)}


STANDARD = {"scheme": "standard", "secrets": ["${secret.OLD}", "${secret.NEW}"]}
TWO = {"OLD": whsec(b"k" * 24), "NEW": whsec(b"n" * 24).rstrip("=").removeprefix("whsec_")}


@pytest.mark.parametrize("key", [b"k" * 24, b"n" * 24])
def test_standard_takes_what_the_reference_library_signs(key: bytes) -> None:
    checks, headers = make(STANDARD, TWO), standard([key])
    assert checks.authentic(headers, BODY)
    assert not checks.authentic(headers, BODY + b" ")
    for name in headers:
        assert not checks.authentic({**headers, name: b"x" + headers[name]}, BODY), name
        assert not checks.authentic({other: headers[other] for other in headers if other != name}, BODY), name


def test_standard_takes_any_of_the_listed_signatures_and_passes_over_other_versions() -> None:
    checks, headers = make(STANDARD, TWO), standard([b"no", b"n" * 24])
    assert checks.authentic(headers, BODY)
    listed = headers[b"webhook-signature"]
    for more in (
        b"v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPC ",
        b"v1, ",
        b"v1,=== ",
        b"v1 ",
        b"  ",
        b"v9,a ",
    ):
        assert checks.authentic({**headers, b"webhook-signature": more + listed}, BODY), more
    only = listed.replace(b"v1,", b"v1a,")
    assert not checks.authentic({**headers, b"webhook-signature": only}, BODY)


@pytest.mark.parametrize(
    ("seconds", "good"), [(0, True), (299, True), (-299, True), (301, False), (-301, False), (86_400, False)]
)
@pytest.mark.parametrize("scheme", ["standard", "stripe"])
def test_a_signed_request_counts_within_the_tolerance_only(scheme: str, seconds: int, good: bool) -> None:
    """W3: who has captured a request cannot send it again for ever."""
    at = NOW + timedelta(seconds=seconds)
    headers = standard([b"k" * 24], at=at) if scheme == "standard" else stripe([b"old"], at=at)
    secret = whsec(b"k" * 24) if scheme == "standard" else "old"
    assert make({"scheme": scheme, "secrets": [secret]}).authentic(headers, BODY) is good
    wide = make({"scheme": scheme, "secrets": [secret], "tolerance": "2d"})
    assert wide.authentic(headers, BODY)
    assert not wide.authentic(headers, BODY + b" ")


@pytest.mark.parametrize("scheme", ["standard", "stripe"])
@pytest.mark.parametrize(
    "stamp",
    ["", "x", " 1772366400", "+1772366400", "1772366400.0", "1_772_366_400", "1e9", "-1", "9" * 40, "١٢"],
)
def test_a_timestamp_that_is_signed_and_none_is_not_authentic(scheme: str, stamp: str) -> None:
    """Who holds the key may still send nonsense: it is refused, and no error."""
    signed = stamp.encode()
    if scheme == "stripe":
        headers = {b"stripe-signature": b"t=%s,v1=%s" % (signed, hexdigest(b"old", signed + b"." + BODY))}
    else:
        digest = base64.b64encode(hmac.digest(b"old", b"msg_1.%s.%s" % (signed, BODY), "sha256"))
        headers = {
            b"webhook-id": b"msg_1",
            b"webhook-timestamp": signed,
            b"webhook-signature": b"v1," + digest,
        }
    assert ALL[scheme][0].authentic(headers, BODY) is False


def test_a_body_whose_beginning_became_the_timestamp_is_not_authentic() -> None:
    """`id.timestamp.body` reads in two ways where an id may hold a dot and digits."""
    later = int(NOW.timestamp()) + 1
    headers = standard([b"k" * 24], body=b"%d.[]" % later)
    moved = {
        **headers,
        b"webhook-id": headers[b"webhook-id"] + b"." + headers[b"webhook-timestamp"],
        b"webhook-timestamp": b"%d" % later,
    }
    checks = make({"scheme": "standard", "secrets": [whsec(b"k" * 24)]})
    assert checks.authentic(headers, b"%d.[]" % later)
    assert not checks.authentic(moved, b"[]")
    assert checks.authentic(standard([b"k" * 24], id_="shop.msg.17"), BODY)


@pytest.mark.parametrize("text", ["whsec_", "", "whsec_not it", "whsec_é", "whsec_!!!!"])
def test_a_secret_that_is_no_key_is_named_and_not_shown(text: str) -> None:
    with pytest.raises(SourceUnavailable, match="the secret K") as caught:
        make({"scheme": "standard", "secrets": ["${secret.K}"]}, {"K": text}).authentic({}, BODY)
    assert not text.removeprefix("whsec_") or text.removeprefix("whsec_") not in str(caught.value)


def test_a_secret_that_is_not_set_is_named() -> None:
    with pytest.raises(SourceUnavailable, match="K"):
        make({"scheme": "github", "secrets": ["${secret.K}"]}, {}).keys.current()


# ---------------------------------------------------------------------- GitHub, Stripe


def github(key: bytes, body: bytes = BODY) -> dict[bytes, bytes]:
    return {b"x-hub-signature-256": b"sha256=" + hexdigest(key, body)}


def test_github_takes_its_documented_example() -> None:
    """docs.github.com, "Validating webhook deliveries": secret, payload and signature to test with."""
    checks = make({"scheme": "github", "secrets": ["It's a Secret to Everybody"]})
    signature = b"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert checks.authentic({b"x-hub-signature-256": signature}, b"Hello, World!")
    assert not checks.authentic({b"x-hub-signature": signature}, b"Hello, World!")
    assert not checks.authentic({b"x-hub-signature-256": signature[7:]}, b"Hello, World!")
    assert not checks.authentic({b"x-hub-signature-256": signature}, b"Hello, World")


def stripe(keys: Sequence[bytes], at: datetime = NOW, body: bytes = BODY) -> dict[bytes, bytes]:
    stamp = b"%d" % int(at.timestamp())
    signed = b"".join(b",v1=" + hexdigest(key, stamp + b"." + body) for key in keys)
    return {b"stripe-signature": b"t=" + stamp + signed}


def test_stripe_takes_any_of_several_v1_and_no_other_version() -> None:
    checks = make({"scheme": "stripe", "secrets": ["whsec_a", "whsec_b"]})
    headers = stripe([b"no", b"whsec_b"])
    assert checks.authentic(headers, BODY)
    value = headers[b"stripe-signature"]
    for changed in (value.replace(b",v1", b", v1"), b"v0=00," + value, value + b",v1=zz", value + b",,=,x"):
        assert checks.authentic({b"stripe-signature": changed}, BODY), changed
    for changed in (
        value.replace(b"v1", b"v0"), value[2:], value.partition(b",")[2], b"", value.replace(b"t=1", b"t=2"),
        value.replace(b"t=", b"t=+"), value.replace(b"t=", b"t= "),
    ):  # fmt: skip
        assert not checks.authentic({b"stripe-signature": changed}, BODY), changed


# ---------------------------------------------------------------------- whatever is sent


ALL: Mapping[str, tuple[Verifier, Mapping[bytes, bytes]]] = {
    "hmac hex": (make({"scheme": "hmac", "header": "X-Hub-Signature-256", "prefix": "sha256=",
                       "secrets": ["old"]}), github(b"old")),
    "hmac base64": (make({"scheme": "hmac", "header": "X-S", "encoding": "base64", "secrets": ["old"]}),
                    {b"x-s": base64.b64encode(hmac.digest(b"old", BODY, "sha256"))}),
    "github": (make({"scheme": "github", "secrets": ["old"]}), github(b"old")),
    "standard": (make({"scheme": "standard", "secrets": [whsec(b"old")]}), standard([b"old"])),
    "stripe": (make({"scheme": "stripe", "secrets": ["old"]}), stripe([b"old"])),
}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
@given(data=st.data())
def test_a_malformed_header_is_not_authentic_and_no_error(name: str, data: st.DataObject) -> None:
    checks, headers = ALL[name]
    changed = data.draw(st.sampled_from(sorted(headers)))
    value = data.draw(
        st.none() | st.binary(max_size=120) | st.from_regex(rb"(t=|v1[,=]|sha256=|\d| |,){1,9}")
    )
    sent = {one: text for one, text in headers.items() if one != changed}
    if value is not None and value != headers[changed]:
        sent[changed] = value
    assert checks.authentic(sent, BODY) is False
    assert checks.authentic(headers, BODY) is True


@pytest.mark.parametrize("name", ALL)
def test_100_000_fuzzed_signatures_are_refused(name: str) -> None:
    """W4: each header with some bytes changed, cut, doubled or moved; never an error, never let in."""
    checks, headers = ALL[name]
    chance = random.Random(name)
    for _ in range(100_000 // len(ALL)):
        changed = chance.choice(list(headers))
        fuzzed = _fuzzed(headers[changed], chance)
        # Hex reads in either case, and a list may hold any nonsense beside the good signature.
        parts = re.split(rb"[ ,]+", headers[changed].lower())
        if parts[-1] not in re.split(rb"[ ,]+", fuzzed.lower()):
            assert checks.authentic({**headers, changed: fuzzed}, BODY) is False, fuzzed


def _fuzzed(value: bytes, chance: random.Random) -> bytes:
    text, at = bytearray(value), chance.randrange(len(value))
    match chance.randrange(5):
        case 0:
            text[at] ^= 1 << chance.randrange(8)
        case 1:
            del text[at : at + chance.randrange(1, 9)]
        case 2:
            text[at:at] = chance.randbytes(chance.randrange(1, 9))
        case 3:
            text[at:] = text[at:][::-1]
        case _:
            text[at : at + 1] = text[: chance.randrange(1, 40)]
    return bytes(text)
