"""The JSON Schema that editors use is in step with what reading accepts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from eventflow.rulefile.connectors import find_connectors
from eventflow.rulefile.nodes import plain_value
from eventflow.rulefile.schema import as_text, rule_file_schema
from eventflow.rulefile.yaml import read_yaml

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "docs" / "rule-file.schema.json"
SCHEMA = rule_file_schema(find_connectors())
TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "number": (int, float), "integer": (int,),
    "boolean": (bool,), "null": (type(None),),
}  # fmt: skip


def test_the_committed_schema_is_what_the_words_give() -> None:
    command = "`.venv/bin/python -m eventflow.rulefile.schema > docs/rule-file.schema.json`"
    assert COMMITTED.read_text() == as_text(SCHEMA), f"out of step: {command}"


def test_every_reference_leads_somewhere() -> None:
    assert {found for found in re.findall(r'"\$ref": "#/\$defs/([^"]+)"', as_text(SCHEMA))} <= SCHEMA[
        "$defs"
    ].keys()


@pytest.mark.parametrize(
    "text",
    [
        (ROOT / "tests" / "unit" / "complete.yaml").read_text(),
        "",
        "rules:\nsources:\n",
        "sources: {s: {connector: webhook, verify: none, id: data.id, dedupe: 7d}}",
        "sources: {s: {connector: webhook, verify: none, dedupe: {by: body, within: 10m}}}",
        "sources: {s: {connector: of-somebody-else, word: 1}}",
        *(path.read_text() for path in sorted((ROOT / "rules").rglob("*.yaml")) if ".test." not in path.name),
    ],
)
def test_files_that_load_are_valid(text: str) -> None:
    assert wrong(text) == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("rulez: {}", "rulez"),
        ("rules: {r: {mach: {type: x}, emit: y}}", "rules.r.mach"),
        ("rules: {r: {match: {type: x}}}", "rules.r"),
        ("rules: {r: {match: {data.n: {gt: '5'}}, emit: y}}", "rules.r.match.data.n"),
        ("rules: {r: {match: {data.n: {gtt: 5}}, emit: y}}", "rules.r.match.data.n"),
        ("rules: {r: {match: {any_of: []}, emit: y}}", "rules.r.match.any_of"),
        ("rules: {R: {match: {type: x}, emit: y}}", "rules.R"),
        ("sources: {s: {connector: file, path: x}}", "sources.s"),
        (
            "sources: {s: {connector: file, path: x, initial: process, settle: {quiet: 2}}}",
            "sources.s.settle.quiet",
        ),
        ("sources: {s: {connector: webhook, verify: null}}", "sources.s.verify"),
        ("workflows: {w: {tasks: {a: {shell: echo}}}}", "workflows.w.tasks.a.shell"),
        ("workflows: {w: {tasks: {a: {shell: [x], timeout: 5 min}}}}", "workflows.w.tasks.a.timeout"),
    ],
)
def test_what_does_not_load_for_its_shape_is_not_valid_either(text: str, place: str) -> None:
    assert place in wrong(text)


def wrong(text: str) -> list[str]:
    """The places of a file that the schema does not allow."""
    node, complete = read_yaml(text.encode(), lambda at, message: None)
    assert complete
    return sorted(set(_misfits(SCHEMA, None if node is None else plain_value(node), "")))


def _misfits(schema: Mapping[str, Any], value: Any, place: str) -> Iterator[str]:
    """As much of JSON Schema as our schema uses: the words that are not here would be noticed."""
    unknown = schema.keys() - {
        "$schema", "$defs", "$ref", "title", "description", "examples", "type", "const", "enum", "anyOf",
        "allOf", "if", "then", "properties", "additionalProperties", "required", "minProperties",
        "propertyNames", "items", "minItems", "maxItems", "pattern", "minLength", "minimum", "maximum",
    }  # fmt: skip
    assert not unknown
    if "$ref" in schema:
        yield from _misfits(SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], value, place)
    if not _scalar_fits(schema, value):
        yield place
        return
    if "anyOf" in schema:
        tried = [list(_misfits(one, value, place)) for one in schema["anyOf"]]
        if all(tried):
            yield from {place, *(found for one in tried for found in one)}
    for one in schema.get("allOf", ()):
        if "if" not in one or not list(_misfits(one["if"], value, place)):
            yield from _misfits(one.get("then", one), value, place)
    if isinstance(value, dict):
        yield from _map_misfits(schema, value, place)
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield place
        for item in value:
            yield from _misfits(schema.get("items", {}), item, place)


def _scalar_fits(schema: Mapping[str, Any], value: Any) -> bool:
    types = schema.get("type", list(TYPES))
    allowed = {kind for name in ([types] if isinstance(types, str) else types) for kind in TYPES[name]}
    if type(value) not in allowed:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, str):
        return (
            len(value) >= schema.get("minLength", 0)
            and re.search(schema.get("pattern", ""), value) is not None
        )
    if isinstance(value, int):
        return schema.get("minimum", value) <= value <= schema.get("maximum", value)
    return True


def _map_misfits(schema: Mapping[str, Any], value: dict[str, Any], place: str) -> Iterator[str]:
    if len(value) < schema.get("minProperties", 0) or any(
        word not in value for word in schema.get("required", ())
    ):
        yield place
    for name, inner in value.items():
        here = f"{place}.{name}".removeprefix(".")
        if "propertyNames" in schema and not _scalar_fits(schema["propertyNames"], name):
            yield here
        more = schema.get("additionalProperties", {})
        found = schema.get("properties", {}).get(name, more)
        if found is False:
            yield here
        else:
            yield from _misfits(found, inner, here)
