"""What a connector's model objects to, in our words, at the value or key that it is about."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, cast, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from eventflow.rulefile.block import Block
from eventflow.rulefile.nodes import at, kind, locate, plain_value
from eventflow.rulefile.report import did_you_mean, unknown

Path = tuple[str | int, ...]

_OURS: Final[Mapping[str, str]] = {
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "list_type": "must be a list",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}
"""Pydantic's kinds of error that a person would otherwise have to translate."""


_OF_WORDS: Final = frozenset({"missing", "extra_forbidden"})
"""Kinds of error that are about the names of words and not about their values."""


def report_misfits(
    block: Block, model: type[BaseModel], error: ValidationError, holes: Collection[Path] = ()
) -> None:
    """Report everything that the connector's model objects to.

    `holes` are the places of texts that have holes: of a value with such a place in it, nothing can be said
    yet but which words it lacks, and which it does not have.
    """
    details = error.errors(include_url=False)
    later = {detail["loc"][:-1] for detail in details if "not supported yet" in detail["msg"]}
    for detail in details:
        # What is missing beside a word that does not work yet may not be missing once it does.
        if detail["type"] == "missing" and detail["loc"][:-1] in later:
            continue
        path = _path_in(block, detail["loc"])
        if detail["type"] in _OF_WORDS or not any(_touch(path, hole) for hole in holes):
            _report(block, model, detail, path)


def _touch(path: Path, hole: Path) -> bool:
    """Whether one is the other, or stands within it."""
    return all(one == other for one, other in zip(path, hole, strict=False))


def _report(block: Block, model: type[BaseModel], detail: ErrorDetails, path: Path) -> None:
    if detail["type"] == "missing":
        where = locate(block.node, path[:-1], on_key=True) if len(path) > 1 else block.mark
        block.error(where, f"'{'.'.join(map(str, path))}' is missing{_forms(model, path)}")
    elif detail["type"] == "extra_forbidden":
        where = locate(block.node, path, on_key=True)
        block.error(where, unknown("word", str(path[-1]), _words_at(model, path[:-1])))
    else:
        block.error(locate(block.node, path), _in_our_words(block, model, path, detail))


def _path_in(block: Block, loc: Path) -> Path:
    """The part of pydantic's location that exists in the file: it adds the names of union members to it."""
    value: Any = plain_value(block.node)
    path: list[str | int] = []
    for index, step in enumerate(loc):
        last = index == len(loc) - 1
        in_map, in_list = isinstance(value, dict), isinstance(value, list)
        if (in_map and step in value) or (in_list and isinstance(step, int)):
            value = value[step]
            path.append(step)
        elif last and in_map and isinstance(step, str) and step.isidentifier():
            path.append(step)
    return tuple(path)


def _in_our_words(block: Block, model: type[BaseModel], path: Path, detail: ErrorDetails) -> str:
    dotted = ".".join(str(step) for step in path)
    text = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if not path:
        return text
    if detail["type"] in {"value_error", "assertion_error"}:
        return f"'{dotted}': {text}"
    said = _OURS.get(detail["type"]) or f"{text[0].lower()}{text[1:]}".replace("input should be", "must be")
    node = at(block.node, path)
    shown = "" if said.endswith("empty") or node is None else f", not {kind(node)}"
    form = _form(model, path) if said == "must be a mapping" else ""
    return f"'{dotted}' {said}{form}{shown}{_near(detail)}"


def _form(model: type[BaseModel], path: Path) -> str:
    """` such as {quiet: 2s}`, from the example that the connector's model gives for a word of the top."""
    field = model.model_fields.get(str(path[0])) if len(path) == 1 else None
    example = (field.examples or [None])[0] if field else None
    if not isinstance(example, dict):
        return ""
    words = cast(dict[str, Any], example).items()
    return f" such as {{{', '.join(f'{word}: {value}' for word, value in words)}}}"


def _forms(model: type[BaseModel], path: Path) -> str:
    """`: what it is`, where a word of the top that must be there is described by the connector's model."""
    field = model.model_fields.get(str(path[0])) if len(path) == 1 else None
    return f": {field.description}" if field and field.description else ""


def _near(detail: ErrorDetails) -> str:
    if detail["type"] not in {"literal_error", "enum"} or not isinstance(detail["input"], str):
        return ""
    expected = str(detail.get("ctx", {}).get("expected", "")).replace(" or ", ",")
    return did_you_mean(detail["input"], [one.strip(" '") for one in expected.split(",")])


def _words_at(model: type[BaseModel], path: Path) -> list[str]:
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
