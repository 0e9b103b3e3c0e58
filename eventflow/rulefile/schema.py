"""The JSON Schema of rule files, for editors: `# yaml-language-server: $schema=.../schema.json`.

Made from the same words that reading uses and from the connectors' models. `docs/rule-file.schema.json` is
what `python -m eventflow.rulefile.schema` prints; a test keeps the two equal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, cast

from eventflow.rulefile.connectors import find_connectors
from eventflow.rulefile.words import DEFINITIONS, FILE, PATTERNS, SOURCE, Words
from eventflow.source import Source

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def rule_file_schema(connectors: Mapping[str, type[Source]]) -> dict[str, Any]:
    """The schema of one rule file, with the words of these connectors."""
    definitions: dict[str, Any] = {name: _object(words) for name, words in DEFINITIONS.items()}
    definitions |= PATTERNS
    definitions["source"] = _source(sorted(connectors))
    for name in sorted(connectors):
        model = _plain(connectors[name].Config.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}"))
        for inner, schema in model.pop("$defs", {}).items():
            definitions[f"{name}.{inner}"] = schema
        model["properties"] = {"connector": {"const": name}, **model.get("properties", {})}
        definitions[f"{name}-source"] = model
    top = _object(FILE)
    return {
        "$schema": DIALECT,
        "title": "eventflow rule file",
        **top,
        "type": ["object", "null"],
        "$defs": definitions,
    }


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
