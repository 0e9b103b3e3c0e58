"""The secrets that senders sign with, as keys."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Sequence

import structlog

from eventflow.errors import SourceUnavailable
from eventflow.holes import SECRET_HOLE, fill

log = structlog.get_logger()

KEYS_AGE = 10.0
"""Seconds after which secrets are resolved again, so that a rotated one counts without a restart."""

_WHSEC = "whsec_"


class Keys:
    """The keys of one `verify:` block. Holds them for `KEYS_AGE` seconds."""

    def __init__(
        self,
        texts: Sequence[str],
        secret: Callable[[str], str],
        decode: Callable[[str], bytes] = str.encode,
    ) -> None:
        """`texts` are the words of `secrets:`; `decode` makes a key of each, once resolved, or ValueError."""
        self._texts = texts
        self._secret = secret
        self._decode = decode
        self._keys: Sequence[bytes] = ()
        self._resolved = -KEYS_AGE
        self._passed_over: Sequence[str] = ()

    def current(self) -> Sequence[bytes]:
        """The keys that there are, none of them empty: a secret may be listed before every node has it.

        Those passed over are logged, named and not shown. Raises `SourceUnavailable` where there is none.
        """
        now = time.monotonic()
        if now - self._resolved >= KEYS_AGE:
            self._keys = self._resolve_all()
            self._resolved = now
        return self._keys

    @property
    def incomplete(self) -> bool:
        """Whether a secret was passed over: what the others did not sign may be signed by that one."""
        return bool(self._passed_over)

    def _resolve_all(self) -> Sequence[bytes]:
        keys, errors = list[bytes](), list[str]()
        for text in self._texts:
            try:
                keys.append(self._resolve(text))
            except SourceUnavailable as error:
                errors.append(str(error))
        if not keys:
            raise SourceUnavailable("; ".join(errors))
        if set(errors).difference(self._passed_over):
            log.warning("secret_passed_over", errors=errors)
        self._passed_over = errors
        return keys

    def _resolve(self, text: str) -> bytes:
        name = SECRET_HOLE.search(text)
        shown = f"the secret {name[1]}" if name else "a secret that is written out"
        try:
            key = self._decode(fill(text, self._secret))
        except (ValueError, LookupError, OSError) as error:
            raise SourceUnavailable(f"{shown}: {error}") from None
        if not key:
            raise SourceUnavailable(f"{shown} is empty: anybody could sign with it")
        return key


def standard_key(text: str) -> bytes:
    """The key in `whsec_` and base64, padded or not. Raises ValueError, without the text."""
    encoded = text.removeprefix(_WHSEC)
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"it is not base64 after {_WHSEC!r}, as Standard Webhooks writes secrets") from None
