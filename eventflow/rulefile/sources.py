"""The `sources` of a rule set: a connector's own words, checked by the connector's own model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from eventflow.rulefile.block import Block
from eventflow.rulefile.connectors import ConnectorUnavailable
from eventflow.rulefile.nodes import locate, plain_value, shorten
from eventflow.rulefile.report import did_you_mean, unknown
from eventflow.rulefile.ruleset import SourceSpec
from eventflow.rulefile.words import LATER_CONNECTORS, SOURCE
from eventflow.source import Delivery, Source


def read_source(
    name: str, block: Block, folder: Path, connectors: Mapping[str, type[Source]]
) -> SourceSpec | None:
    """Compile one source; None where it has errors, which have been reported by then."""
    connector = _connector(block, connectors)
    if connector is None:
        return None
    words = {key: plain_value(entry.value) for key, entry in block.entries() if key not in SOURCE.now}
    try:
        config = connector.Config.model_validate(words)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            _report(block, connector.Config, detail)
        return None
    if connector.delivery is Delivery.pushed and "id" not in words and "dedupe" not in words:
        block.warn(block.mark, "has neither 'id' nor 'dedupe': a sender's retry is a second event")
    here = folder / PurePosixPath(block.report.file).parent
    return SourceSpec(
        name, str(block.text("connector")), connector, config, here, block.report.file, block.mark.line
    )


def _connector(block: Block, connectors: Mapping[str, type[Source]]) -> type[Source] | None:
    if "connector" not in block:
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


def _report(block: Block, model: type[BaseModel], detail: ErrorDetails) -> None:
    """A pydantic error in our words, at the place of the value (or key) that it is about."""
    path = _path_in(block, detail["loc"])
    missing = detail["type"] == "missing"
    extra = detail["type"] == "extra_forbidden"
    if missing:
        where = locate(block.node, path[:-1], on_key=True) if len(path) > 1 else block.mark
    else:
        where = locate(block.node, path, on_key=extra)
    dotted = ".".join(str(step) for step in path)
    if missing:
        message = f"'{dotted}' is missing"
    elif extra:
        message = unknown("word", str(path[-1]), _words_at(model, path[:-1]))
    else:
        message = _in_our_words(path, dotted, detail)
    block.error(where, message)


def _path_in(block: Block, loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The part of pydantic's location that exists in the file: it adds the names of union members to it."""
    value: Any = plain_value(block.node)
    path: list[str | int] = []
    for index, step in enumerate(loc):
        last = index == len(loc) - 1
        if (isinstance(value, dict) and step in value) or (isinstance(value, list) and isinstance(step, int)):
            path.append(step)
            value = value[step]
        elif last and isinstance(value, dict) and isinstance(step, str) and step.isidentifier():
            path.append(step)
    return tuple(path)


def _in_our_words(path: tuple[str | int, ...], dotted: str, detail: ErrorDetails) -> str:
    text = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    hint = ""
    expected = str(detail.get("ctx", {}).get("expected", ""))
    if detail["type"] in {"literal_error", "enum"} and isinstance(detail["input"], str):
        hint = did_you_mean(
            detail["input"], [one.strip(" '") for one in expected.replace(" or ", ",").split(",")]
        )
    if not path:
        return text
    given = detail["input"]
    shown = "" if isinstance(given, dict | list) else f", not {shorten(repr(given))}"
    if detail["type"] in {"value_error", "assertion_error"}:
        return f"'{dotted}': {text}"
    return f"'{dotted}': {text[0].lower()}{text[1:]}{shown}{hint}"


def _words_at(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """The words of the (nested) model at a path, for did-you-mean."""
    models = [model]
    for step in path:
        models = [
            inner
            for one in models
            for name, info in one.model_fields.items()
            if step in (name, info.alias)
            for inner in _models_in(info.annotation)
        ]
    return [info.alias or name for one in models for name, info in one.model_fields.items()]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]
