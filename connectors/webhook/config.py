"""The words of a webhook's block in a rule file."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

from eventflow.source import Duration, Size

MAX_LIMIT = 128 << 20
"""The largest body that a source may allow: it is held in memory and sent to Postgres as one value."""
MAX_DEDUPE = timedelta(days=3660)

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
    within: Annotated[Duration, Field(le=MAX_DEDUPE)]


def _none_as_text(schema: dict[str, Any]) -> None:
    """For editors: what stands in the file is the word `none`."""
    schema["anyOf"] = [{"const": "none"}, *(one for one in schema["anyOf"] if one != {"type": "null"})]


def _or_duration(schema: dict[str, Any]) -> None:
    """For editors: a duration alone means `by: id`."""
    duration = TypeAdapter(Duration).json_schema()
    schema["anyOf"] = [duration, {"$ref": schema.pop("$ref")}] if "$ref" in schema else [duration]
    schema.pop("default", None)


class WebhookConfig(BaseModel):
    """A webhook. `verify: none` reads as None: it has to be written out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    verify: Annotated[HmacVerification | None, Field(json_schema_extra=_none_as_text)]
    id: Expression | None = None
    type: Expression | None = None
    subject: Expression | None = None
    time: Expression | None = None
    limit: Annotated[Size, Field(le=MAX_LIMIT)] = 1 << 20
    dedupe: Annotated[Dedupe, Field(json_schema_extra=_or_duration)] = Dedupe(
        by="id", within=timedelta(days=7)
    )

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
