"""The words of a Kafka source's block in a rule file. No client library is needed to know them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator

from eventflow.glob import GlobError, compile_glob
from eventflow.holes import SECRET_HOLE
from eventflow.source import Duration
from eventflow.units import Size

Text = Annotated[str, Field(min_length=1)]
"""May hold `${secret.NAME}`, filled in at use."""
Expression = Annotated[str, Field(min_length=1)]
"""CEL over `data`, `headers`, `key`, `topic`, `partition` and `offset`, without `${}`."""
Format = Literal["json", "cloudevents", "debezium", "text", "bytes"]

MAX_DEDUPE: Final = timedelta(days=3660)
_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
MAX_LIMIT: Final = 1 << 30
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")


class _Words(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Sasl(_Words):
    """Who we are to the brokers."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
    username: Text
    password: Text


class Tls(_Words):
    """Encrypted connections.

    `ca`, `cert` and `key` are paths of PEM files, relative to the rule file; without `ca` the system's
    authorities count. `password` opens `key`. `check_hostname: false` takes any name in the certificate.
    """

    ca: Text | None = None
    cert: Text | None = None
    key: Text | None = None
    password: Text | None = None
    check_hostname: Annotated[bool, Field(strict=True)] = True

    @model_validator(mode="after")
    def _key_with_certificate(self) -> Self:
        if self.key is not None and self.cert is None:
            raise ValueError("`key` goes with `cert`; where one file holds both, name it as `cert`")
        return self


class Since(_Words):
    """Begin with the first record whose timestamp is not before this instant."""

    timestamp: AwareDatetime

    @field_validator("timestamp", mode="before")
    @classmethod
    def _written_as_text(cls, value: Any) -> Any:
        if not isinstance(value, str | datetime):
            raise ValueError("a timestamp is RFC 3339 text with an offset, like 2026-01-31T06:00:00Z")
        return value

    @field_validator("timestamp")
    @classmethod
    def _of_a_record(cls, value: datetime) -> datetime:
        if value < _FIRST:  # Kafka reads -1 and -2 as latest and earliest
            raise ValueError("records are stamped from 1970-01-01T00:00:00Z on")
        return value


class KafkaConfig(_Words):
    """Topics of one cluster, by name or by a glob over names, and what their records are."""

    bootstrap: Text | Annotated[list[Text], Field(min_length=1)]
    topics: Annotated[list[Text], Field(min_length=1)] | None = None
    pattern: Text | None = None
    initial: Literal["earliest", "latest"] | Since
    format: Format = "json"
    id: Expression | None = None
    type: Expression | None = None
    subject: Expression | None = None
    time: Expression | None = None
    dedupe: Annotated[Duration, Field(le=MAX_DEDUPE)] = Field(default=timedelta(days=7), examples=["7d"])
    limit: Annotated[Size, Field(ge=1, le=MAX_LIMIT)] = 64 << 20
    group: Text | None = None
    sasl: Sasl | None = None
    tls: Annotated[bool, Field(strict=True)] | Tls = False
    dead_letter_topic: Text | None = None

    @field_validator("topics")
    @classmethod
    def _names(cls, topics: list[str] | None) -> list[str] | None:
        for topic in topics or ():
            _check_topic(topic)
        if topics and len(set(topics)) < len(topics):
            raise ValueError("a topic stands there twice")
        return topics

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            return pattern if pattern is None else compile_glob(pattern).text
        except GlobError as error:
            raise ValueError(str(error)) from error

    @field_validator("dead_letter_topic")
    @classmethod
    def _name(cls, topic: str | None) -> str | None:
        if topic is not None:
            _check_topic(topic)
        return topic

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.topics is None) == (self.pattern is None):
            raise ValueError('say either `topics: [payments.v1]` or `pattern: "payments.*"`')
        if self.dead_letter_topic is not None and self.takes(self.dead_letter_topic):
            raise ValueError(
                f"dead_letter_topic '{self.dead_letter_topic}' is a topic of this source: its dead letters "
                "would come back as records"
            )
        return self

    def takes(self, topic: str) -> bool:
        """Whether the words name this topic. Internal topics are the caller's to leave out."""
        if self.topics is not None:
            return topic in self.topics
        return compile_glob(self.pattern or "").match(topic)


def _check_topic(topic: str) -> None:
    if not SECRET_HOLE.search(topic) and (not _TOPIC.fullmatch(topic) or topic in (".", "..")):
        raise ValueError(
            f"{topic!r} is no topic name: Kafka's are at most 249 letters, digits, '.', '_' and '-'"
        )
