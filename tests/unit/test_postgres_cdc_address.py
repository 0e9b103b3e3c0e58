"""A password that is not quoted in the address of a server."""

from __future__ import annotations

import pytest

from connectors.postgres_cdc.session import Session
from eventflow.errors import SourceUnavailable


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@ss-SEKRET@nowhere.invalid/db",
        "postgresql://u:p@SEKRET@/db",
        "postgresql://u:SEK/RET@nowhere.invalid/db",
        "postgresql://u:p%zzSEKRET@nowhere.invalid/db",
    ],
)
async def test_a_password_that_is_not_quoted_is_shown_nowhere(url: str) -> None:
    with pytest.raises(SourceUnavailable) as caught:
        await Session.open(url, "shop")
    assert "RET" not in str(caught.value)
    assert "the url" in str(caught.value)
