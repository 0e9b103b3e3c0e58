"""The words of a webhook's block in a rule file."""

from __future__ import annotations

import difflib
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    field_validator,
    model_validator,
)

from eventflow.source import Duration, Size
from eventflow.units import duration_text

MAX_LIMIT = 128 << 20
"""The largest body that a source may allow: it is held in memory and sent to Postgres as one value."""
MAX_DEDUPE = timedelta(days=3660)

Expression = Annotated[str, Field(min_length=1)]
"""CEL over `data`, `headers` (names in lower case) and `query`, without `${}`."""


Secrets = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
"""Any of them may have signed. Each is, or holds, `${secret.NAME}`."""
DEFAULT_TOLERANCE = timedelta(minutes=5)
SCHEMES = ("hmac", "github", "standard", "stripe")


class _Words(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HmacVerification(_Words):
    """A keyed digest of the body in a header, `prefix` before it."""

    scheme: Literal["hmac"]
    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
    prefix: str = ""
    algorithm: Literal["sha1", "sha256", "sha384", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    secrets: Secrets

    @field_validator("scheme", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if value != "hmac":
            near = difflib.get_close_matches(str(value).lower(), SCHEMES, n=1, cutoff=0.8)
            if near:
                raise ValueError(f"unknown scheme {value!r}; did you mean {near[0]!r}?")
            raise ValueError(
                f"scheme {value!r} is not supported yet; use `hmac` with the sender's header, "
                "or `github`, `standard` (Standard Webhooks) or `stripe`"
            )
        return value


class GithubVerification(_Words):
    """GitHub's webhooks, and Gitea's and others that sign as GitHub does."""

    scheme: Literal["github"]
    secrets: Secrets


class StandardVerification(_Words):
    """Standard Webhooks: secrets as `whsec_` and base64."""

    scheme: Literal["standard"]
    secrets: Secrets
    tolerance: Duration = DEFAULT_TOLERANCE


class StripeVerification(_Words):
    """Stripe's webhooks."""

    scheme: Literal["stripe"]
    secrets: Secrets
    tolerance: Duration = DEFAULT_TOLERANCE


def _scheme(value: Any) -> str:
    """Which model reads a `verify:`; an unknown scheme is `hmac`'s to refuse, at its place in the file."""
    scheme = value.get("scheme") if isinstance(value, dict) else getattr(value, "scheme", None)  # pyright: ignore
    return scheme if scheme in SCHEMES else "hmac"


Verification = HmacVerification | GithubVerification | StandardVerification | StripeVerification
_Tagged = Annotated[
    Annotated[HmacVerification, Tag("hmac")]
    | Annotated[GithubVerification, Tag("github")]
    | Annotated[StandardVerification, Tag("standard")]
    | Annotated[StripeVerification, Tag("stripe")],
    Discriminator(_scheme),
]


class Rate(_Words):
    """At most `limit` authentic requests `per` time, on each node; that many may come at once."""

    limit: Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
    per: Duration


class Dedupe(_Words):
    """What makes two requests one, and for how long."""

    by: Literal["id", "body"]
    within: Annotated[Duration, Field(le=MAX_DEDUPE)]


def _none_as_text(schema: dict[str, Any]) -> None:
    """For editors: what stands in the file is the word `none`."""
    schemes = [scheme for one in schema["anyOf"] for scheme in one.get("oneOf", ())]
    schema["anyOf"] = [{"const": "none"}, *schemes]


def _or_duration(schema: dict[str, Any]) -> None:
    """For editors: a duration alone means `by: id`."""
    duration = TypeAdapter(Duration).json_schema()
    schema["anyOf"] = [duration, {"$ref": schema.pop("$ref")}] if "$ref" in schema else [duration]
    schema.pop("default", None)


class WebhookConfig(_Words):
    """A webhook. `verify: none` reads as None: it has to be written out."""

    verify: Annotated[
        _Tagged | None,
        Field(
            description="`none`, or a map with a scheme (github, standard, stripe, hmac) and its secrets",
            json_schema_extra=_none_as_text,
        ),
    ]
    id: Expression | None = None
    type: Expression | None = None
    subject: Expression | None = None
    time: Expression | None = None
    limit: Annotated[Size, Field(le=MAX_LIMIT)] = 1 << 20
    rate: Rate | None = None
    dedupe: Annotated[Dedupe, Field(json_schema_extra=_or_duration)] = Dedupe(
        by="id", within=timedelta(days=7)
    )

    @field_validator("verify", mode="before")
    @classmethod
    def _none_is_written_out(cls, value: Any) -> Any:
        if value == "none":
            return None
        if not isinstance(value, dict | Verification):
            raise ValueError("verify is `none` or a map: {scheme: hmac, header: X-Signature, secrets: [...]}")
        return value  # pyright: ignore[reportUnknownVariableType]

    @field_validator("dedupe", mode="before")
    @classmethod
    def _duration_alone(cls, value: Any) -> Any:
        return {"by": "id", "within": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _remembers_what_stays_valid(self) -> Self:
        tolerance = getattr(self.verify, "tolerance", None)
        if tolerance is not None and self.dedupe.within < 2 * tolerance:
            raise ValueError(
                f"`dedupe` must be twice the tolerance at least ({duration_text(2 * tolerance)}): forgotten "
                "sooner, a request that somebody has captured would count again"
            )
        return self
