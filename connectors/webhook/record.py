"""An authentic request as an event, or as a broken record where it is none; a CloudEvents batch as many."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec
from uuid_utils import uuid7  # its text is made ten times faster than the standard library's

from connectors.webhook import cloudevents
from connectors.webhook.config import WebhookConfig
from connectors.webhook.content import decode_body, parse_fields
from eventflow.attributes import given_optional_word, given_time, given_word
from eventflow.cloudevents import Attributes
from eventflow.content import media_type
from eventflow.errors import Undecodable
from eventflow.event import JSON, Broken, Event, Record
from eventflow.source import Predicate

DEFAULT_TYPE = "webhook.received"
IDEMPOTENCY_KEY = "idempotency-key"
ID_HEADERS = {"standard": "webhook-id", "github": "x-github-delivery"}
"""Where a scheme's senders name what they send."""
NAMING = frozenset({"github", "standard", "stripe"})
OWN_BODIES = frozenset({"github", "stripe"})
"""Schemes of one sender, who speaks no CloudEvents: whoever adds such headers is somebody else."""
VARIABLES = ("data", "headers", "query")
"""What the CEL of `id`, `type`, `subject` and `time` may name."""

MAX_COPIED = 16 << 20
"""Bytes of headers and query that a batch may need: each of its events keeps them all."""

_CREDENTIAL = re.compile(
    r"authoriz|auth(?!or)|cookie|signature|passw|passphrase|secret|credential|token|hmac"
    r"|api[-_]?key|access[-_]?key|csrf|xsrf|jwt|(^|[-_])(sign|sig)([-_]|$)"
)
_NO_CREDENTIAL = re.compile(r"idempotency")
"""Names what is sent, whatever it is called (I-Twilio-Idempotency-Token)."""
_CACHED_NAMES = 1024


class Received(msgspec.Struct, frozen=True, gc=False):
    """What an authentic request brought: `headers` as sent, names in lower case."""

    headers: Mapping[bytes, bytes]
    query_string: bytes
    remote: str | None
    body: bytes

    def around(self) -> int:
        """Bytes beside the body."""
        headers = self.headers
        return sum(map(len, headers)) + sum(map(len, headers.values())) + len(self.query_string)


class VisibleNames(dict[bytes, str | None]):
    """Header name -> its text, None for one that carries a credential or signature. Fills itself."""

    def __init__(self, signature: bytes | None) -> None:
        super().__init__()
        self._signature = signature

    def __missing__(self, name: bytes) -> str | None:
        shown = name.decode("latin-1")
        hidden = _CREDENTIAL.search(shown) and not _NO_CREDENTIAL.search(shown)
        text = None if hidden or name == self._signature else shown
        if len(self) < _CACHED_NAMES:  # names come from strangers
            self[name] = text
        return text


class Kept(msgspec.Struct, frozen=True, gc=False):
    """What of a request is kept. `member` is its number in a batch, counted from 0."""

    body: bytes
    headers: Mapping[str, str]
    meta: Mapping[str, JSON]
    member: int | None = None


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
        self._scheme = config.verify.scheme if config.verify else None
        self._cloudevents = self._scheme not in OWN_BODIES
        self._id_header = ID_HEADERS.get(self._scheme or "", IDEMPOTENCY_KEY)
        self._id = compiled(config.id, VARIABLES) if config.id else None
        self._type = compiled(config.type, VARIABLES) if config.type else None
        self._subject = compiled(config.subject, VARIABLES) if config.subject else None
        self._time = compiled(config.time, VARIABLES) if config.time else None
        self._asks = bool(self._type or self._subject or self._time)

    def records(self, received: Received) -> Record | Sequence[Record]:
        """The record of a request, or those of a batch in their order.

        Raises `TooManyMembers` for a batch beyond all bounds, and nothing else for what a sender can send.
        """
        names = self._names
        headers = {
            text: value.decode("latin-1")
            for name, value in received.headers.items()
            if (text := names[name]) is not None
        }
        meta: dict[str, JSON] = {"headers": headers, "query": {}, "remote": received.remote}
        kept = Kept(received.body, headers, meta)
        if received.query_string:
            try:
                meta["query"] = _query(received.query_string)
            except Undecodable as error:
                return self._broken(kept, error.reason)
        if "content-encoding" in headers and (compressed := _compressed(headers["content-encoding"])):
            return self._broken(kept, compressed)
        if self._media_type(headers).startswith(cloudevents.BATCHED):
            return self._batch(kept, received.around())
        made = self._read(kept)
        return made if isinstance(made, Event) else self._with_hidden(made, received.headers)

    def reread(self, body: bytes, meta: Mapping[str, JSON]) -> Record:
        """The record of a body that was kept (and perhaps edited) with its `meta`.

        What was kept of a batch is one of its events, or a batch that could not be told apart.
        """
        kept = Kept(body, meta.get("headers") or {}, {"query": {}, **meta})
        if self._media_type(kept.headers).startswith(cloudevents.BATCHED) and body.lstrip()[:1] == b"[":
            return self._broken(kept, "a batch cannot become one event: edit it down to one of its objects")
        return self._read(kept)

    def _batch(self, kept: Kept, around: int) -> Record | Sequence[Record]:
        try:
            members = cloudevents.split(kept.body)
        except Undecodable as error:
            return self._broken(kept, error.reason)
        if around * len(members) > MAX_COPIED:
            raise cloudevents.TooManyMembers
        records = [
            self._read(Kept(member, kept.headers, kept.meta, number)) for number, member in enumerate(members)
        ]
        return records if self._id is None else self._told_apart(records)

    def _told_apart(self, records: Sequence[Record]) -> Sequence[Record]:
        """Those to which `id:` gave the id of another one before them are broken, and no repeats."""
        first: dict[str, bytes] = {}
        return [
            record
            if isinstance(record, Broken) or first.setdefault(record.id, record.raw) == record.raw
            else Broken(
                self._source,
                record.raw,
                f"`id` gave another event of this batch the id {record.id[:60]!r} too: it has to read `data`",
                meta=record.meta,
                dedupe=_key(b"same", record.id, record.raw),
            )
            for record in records
        ]

    def _with_hidden(self, made: Broken, sent: Mapping[bytes, bytes]) -> Broken:
        """With the name of the header in its reason that was sent and that no expression sees."""
        for name in sent:
            if self._names[name] is None and (text := name.decode("latin-1")) in made.reason:
                reason = f"{made.reason}: the header {text} is a credential, which no expression sees"
                return msgspec.structs.replace(made, reason=reason)
        return made

    def _read(self, kept: Kept) -> Record:
        data: JSON = None
        sent: Attributes | None = None
        try:
            media = self._media_type(kept.headers)
            if media:
                if not media.endswith("+json"):
                    raise Undecodable(f"CloudEvents as {media[:60]} are not supported, only as JSON")
                sent, data = cloudevents.from_body(kept.body)
            else:
                if self._cloudevents and cloudevents.BINARY in kept.headers:
                    sent = cloudevents.from_headers(kept.headers)
                # A CloudEvent without data has no bytes, whatever its content type.
                data = self._decoded(kept) if kept.body or sent is None else None
            return self._event(kept, data, sent)
        except Undecodable as error:
            return self._broken(kept, error.reason, data, sent)

    def _event(self, kept: Kept, data: JSON, sent: Attributes | None) -> Event:
        id_, dedupe = self._identity(kept, data, sent)
        type_, subject, time = (sent.type, sent.subject, sent.time) if sent else (DEFAULT_TYPE, None, None)
        if self._asks:
            variables = {"data": data, "headers": kept.headers, "query": kept.meta["query"]}
            type_ = given_word("type", self._type(variables)) if self._type else type_
            subject = given_optional_word("subject", self._subject(variables)) if self._subject else subject
            time = given_time(self._time(variables)) if self._time else time
        return Event(
            source=self._source,
            id=str(uuid7()) if id_ is None else id_,
            type=type_,
            data=data,
            raw=kept.body,
            subject=subject,
            time=time,
            sender=sent.source if sent else None,
            datacontenttype=sent.datacontenttype if sent else kept.headers.get("content-type"),
            dataschema=sent.dataschema if sent else None,
            extensions=sent.extensions if sent else {},
            meta=kept.meta,
            dedupe=dedupe,
        )

    def _broken(self, kept: Kept, reason: str, data: JSON = None, sent: Attributes | None = None) -> Broken:
        """A broken request that repeats itself is one dead letter, if its id can be told without the body."""
        try:
            _, dedupe = self._identity(kept, data, sent)
        except Undecodable:
            dedupe = self._by_body_alone(kept.body)
        return Broken(self._source, kept.body, reason, meta=kept.meta, dedupe=dedupe)

    def _identity(self, kept: Kept, data: JSON, sent: Attributes | None) -> tuple[str | None, bytes | None]:
        """The id that the sender gave, and the key that a repeat would share: ids go before bodies.

        Where the scheme names its requests, that name tells repeats, and no header or content type that
        nobody signed: somebody could change it and send a captured request again.
        """
        if self._id is not None:
            values = {"data": data, "headers": kept.headers, "query": kept.meta["query"]}
            id_ = given_word("id", self._id(values))
            return id_, _key(b"id", id_)
        id_ = self._scheme_id(kept.headers, data)
        if sent is not None and (id_ is None or self._scheme not in NAMING):
            return sent.id, _key(b"ce", sent.source, sent.id)
        if id_ is None:
            return None, self._by_body_alone(kept.body)
        key = _key(b"member", str(kept.member), id_) if kept.member else _key(b"id", id_)
        return (id_ if sent is None else sent.id), key

    def _scheme_id(self, headers: Mapping[str, str], data: JSON) -> str | None:
        if self._scheme == "stripe" and isinstance(data, dict):
            id_ = cast("dict[str, Any]", data).get("id")
            if isinstance(id_, str) and id_:
                return id_
        return headers.get(self._id_header) or headers.get(IDEMPOTENCY_KEY) or None

    def _decoded(self, kept: Kept) -> JSON:
        """Stripe's bodies are JSON whatever an unsigned header says: they hold the id."""
        return decode_body(
            kept.body, "application/json" if self._scheme == "stripe" else kept.headers.get("content-type")
        )

    def _media_type(self, headers: Mapping[str, str]) -> str:
        """In lower case, without parameters; "" where it is none of CloudEvents."""
        text = headers.get("content-type")
        if text is None or text == "application/json" or not self._cloudevents:  # nearly every request
            return ""
        media = media_type(text)
        return media if media.startswith(cloudevents.STRUCTURED) else ""

    def _by_body_alone(self, body: bytes) -> bytes | None:
        return hashlib.blake2b(b"body\0" + body, digest_size=16).digest() if self._by_body else None


def _key(*parts: bytes | str) -> bytes:
    """Of parts without NUL: different parts, different keys."""
    joined = b"\0".join(part if isinstance(part, bytes) else part.encode() for part in parts)
    return hashlib.blake2b(joined, digest_size=16).digest()


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
