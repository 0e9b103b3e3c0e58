"""A record of a topic as an event, or as a broken record where it is none: pure.

    what the consumer read -> meta (JSON) -> formats.py, cloudevents.py, debezium.py -> Event | Broken

Everything is made from the value's bytes and from meta, both of which are stored: a replay reads the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from connectors.kafka.cloudevents import read_cloudevent, read_without_value
from connectors.kafka.config import KafkaConfig
from connectors.kafka.debezium import TYPES, read_debezium
from connectors.kafka.formats import Content, Read, moment, read_bytes, read_json, read_text
from eventflow.attributes import given_optional_word, given_time, given_word
from eventflow.content import NO_TEXT, base64_text
from eventflow.errors import Undecodable
from eventflow.event import JSON, Broken, Event, Record
from eventflow.offers import Sends
from eventflow.source import Predicate

DEFAULT_TYPE: Final = "kafka.record"
VARIABLES: Final = ("data", "headers", "key", "topic", "partition", "offset", "cloudevent")
"""What the CEL of `id`, `type`, `subject` and `time` may name.

All but `data` as in meta; `cloudevent` is a map of a CloudEvent's attributes as sent, else empty.
"""

_READERS: Final[Mapping[str, Read]] = {
    "json": read_json,
    "text": read_text,
    "bytes": read_bytes,
    "cloudevents": read_cloudevent,
    "debezium": read_debezium,
}
_NO_HEADERS: Final[Mapping[str, JSON]] = {}
_TOMBSTONE: Final = Content(None, vague=True)

Meta = dict[str, JSON]


def sends(config: KafkaConfig) -> Sends:
    """Types and fields that the words alone tell: a sender's own attributes and JSON are not among them."""
    types = frozenset({DEFAULT_TYPE, *(TYPES.values() if config.format == "debezium" else ())})
    return Sends(
        types=None if config.type or config.format == "cloudevents" else types,
        fields=frozenset() if config.format in ("text", "bytes") else None,
    )


class RecordMaker:
    """Makes the records of one source. `compiled(text, variables)` compiles an expression."""

    def __init__(
        self, source: str, config: KafkaConfig, compiled: Callable[[str, Sequence[str]], Predicate]
    ) -> None:
        self._source = source
        self._read = _READERS[config.format]
        self._cloudevents = config.format == "cloudevents"
        self._id = compiled(config.id, VARIABLES) if config.id else None
        self._type = compiled(config.type, VARIABLES) if config.type else None
        self._subject = compiled(config.subject, VARIABLES) if config.subject else None
        self._time = compiled(config.time, VARIABLES) if config.time else None
        self._asks = bool(config.id or config.type or config.subject or config.time)

    def record(
        self,
        topic: str,
        partition: int,
        offset: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
        timestamp_ms: int | None,
    ) -> Record:
        """The record at a position. Never raises for what a producer can send."""
        meta: Meta = {
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "key": None if key is None else shown(key),
            "headers": shown_headers(headers) if headers else _NO_HEADERS,
            "timestamp": timestamp_ms,
        }
        if value is None:
            meta["tombstone"] = True
            return self._made(b"", meta)
        return self._made(value, meta)

    def reread(self, raw: bytes, meta: Mapping[str, JSON]) -> Record:
        """The record of a value that was kept (and perhaps edited) with its `meta`."""
        facts = {name: value for name, value in meta.items() if name not in ("sender_id", "lsn", "xid")}
        if raw:
            facts.pop("tombstone", None)
        return self._made(raw, facts)

    def _made(self, raw: bytes, meta: Meta) -> Record:
        """`meta` holds the facts of the transport; what the format adds to them goes in here."""
        try:
            headers: Mapping[str, JSON] = meta.get("headers") or _NO_HEADERS
            if "tombstone" not in meta:
                content = self._read(raw, headers)
            else:
                content = read_without_value(headers) if self._cloudevents else _TOMBSTONE
            if content.meta:
                meta = {**meta, **content.meta}
            return self._asked(raw, meta, content) if self._asks else self._event(raw, meta, content)
        except Undecodable as error:
            return Broken(self._source, raw, error.reason, _position(meta), meta)

    def _event(self, raw: bytes, meta: Meta, content: Content) -> Event:
        """Without expressions: nearly every source. Positional arguments are faster, so see `Event`."""
        return Event(
            self._source,
            _id(meta),
            content.type or DEFAULT_TYPE,
            content.data,
            raw,
            content.subject or _subject(meta.get("key")),
            content.time or moment(meta.get("timestamp")),
            content.sender,
            content.datacontenttype,
            content.dataschema,
            content.extensions,
            meta,
        )

    def _asked(self, raw: bytes, meta: Meta, content: Content) -> Event:
        """With expressions. On a tombstone, and on what is no row, one that fails leaves the default."""
        variables = {name: meta.get(name) for name in VARIABLES[1:-1]}
        variables |= {"data": content.data, "cloudevent": content.sent}

        def value(expression: Predicate | None, read: Callable[[JSON], Any], default: Any) -> Any:
            if expression is None:
                return default
            try:
                return read(expression(variables))
            except Undecodable:
                if content.vague:
                    return default
                raise

        id_ = value(self._id, lambda found: given_word("id", found), None)
        return Event(
            source=self._source,
            id=id_ or _id(meta),
            type=value(self._type, lambda found: given_word("type", found), content.type or DEFAULT_TYPE),
            data=content.data,
            raw=raw,
            subject=value(self._subject, _subject_word, content.subject or _subject(meta.get("key"))),
            time=value(self._time, given_time, content.time or moment(meta.get("timestamp"))),
            sender=content.sender,
            datacontenttype=content.datacontenttype,
            dataschema=content.dataschema,
            extensions=content.extensions,
            meta=meta,
            dedupe=hashlib.blake2b(id_.encode(), digest_size=16).digest() if id_ else None,
        )


def shown(raw: bytes) -> JSON:
    """Bytes of a key or header: text where they are UTF-8 without NUL, else `{"base64": ...}`."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64_text(raw)}
    return {"base64": base64_text(raw)} if "\x00" in text else text


def shown_headers(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, JSON]:
    """By name; the values of a name that comes more than once are a list, in their order."""
    held: dict[str, JSON] = {}
    repeated: dict[str, list[JSON]] = {}
    for sent, raw in headers:
        name = sent
        if NO_TEXT.search(sent):
            name = sent.encode(errors="backslashreplace").decode().replace("\x00", "\\x00")
        value = None if raw is None else shown(raw)
        if name not in held:
            held[name] = value
        else:
            repeated.setdefault(name, [held[name]]).append(value)
    return {**held, **repeated} if repeated else held


def _id(meta: Meta) -> str:
    return f"{meta.get('topic')}/{meta.get('partition')}/{meta.get('offset')}"


def _position(meta: Meta) -> JSON:
    return {name: meta.get(name) for name in ("topic", "partition", "offset")}


def _subject(key: JSON) -> str | None:
    """The key as text; an empty one is none."""
    if isinstance(key, dict):
        return f"base64:{key['base64']}"
    return key or None


def _subject_word(value: JSON) -> str | None:
    return given_optional_word("subject", value)
