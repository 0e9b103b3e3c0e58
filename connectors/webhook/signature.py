"""Is a request authentic? Generic HMAC (RFC 2104) over the body, hex or base64 in one header."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from connectors.webhook.config import HmacVerification

_SECRET = re.compile(r"\$\{\s*secret\.([A-Za-z_][A-Za-z0-9_]*)\s*\}")
_DECODERS: Mapping[str, Callable[[str], bytes]] = {
    "hex": bytes.fromhex,
    "base64": partial(base64.b64decode, validate=True),
}
KEYS_AGE = 10.0
"""Seconds after which secrets are resolved again, so that a rotated one counts without a restart."""


class HmacVerifier:
    """Verifies signatures as one `verify:` block says. Holds the resolved keys for `KEYS_AGE` seconds."""

    def __init__(self, config: HmacVerification, secret: Callable[[str], str]) -> None:
        self.header = config.header.lower().encode()
        self._prefix = config.prefix.encode()
        self._algorithm = config.algorithm
        self._decode = _DECODERS[config.encoding]
        self._texts = config.secrets
        self._secret = secret
        self._keys: Sequence[bytes] = ()
        self._resolved = -KEYS_AGE

    def authentic(self, signature: bytes | None, body: bytes) -> bool:
        """Whether one of the secrets made `signature` (the header's value) of `body`.

        False for whatever is missing or malformed. Compares in constant time.
        Raises what resolving a secret raises.
        """
        keys = self._current_keys()
        if signature is None or not signature.startswith(self._prefix):
            return False
        try:
            given = self._decode(signature[len(self._prefix) :].decode("ascii"))
        except (ValueError, binascii.Error):
            return False
        found = False
        for key in keys:  # all of them, so that the time does not tell which one fits
            found |= hmac.compare_digest(hmac.digest(key, body, self._algorithm), given)
        return found

    def _current_keys(self) -> Sequence[bytes]:
        now = time.monotonic()
        if now - self._resolved >= KEYS_AGE:
            self._keys = [self._resolve(text) for text in self._texts]
            self._resolved = now
        return self._keys

    def _resolve(self, text: str) -> bytes:
        key = _SECRET.sub(lambda found: self._secret(found[1]), text).encode()
        if not key:
            raise LookupError(f"the secret {text} is empty: anybody could sign with it")
        return key
