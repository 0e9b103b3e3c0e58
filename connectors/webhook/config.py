"""The words of a webhook's block in a rule file."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator

_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]{1,9})(B|KiB|MiB|GiB)")
_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
MAX_LIMIT = 128 << 20
"""The largest body that a source may allow: it is held in memory and sent to Postgres as one value."""
MAX_DEDUPE = timedelta(days=3660)


def _duration(value: Any) -> Any:
    """`500ms 20s 5m 6h 7d` as a timedelta above zero."""
    if isinstance(value, timedelta):
        return value
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None or not int(found[1]):
        raise ValueError(f"{value!r} is no duration; write a number and a unit, like 500ms, 20s, 5m or 7d")
    if int(found[1]) > MAX_DEDUPE / _UNITS[found[2]]:
        raise ValueError(f"{value!r} is too long; ten years are the most")
    return int(found[1]) * _UNITS[found[2]]


def _size(value: Any) -> Any:
    """`64KiB 10MiB` in bytes, above zero."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{value!r} is no size; write a number and a unit, like 64KiB or 10MiB")
    return int(found[1]) * _BYTES[found[2]]


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$", "examples": ["7d", "10m"]}),
]
Size = Annotated[
    int,
    BeforeValidator(_size),
    Field(gt=0, le=MAX_LIMIT),
    WithJsonSchema({"type": "string", "pattern": f"^{_SIZE.pattern}$", "examples": ["1MiB"]}),
]
Expression = Annotated[str, Field(min_length=1)]
"""CEL over `data`, `headers` (names in lower case) and `query`, without `${}`."""


class HmacVerification(BaseModel):
    """A keyed digest of the body in a header, `prefix` before it. Any of `secrets` may have signed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scheme: Literal["hmac"]
    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
    prefix: str = ""
    algorithm: Literal["sha1", "sha256", "sha384", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    secrets: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]

    @field_validator("scheme", mode="before")
    @classmethod
    def _only_hmac(cls, value: Any) -> Any:
        if value != "hmac":
            raise ValueError(f"scheme {value!r} is not supported yet; use `hmac` with the sender's header")
        return value


class Dedupe(BaseModel):
    """What makes two requests one, and for how long."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Literal["id", "body"]
    within: Duration


class WebhookConfig(BaseModel):
    """A webhook. `verify: none` reads as None: it has to be written out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    verify: HmacVerification | None
    id: Expression | None = None
    type: Expression | None = None
    subject: Expression | None = None
    time: Expression | None = None
    limit: Size = 1 << 20
    dedupe: Dedupe = Dedupe(by="id", within=timedelta(days=7))

    @field_validator("verify", mode="before")
    @classmethod
    def _none_is_written_out(cls, value: Any) -> Any:
        if value == "none":
            return None
        if not isinstance(value, dict | HmacVerification):
            raise ValueError("verify is `none` or a map: {scheme: hmac, header: X-Signature, secrets: [...]}")
        return value  # pyright: ignore[reportUnknownVariableType]

    @field_validator("dedupe", mode="before")
    @classmethod
    def _duration_alone(cls, value: Any) -> Any:
        return {"by": "id", "within": value} if isinstance(value, str) else value
