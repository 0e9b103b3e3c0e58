"""The `sources` of a rule set: a connector's own words, checked by the connector's own model."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Final, cast

from pydantic import BaseModel, ValidationError

from eventflow.errors import EventflowError
from eventflow.event import JSON
from eventflow.expression import Expression, ExpressionError, VarType
from eventflow.holes import SECRET_HOLE
from eventflow.offers import Foretelling
from eventflow.rulefile.block import Block
from eventflow.rulefile.connectors import ConnectorUnavailable
from eventflow.rulefile.misfits import report_misfits
from eventflow.rulefile.nodes import ListNode, MapNode, Node, ScalarNode, plain_value, shorten
from eventflow.rulefile.report import Report, nearest, unknown
from eventflow.rulefile.ruleset import SourceFactory, SourceSpec
from eventflow.rulefile.words import LATER_CONNECTORS, SOURCE
from eventflow.source import Delivery, Known, Predicate, Source, SourceContext

_HOLE: Final = re.compile(r"(?<!\$)\$\{(?!\s*secret\.[A-Za-z_][A-Za-z0-9_]*\s*\})")

_SECRET_WORD: Final = re.compile(r"secrets?|password")
_PASSWORD: Final = re.compile(r"://[^/?#@\s:]*:[^@/\s]+@|\bpassword=[^\s&]")
"""In a connection string whose `${secret.NAME}` have been taken out."""


def read_source(
    name: str, block: Block, folder: Path, connectors: Mapping[str, type[Source]]
) -> SourceSpec | None:
    """Compile one source; None where it has errors, which have been reported by then."""
    before = len(block.report.problems)
    connector = _connector(block, connectors)
    if connector is None:
        return None
    words = {key: plain_value(entry.value) for key, entry in block.entries() if key not in SOURCE.now}
    try:
        config = connector.Config.model_validate(words)
    except ValidationError as error:
        report_misfits(block, connector.Config, error)
        _try_what_fits(name, block, connector, words, error)
        return None
    _check_holes(block, [block.node])
    _doubt_literal_secrets(block)
    sends = cast("type[Foretelling]", connector).sends(config) if hasattr(connector, "sends") else None
    named = "id" in words or "dedupe" in words or (sends is not None and sends.named)
    if connector.delivery is Delivery.pushed and not named:
        block.warn(block.mark, "has neither 'id' nor 'dedupe': a sender's retry is a second event")
    spec = SourceSpec(
        name=name,
        connector=str(block.text("connector")),
        factory=cast("SourceFactory", connector),
        delivery=connector.delivery,
        config=config,
        folder=folder / PurePosixPath(block.report.file).parent,
        file=block.report.file,
        line=block.mark.line,
        column=block.mark.column,
        sends=sends,
    )
    _try(spec.factory, spec.name, spec.config, spec.folder, block)
    return spec if block.sound_since(before) else None


def _connector(block: Block, connectors: Mapping[str, type[Source]]) -> type[Source] | None:
    if "connector" not in block:
        misspelt = [word for word in block.node.entries if nearest(word, SOURCE.now)]
        for word in misspelt:
            block.error(block.node.entries[word].key, unknown("word", word, SOURCE.now))
        if not misspelt:
            block.error(block.mark, "'connector' is missing")
    node, name = block.get("connector"), block.text("connector")
    if node is None or name is None:
        return None
    if name in connectors:
        try:
            return connectors[name]
        except ConnectorUnavailable as error:
            block.error(node, str(error))
    elif name in LATER_CONNECTORS:
        block.error(node, f"the connector '{name}' is not supported yet")
    else:
        block.error(node, unknown("connector", name, [*connectors, *LATER_CONNECTORS]))
    return None


def _check_holes(block: Block, values: Sequence[Node]) -> None:
    """A source is made before there is any event: only secrets can be filled in."""
    for node in (text for value in values for text in _texts(value)):
        if _HOLE.search(str(node.value)):
            block.error(node, f"{shorten(str(node.value))!r}: the only hole here is ${{secret.NAME}}")


def _doubt_literal_secrets(block: Block) -> None:
    """Rule files are copied, reviewed and kept in Postgres: no place for a secret."""
    for word, node in _named_texts("", block.node):
        bare = SECRET_HOLE.sub("", str(node.value))
        if _SECRET_WORD.fullmatch(word) and "${" not in str(node.value):
            block.warn(node, f"'{word}' is written out for all who read this file: use ${{secret.NAME}}")
        elif _PASSWORD.search(bare):
            block.warn(node, f"'{word}' holds a password for all who read this file: use ${{secret.NAME}}")


def _named_texts(name: str, node: Node) -> Iterator[tuple[str, ScalarNode]]:
    """Each text, with the nearest key that it stands under."""
    if isinstance(node, MapNode):
        for word, entry in node.entries.items():
            yield from _named_texts(word, entry.value)
    elif isinstance(node, ListNode):
        for item in node.items:
            yield from _named_texts(name, item)
    elif isinstance(node.value, str) and not node.broken:
        yield name, node


def _texts(node: Node) -> Iterator[ScalarNode]:
    for _, text in _named_texts("", node):
        yield text


def _try(factory: SourceFactory, name: str, config: BaseModel, folder: Path, block: Block) -> None:
    """Make the source once, which does no I/O: what it says only then, of its CEL above all, is said now."""
    connector = block.text("connector")
    try:
        factory(name, config, _dry_context(folder, block))
    except (EventflowError, ValueError) as error:
        block.error(block.mark, str(error))
    except Exception as error:  # a connector's own bug: it has no place in the file but this one
        block.error(block.mark, f"the connector '{connector}' fails: {type(error).__name__}: {error}")


def _try_what_fits(
    name: str, block: Block, connector: type[Source], words: Mapping[str, JSON], error: ValidationError
) -> None:
    """Say what is wrong with a source's holes, and its CEL, though others of its words are wrong.

    CEL is read only where the source can be made without the wrong words. What is then said of no one word is
    left out: it may come of those that are missing.
    """
    wrong = {detail["loc"][0] for detail in error.errors(include_url=False) if detail["loc"]}
    _check_holes(block, [entry.value for word, entry in block.entries() if word not in wrong])
    try:
        config = connector.Config.model_validate({key: words[key] for key in words if key not in wrong})
    except ValidationError:
        return
    trial = replace(block, report=Report(block.report.file))
    _try(cast("SourceFactory", connector), name, config, Path(), trial)
    block.report.problems.extend(one for one in trial.report.problems if (one.line, one.column) != block.mark)


def _dry_context(folder: Path, block: Block) -> SourceContext:
    async def known(items: Sequence[bytes]) -> Mapping[bytes, Known]:
        return {}

    async def known_all() -> AsyncIterator[tuple[bytes, Known]]:
        return
        yield

    async def began_with(partitions: Sequence[str]) -> Sequence[str]:
        return partitions

    def expression(text: str, variables: Sequence[str]) -> Predicate:
        try:
            Expression.compile(text, dict.fromkeys(variables, VarType.any))
        except ExpressionError as error:
            _report_expression(block, text, error)
        return _never

    return SourceContext(
        folder, known, known_all, lambda name: "", expression, lambda: datetime.now(UTC), began_with
    )


def _never(variables: Mapping[str, JSON]) -> JSON:
    return None


def _report_expression(block: Block, text: str, error: ExpressionError) -> None:
    words = [(word, entry.value) for word, entry in block.entries()]
    word, node = next(
        (
            (word, node)
            for word, value in words
            for node in _texts(value)
            if node.value == text and word not in SOURCE.now
        ),
        ("", block.node),
    )
    message = f"{word}: {error.message} (at {error.line}:{error.column} of the expression)"
    if error.message.startswith("unknown name") and re.fullmatch(r"[\w.-]+", text):
        message += f"; this is CEL, so a text needs quotes inside: \"'{text}'\""
    block.error(node, message)
