"""What a connector's model objects to, in our words, at the value or key that it is about."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final, cast, get_args

from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from eventflow.rulefile.block import Block
from eventflow.rulefile.nodes import at, kind, locate, plain_value
from eventflow.rulefile.report import did_you_mean, nearest, unknown

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
    "datetime_parsing": "must be a time with its offset, such as 2026-01-31T06:00:00Z",
    "datetime_from_date_parsing": "must be a time with its offset, such as 2026-01-31T06:00:00Z",
    "timezone_aware": "must be a time with its offset, such as 2026-01-31T06:00:00Z",
}
"""Pydantic's kinds of error that a person would otherwise have to translate."""


_OF_WORDS: Final = frozenset({"missing", "extra_forbidden"})
"""Kinds of error that are about the names of words and not about their values."""


@dataclass(frozen=True, slots=True)
class _Misfit:
    """One objection, at `path` in the file. Of a union that stands at `fork`, the member `form` objects."""

    detail: ErrorDetails
    path: Path
    fork: Path = ()
    form: str | None = None

    @property
    def is_of_shape(self) -> bool:
        """Whether the member is for another kind of value than the one given."""
        kind_of_error = self.detail["type"]
        other_words = kind_of_error in {"literal_error", "enum"} and not isinstance(self.detail["input"], str)
        return self.path == self.fork and (kind_of_error.endswith("_type") or other_words)


def report_misfits(
    block: Block, model: type[BaseModel], error: ValidationError, holes: Collection[Path] = ()
) -> None:
    """Report everything that the connector's model objects to.

    `holes` are the places of texts that have holes: of a value with such a place in it, nothing can be said
    yet but which words it lacks, and which it does not have.
    """
    details = error.errors(include_url=False)
    given = plain_value(block.node)
    later = {one["loc"][:-1] for one in details if re.search("not supported yet|did you mean", one["msg"])}
    # What is missing beside a word that does not work yet may not be missing once it does.
    misfits = [
        _placed(given, detail)
        for detail in details
        if not (detail["type"] == "missing" and detail["loc"][:-1] in later)
    ]
    meant = {(one.path[:-1], word) for one in misfits for word in _meant(model, one)}
    for (_, form), members in groupby(misfits, key=lambda one: (one.fork, one.form and "of a union")):
        for misfit in _of_the_form_given(list(members)) if form else members:
            of_words = misfit.detail["type"] in _OF_WORDS
            if misfit.detail["type"] == "missing" and (misfit.path[:-1], misfit.path[-1]) in meant:
                continue
            if of_words or not any(_touch(misfit.path, hole) for hole in holes):
                _report(block, model, misfit)


def _placed(value: Any, detail: ErrorDetails) -> _Misfit:
    """Where in the file pydantic's location is: it adds the names of members of unions to it."""
    path: list[str | int] = []
    fork: Path = ()
    form: str | None = None
    for index, step in enumerate(detail["loc"]):
        in_map, in_list = isinstance(value, dict), isinstance(value, list)
        if (in_map and step in value) or (in_list and isinstance(step, int)):
            value = value[step]
            path.append(step)
        elif detail["type"] == "missing" and index == len(detail["loc"]) - 1:
            path.append(step)
        elif form is None:
            fork, form = tuple(path), str(step)
    return _Misfit(detail, tuple(path), fork, form)


def _of_the_form_given(members: Sequence[_Misfit]) -> Sequence[_Misfit]:
    """Of what members of one union object to, that of those for the kind of value that is given."""
    wrong = {one.form for one in members if one.is_of_shape}
    fitting = [one for one in members if one.form not in wrong]
    if fitting or len(members) == 1:
        return fitting or members
    first, *others = (_said(one.detail) for one in members)
    said = ", or ".join([first, *(text.removeprefix("must be ") for text in others)])
    return [replace(members[0], detail={**members[0].detail, "type": "no_form", "msg": said})]


def _meant(model: type[BaseModel], misfit: _Misfit) -> list[str]:
    """The word that an unknown one is a misspelling of."""
    if misfit.detail["type"] != "extra_forbidden":
        return []
    return nearest(str(misfit.path[-1]), _words_at(model, misfit))


def _touch(path: Path, hole: Path) -> bool:
    """Whether one is the other, or stands within it."""
    return all(one == other for one, other in zip(path, hole, strict=False))


def _report(block: Block, model: type[BaseModel], misfit: _Misfit) -> None:
    detail, path = misfit.detail, misfit.path
    if detail["type"] == "missing":
        where = locate(block.node, path[:-1], on_key=True) if len(path) > 1 else block.mark
        block.error(where, f"'{'.'.join(map(str, path))}' is missing{_forms(model, path)}")
    elif detail["type"] == "extra_forbidden":
        where = locate(block.node, path, on_key=True)
        block.error(where, _unknown(model, misfit))
    else:
        block.error(locate(block.node, path), _in_our_words(block, model, path, detail))


def _unknown(model: type[BaseModel], misfit: _Misfit) -> str:
    """What to say of a word that the model does not have; another member of the union may."""
    word = str(misfit.path[-1])
    others = [form for form, one in _models_at(model, misfit.path[:-1]) if word in _words_of(one)]
    if others:
        return f"'{word}' goes only with {' and '.join(sorted(others))}"
    return unknown("word", word, _words_at(model, misfit))


def _in_our_words(block: Block, model: type[BaseModel], path: Path, detail: ErrorDetails) -> str:
    dotted = ".".join(str(step) for step in path)
    text = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if not path:
        return text
    if detail["type"] in {"value_error", "assertion_error"}:
        return f"'{dotted}': {text}"
    said = _said(detail)
    node = at(block.node, path)
    shown = "" if said.endswith("empty") or node is None else f", not {kind(node)}"
    form = _form(model, path) if said == "must be a mapping" else ""
    return f"'{dotted}' {said}{form}{shown}{_near(detail)}"


def _said(detail: ErrorDetails) -> str:
    text = detail["msg"]
    return _OURS.get(detail["type"]) or f"{text[0].lower()}{text[1:]}".replace("input should be", "must be")


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


def _words_at(model: type[BaseModel], misfit: _Misfit) -> list[str]:
    """The words of the (nested) model that the misfit is about, for did-you-mean."""
    found = _models_at(model, misfit.path[:-1])
    named = [one for form, one in found if form == misfit.form]
    return [word for one in named or [one for _, one in found] for word in _words_of(one)]


def _words_of(model: type[BaseModel]) -> list[str]:
    return [info.alias or name for name, info in model.model_fields.items()]


def _models_at(model: type[BaseModel], path: Path) -> list[tuple[str, type[BaseModel]]]:
    """The models of the value at a path, by the names that pydantic gives to members of unions."""
    models = [(model.__name__, model)]
    for step in (step for step in path if isinstance(step, str)):
        models = [
            inner
            for _, one in models
            for name, info in one.model_fields.items()
            if step in (name, info.alias)
            for inner in _models_in(info.annotation)
        ]
    return models


def _models_in(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation.__name__, annotation
        return
    tags = [one.tag for one in get_args(annotation) if isinstance(one, Tag)]
    for inner in get_args(annotation):
        for name, model in _models_in(inner):
            yield tags[0] if tags else name, model
