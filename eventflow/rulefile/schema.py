"""The JSON Schema of rule files, for editors: `# yaml-language-server: $schema=.../schema.json`.

Made from the same words that reading uses and from the connectors' models. `docs/rule-file.schema.json` is
what `python -m eventflow.rulefile.schema` prints; a test keeps the two equal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast

from pydantic import BaseModel

from eventflow.rulefile.connectors import find_connectors, find_kinds
from eventflow.rulefile.words import DEFINITIONS, FILE, PATTERNS, SOURCE, TASK, Schema, Words
from eventflow.source import Source
from eventflow.task import Kind

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_HOLE: Final[Schema] = {"type": "string", "pattern": r"\$\{", "description": "Text with a hole: ${CEL}."}


def rule_file_schema(
    connectors: Mapping[str, type[Source]], kinds: Mapping[str, type[Kind]] | None = None
) -> dict[str, Any]:
    """The schema of one rule file, with the words of these connectors and kinds of task (None: all here)."""
    kinds = find_kinds() if kinds is None else kinds
    definitions: dict[str, Any] = {name: _object(words) for name, words in DEFINITIONS.items()}
    definitions |= PATTERNS
    definitions["source"] = _source(sorted(connectors))
    definitions["task"] = _object(_task(sorted(kinds)))
    definitions["hole"] = _HOLE
    for name in sorted(connectors):
        model, inner = _model(connectors[name].Config, name)
        model["properties"] = {"connector": {"const": name}, **model.get("properties", {})}
        definitions |= {**inner, f"{name}-source": model}
    for word in sorted(kinds):
        model, inner = _model(kinds[word].Config, f"{word}-task")
        definitions |= {name: _with_holes(one) for name, one in {**inner, f"{word}-task": model}.items()}
    top = _object(FILE)
    return {
        "$schema": DIALECT,
        "title": "eventflow rule file",
        **top,
        "type": ["object", "null"],
        "$defs": definitions,
    }


def _model(model: type[BaseModel], prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of a connector's model, and those of the models within it by their names here."""
    schema = _plain(model.model_json_schema(ref_template=f"#/$defs/{prefix}.{{model}}"))
    return schema, {f"{prefix}.{name}": one for name, one in schema.pop("$defs", {}).items()}


def _task(kinds: Sequence[str]) -> Words:
    """A task, with the words of these kinds."""
    now: dict[str, Schema] = {word: {"$ref": f"#/$defs/{word}-task"} for word in kinds}
    return replace(TASK, now={**TASK.now, **now}, any_of=(*TASK.any_of, *kinds))


def _with_holes(schema: dict[str, Any]) -> dict[str, Any]:
    """The same, but that every value within it may be text with a hole."""
    made = dict(schema)
    if "properties" in made:
        made["properties"] = {name: _or_hole(one) for name, one in made["properties"].items()}
    for word in ("items", "additionalProperties"):
        if isinstance(made.get(word), dict):
            made[word] = _or_hole(made[word])
    for word in ("anyOf", "oneOf", "allOf"):
        if word in made:
            made[word] = [_with_holes(one) for one in made[word]]
    return made


def _or_hole(schema: dict[str, Any]) -> dict[str, Any]:
    takes_it_anyway = not schema or schema == {"type": "string"}
    return schema if takes_it_anyway else {"anyOf": [_with_holes(schema), {"$ref": "#/$defs/hole"}]}


def _object(words: Words) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": dict(words.now),
        "additionalProperties": False,
    }
    if words.required:
        schema["required"] = list(words.required)
    if words.any_of:
        schema["anyOf"] = [{"required": [word]} for word in words.any_of]
    return schema


def _source(connectors: list[str]) -> dict[str, Any]:
    """Any connector may be installed elsewhere; those known here are checked word by word."""
    return {
        "type": "object",
        "properties": {"connector": {**SOURCE.now["connector"], "examples": connectors}},
        "required": list(SOURCE.required),
        "allOf": [
            {
                "if": {"properties": {"connector": {"const": name}}, "required": ["connector"]},
                "then": {"$ref": f"#/$defs/{name}-source"},
            }
            for name in connectors
        ],
    }


def _plain(schema: Any) -> Any:
    """Without what pydantic adds for itself: titles made of names, and defaults in forms that no file has."""
    if isinstance(schema, list):
        return [_plain(one) for one in cast(list[Any], schema)]
    if not isinstance(schema, dict):
        return schema
    kept = {
        word: one for word, one in cast(dict[str, Any], schema).items() if word not in ("title", "default")
    }
    for word, one in kept.items():
        if word in ("properties", "$defs"):
            kept[word] = {name: _plain(inner) for name, inner in one.items()}
        else:
            kept[word] = _plain(one)
    return kept


def as_text(schema: Mapping[str, Any]) -> str:
    """The schema as the file holds it."""
    return json.dumps(schema, indent=2, sort_keys=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_text(rule_file_schema(find_connectors())))
