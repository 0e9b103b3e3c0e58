"""An authentic request as an event, or as a broken record where it is none."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from uuid_utils import uuid7  # its text is made ten times faster than the standard library's

from connectors.webhook.config import WebhookConfig
from connectors.webhook.content import decode_body, parse_fields
from eventflow.errors import Undecodable
from eventflow.event import JSON, Broken, Event, Record
from eventflow.source import Predicate

DEFAULT_TYPE = "webhook.received"
IDEMPOTENCY_KEY = "idempotency-key"
VARIABLES = ("data", "headers", "query")
"""What the CEL of `id`, `type`, `subject` and `time` may name."""

_CREDENTIAL = re.compile(
    r"authorization|cookie|signature|password|passwd|secret|credential"
    r"|api[-_]?key|access[-_]?key|csrf|xsrf|jwt|(^|[-_])(token|auth|hmac)([-_]|$)"
)
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")
_CACHED_NAMES = 1024


class Received(msgspec.Struct, frozen=True, gc=False):
    """What an authentic request brought: `headers` as sent, names in lower case."""

    headers: Mapping[bytes, bytes]
    query_string: bytes
    remote: str | None
    body: bytes


class VisibleNames(dict[bytes, str | None]):
    """Header name -> its text, None for one that carries a credential or signature. Fills itself."""

    def __init__(self, signature: bytes | None) -> None:
        super().__init__()
        self._signature = signature

    def __missing__(self, name: bytes) -> str | None:
        text: str | None = name.decode("latin-1")
        if name == self._signature or _CREDENTIAL.search(name.decode("latin-1")):
            text = None
        if len(self) < _CACHED_NAMES:  # names come from strangers
            self[name] = text
        return text


class RecordMaker:
    """Makes records of one source. Pure but for new ids."""

    def __init__(
        self,
        source: str,
        config: WebhookConfig,
        signature: bytes | None,
        compiled: Callable[[str, Sequence[str]], Predicate],
    ) -> None:
        self._source = source
        self._by_body = config.dedupe.by == "body"
        self._names = VisibleNames(signature)
        self._id = compiled(config.id, VARIABLES) if config.id else None
        self._type = compiled(config.type, VARIABLES) if config.type else None
        self._subject = compiled(config.subject, VARIABLES) if config.subject else None
        self._time = compiled(config.time, VARIABLES) if config.time else None
        self._asks = bool(self._type or self._subject or self._time)

    def record(self, received: Received) -> Record:
        """The record of one request. Never raises for what a sender can send."""
        names = self._names
        headers = {
            text: value.decode("latin-1")
            for name, value in received.headers.items()
            if (text := names[name]) is not None
        }
        meta: dict[str, JSON] = {"headers": headers, "query": {}, "remote": received.remote}
        if received.query_string:
            try:
                meta["query"] = _query(received.query_string)
            except Undecodable as error:
                return self._broken(received.body, headers, meta, None, error.reason)
        if "content-encoding" in headers and (compressed := _compressed(headers["content-encoding"])):
            return self._broken(received.body, headers, meta, None, compressed)
        return self._read(received.body, headers, meta)

    def reread(self, body: bytes, meta: Mapping[str, JSON]) -> Record:
        """The record of a body that was kept (and perhaps edited) with its `meta`."""
        return self._read(body, meta.get("headers") or {}, {"query": {}, **meta})

    def _read(self, body: bytes, headers: Mapping[str, str], meta: Mapping[str, JSON]) -> Record:
        data: JSON = None
        try:
            data = decode_body(body, headers.get("content-type"))
            return self._event(body, headers, meta, data)
        except Undecodable as error:
            return self._broken(body, headers, meta, data, error.reason)

    def _event(self, body: bytes, headers: Mapping[str, str], meta: Mapping[str, JSON], data: JSON) -> Event:
        id_ = self._sender_id(headers, meta, data)
        type_, subject, time = DEFAULT_TYPE, None, None
        if self._asks:
            variables = {"data": data, "headers": headers, "query": meta["query"]}
            type_ = _word("type", self._type(variables)) if self._type else DEFAULT_TYPE
            subject = _optional_word("subject", self._subject(variables)) if self._subject else None
            time = _moment(self._time(variables)) if self._time else None
        return Event(
            source=self._source,
            id=str(uuid7()) if id_ is None else id_,
            type=type_,
            data=data,
            raw=body,
            subject=subject,
            time=time,
            datacontenttype=headers.get("content-type"),
            meta=meta,
            dedupe=self._dedupe(id_, body),
        )

    def _broken(
        self, body: bytes, headers: Mapping[str, str], meta: Mapping[str, JSON], data: JSON, reason: str
    ) -> Broken:
        """A broken request that repeats itself is one dead letter, if its id can be told without the body."""
        try:
            id_ = self._sender_id(headers, meta, data)
        except Undecodable:
            id_ = None
        return Broken(self._source, body, reason, meta=meta, dedupe=self._dedupe(id_, body))

    def _sender_id(self, headers: Mapping[str, str], meta: Mapping[str, JSON], data: JSON) -> str | None:
        if self._id is None:
            return headers.get(IDEMPOTENCY_KEY) or None
        return _word("id", self._id({"data": data, "headers": headers, "query": meta["query"]}))

    def _dedupe(self, id_: str | None, body: bytes) -> bytes | None:
        """The key that a repeat would share. A sender's own id goes before the body: ids stay unique."""
        if id_ is not None:
            return hashlib.blake2b(b"id\0" + id_.encode("utf-8"), digest_size=16).digest()
        if self._by_body:
            return hashlib.blake2b(b"body\0" + body, digest_size=16).digest()
        return None


def _compressed(encoding: str) -> str | None:
    """Why the body is kept as it came and not read, if so: a few bytes may unpack to gigabytes."""
    if encoding.strip().lower() in ("", "identity"):
        return None
    return f"Content-Encoding {encoding[:40]!r} is not supported: send the body as it is"


def _query(query_string: bytes) -> JSON:
    try:
        return parse_fields(query_string.decode("utf-8", "replace"))
    except ValueError as error:
        raise Undecodable("the query string has too many fields") from error


def _word(attribute: str, value: JSON) -> str:
    """An attribute that must be there, as text; whole numbers are fine as ids."""
    word = _optional_word(attribute, value)
    if not word:
        raise Undecodable(f"the expression for `{attribute}` gave {'empty text' if word == '' else 'null'}")
    return word


def _optional_word(attribute: str, value: JSON) -> str | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise Undecodable(f"the expression for `{attribute}` gave a {type(value).__name__}, not text")
    if _NO_TEXT.search(value):
        raise Undecodable(f"the expression for `{attribute}` gave text with a NUL or half a character")
    return value


def _moment(value: JSON | datetime) -> datetime | None:
    """RFC 3339 text with an offset, or a CEL timestamp, in UTC. No time zone is guessed."""
    if value is None:
        return None
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise Undecodable("the expression for `time` gave a time without an offset")
        return moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise Undecodable("the expression for `time` gave no RFC 3339 time") from None
