"""Why bytes are no JSON, in words that say so."""

from __future__ import annotations

import pytest

from eventflow.errors import Undecodable
from eventflow.event import decode_json


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"{broken", "no JSON: object keys must be strings at byte 1"),
        (b"Hello", "no JSON: invalid character at byte 0"),
        (b"{} {}", "no JSON: trailing characters at byte 4"),
        (b'{"a":', "the JSON ends too early, at byte 5"),
    ],
)
def test_text_that_is_no_json_is_called_so(raw: bytes, reason: str) -> None:
    with pytest.raises(Undecodable) as caught:
        decode_json(raw)
    assert str(caught.value) == reason
