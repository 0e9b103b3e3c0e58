"""Is a request authentic? One verifier for each `scheme:`.

    hmac        RFC 2104 over the body, hex or base64 in one header
    github      the same with GitHub's header: docs.github.com, "Validating webhook deliveries"
    standard    Standard Webhooks 1.0.0, symmetric signatures (v1): github.com/standard-webhooks
    stripe      the Stripe-Signature header: docs.stripe.com, "Resolve webhook signature verification errors"

Whatever is missing or malformed is not authentic, and no error. Digests are compared in constant time, and
all keys with all signatures, so that the time does not tell which one fits. No line here may compare with an
operator; a test looks.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from connectors.webhook.config import (
    GithubVerification,
    HmacVerification,
    StandardVerification,
    StripeVerification,
    Verification,
)
from connectors.webhook.keys import Keys, standard_key

Headers = Mapping[bytes, bytes]

Encoding = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]

_HEX: Encoding = (binascii.hexlify, bytes.lower)
_BASE64: Encoding = (base64.b64encode, bytes)
_ENCODINGS: Mapping[str, Encoding] = {"hex": _HEX, "base64": _BASE64}
"""How a digest is written, and how what was sent is made comparable.

Digests are compared as text: decoded, a signature would have several texts that are as good.
"""
_SECONDS = re.compile(rb"[0-9]{1,12}")
_MOVED = re.compile(rb"\.[0-9]{9}")
"""In an id: a timestamp that was signed as such, and the body's beginning has taken its place."""


class Verifier(Protocol):
    """Verifies requests as one `verify:` block says."""

    header: bytes
    """Where the signature stands, in lower case."""
    keys: Keys

    def authentic(self, headers: Headers, body: bytes) -> bool:
        """Whether one of the keys signed this request, and now. Raises what resolving a secret raises."""
        ...


def make_verifier(
    config: Verification, secret: Callable[[str], str], now: Callable[[], datetime]
) -> Verifier:
    """The verifier of `config`. `now` is the database's time, aware."""
    match config:
        case HmacVerification():
            return HmacVerifier(config, Keys(config.secrets, secret))
        case GithubVerification():
            words = HmacVerification(
                scheme="hmac", header="X-Hub-Signature-256", prefix="sha256=", secrets=config.secrets
            )
            return HmacVerifier(words, Keys(config.secrets, secret))
        case StandardVerification():
            return StandardVerifier(Keys(config.secrets, secret, standard_key), config.tolerance, now)
        case StripeVerification():
            return StripeVerifier(Keys(config.secrets, secret), config.tolerance, now)


class HmacVerifier:
    """A digest of the body in a header, behind a prefix."""

    def __init__(self, config: HmacVerification, keys: Keys) -> None:
        self.header = config.header.lower().encode()
        self.keys = keys
        self._prefix = config.prefix.encode()
        self._algorithm = config.algorithm
        self._encode, self._read = _ENCODINGS[config.encoding]

    def authentic(self, headers: Headers, body: bytes) -> bool:
        keys, signature = self.keys.current(), headers.get(self.header)
        if signature is None or not signature.startswith(self._prefix):
            return False
        given = self._read(signature[len(self._prefix) :])
        return _one_fits(keys, body, [given], self._algorithm, self._encode)


class StandardVerifier:
    """Signatures of `id.timestamp.body`, separated by spaces. Those of other versions (v1a) do not count."""

    header = b"webhook-signature"

    def __init__(self, keys: Keys, tolerance: timedelta, now: Callable[[], datetime]) -> None:
        self.keys = keys
        self._tolerance = tolerance
        self._now = now

    def authentic(self, headers: Headers, body: bytes) -> bool:
        keys = self.keys.current()
        id_, stamp = headers.get(b"webhook-id"), headers.get(b"webhook-timestamp")
        if not id_ or stamp is None or _MOVED.search(id_):
            return False
        listed = headers.get(self.header, b"").split(b" ")
        given = [one[3:] for one in listed if one.startswith(b"v1,")]
        fits = _one_fits(keys, b"%s.%s.%s" % (id_, stamp, body), given, "sha256", base64.b64encode)
        return fits and _timely(stamp, self._tolerance, self._now())


class StripeVerifier:
    """`t=SECONDS,v1=HEX,v1=HEX`: signatures of `t.body`. Those of other versions (v0) do not count."""

    header = b"stripe-signature"

    def __init__(self, keys: Keys, tolerance: timedelta, now: Callable[[], datetime]) -> None:
        self.keys = keys
        self._tolerance = tolerance
        self._now = now

    def authentic(self, headers: Headers, body: bytes) -> bool:
        keys = self.keys.current()
        parts = [part.strip() for part in headers.get(self.header, b"").split(b",")]
        stamps = [part[2:] for part in parts if part.startswith(b"t=")]
        if not stamps:
            return False
        given = [part[3:].lower() for part in parts if part.startswith(b"v1=")]
        fits = _one_fits(keys, b"%s.%s" % (stamps[0], body), given, "sha256", binascii.hexlify)
        return fits and _timely(stamps[0], self._tolerance, self._now())


def _one_fits(
    keys: Sequence[bytes],
    content: bytes,
    given: Sequence[bytes],
    algorithm: str,
    encode: Callable[[bytes], bytes],
) -> bool:
    found = False
    for key in keys:
        signature = encode(hmac.digest(key, content, algorithm))
        for one in given:
            found |= hmac.compare_digest(signature, one)
    return found


def _timely(stamp: bytes, tolerance: timedelta, now: datetime) -> bool:
    """Whether `stamp` (seconds since 1970) is at most `tolerance` away from now, before or after."""
    if not _SECONDS.fullmatch(stamp):
        return False
    return abs(now.timestamp() - int(stamp)) <= tolerance.total_seconds()
