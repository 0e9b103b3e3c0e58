"""The words of rule files: which there are, what may stand behind them, and which do not work yet.

One table for reading (`Block.check_words`), for did-you-mean and for the JSON Schema of editors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from eventflow.matching.rule import OnError
from eventflow.units import DURATION
from eventflow.workflow.definition import ParamType

NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
"""The names of sources, workflows and rules."""

Schema = Mapping[str, Any]
"""A fragment of JSON Schema."""


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one kind of object. `later` are words of the language that are refused for now."""

    now: Mapping[str, Schema]
    later: frozenset[str] = frozenset()
    required: tuple[str, ...] = ()
    any_of: tuple[str, ...] = field(default=())
    """At least one of these must be there."""


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _texts(description: str) -> Schema:
    return {
        "description": description,
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
    }


def _duration(description: str) -> Schema:
    return {"type": "string", "pattern": f"^{DURATION.pattern}$", "description": description}


def _named(of: str, description: str) -> Schema:
    return {
        "description": description,
        "anyOf": [
            {"type": "null"},
            {
                "type": "object",
                "propertyNames": {"pattern": f"^{NAME.pattern}$"},
                "additionalProperties": {"$ref": f"#/$defs/{of}"},
            },
        ],
    }


_INPUTS: Schema = {
    "type": "object",
    "description": "Values by name; text may hold ${CEL}, and text that is one hole keeps the value's type.",
}

FILE = Words(
    {
        "sources": _named("source", "Where events come from, by name."),
        "workflows": _named("workflow", "What runs, by name."),
        "rules": _named("rule", "What starts when, by name."),
    }
)

RULE = Words(
    {
        "from": _texts("A source, or a list of sources; absent: any source."),
        "match": {"$ref": "#/$defs/match"},
        "where": _text("CEL over `event`, asked last."),
        "run": _text("The workflow to start."),
        "with": _INPUTS,
        "emit": _text("The type of the event to emit; `with` is its data."),
        "mode": {"const": "live", "description": "live"},
        "priority": {"type": "integer", "minimum": 0, "maximum": 9, "description": "Higher runs first; 0."},
        "reentry": {
            "type": "integer",
            "minimum": 0,
            "maximum": 1000,
            "description": "How often the rule may stand in its own causal chain; 0.",
        },
        "on_error": {"enum": [str(one) for one in OnError], "description": "When `where` ends in an error."},
        "owner": _text("Who answers for the rule."),
        "tags": _texts("Words to find the rule by."),
        "description": _text("What the rule is for."),
    },
    later=frozenset({
        "when", "batch", "debounce", "throttle", "concurrency", "delay", "time", "lateness", "on_change",
        "on_incomplete", "require",
    }),
    any_of=("run", "emit"),
)  # fmt: skip

WHEN = frozenset({
    "all", "any", "sequence", "count", "sum", "distinct", "min", "max", "absent",
    "key", "within", "every", "need", "consume", "reaches", "or_after", "timezone", "after", "by", "days",
    "calendar", "grace", "keys", "from", "match", "where", "members",
})  # fmt: skip
"""The words below `when`; none works yet, but a misspelt one is still named."""

SOURCE = Words({"connector": _text("The kind of source: file, webhook, ...")}, required=("connector",))

LATER_CONNECTORS = frozenset({"s3"})

WORKFLOW = Words(
    {
        "params": {
            "type": "object",
            "description": "The type of every parameter, by name.",
            "additionalProperties": {
                "anyOf": [{"enum": [str(one) for one in ParamType]}, {"$ref": "#/$defs/param"}]
            },
        },
        "tasks": {
            "type": "object",
            "minProperties": 1,
            "description": "The tasks, by name.",
            "additionalProperties": {"$ref": "#/$defs/task"},
        },
    },
    required=("tasks",),
)

PARAM = Words(
    {
        "type": {"enum": [str(one) for one in ParamType], "description": "The parameter's type."},
        "default": {"description": "The value where none is given; without it one must be given."},
    },
    required=("type",),
)

TASK = Words(
    {
        "python": _text("module:function, looked up in the rule set's folder first."),
        "shell": {
            "type": "array",
            "items": {"type": "string"},
            "minItems": 1,
            "description": "A program and its arguments; no shell reads them.",
        },
        "with": _INPUTS,
        "after": _texts("The tasks that must have succeeded before."),
        "retry": {"$ref": "#/$defs/retry"},
        "timeout": _duration("The longest one attempt may take."),
    },
    later=frozenset({"sql", "http", "workflow", "ray", "on_success", "on_failure", "pool", "resources"}),
    any_of=("python", "shell"),
)
"""Beside these, the words of the kinds that connectors bring."""

RETRY = Words(
    {
        "attempts": {"type": "integer", "minimum": 1, "maximum": 1000, "description": "Tries in all."},
        "backoff": _duration("The wait before the second try; it doubles, with jitter."),
    }
)

_SCALAR: Schema = {"type": ["string", "number", "boolean", "null"]}
_NUMBER: Schema = {"type": "number"}
_MATCHES: Schema = {"type": "array", "items": {"$ref": "#/$defs/match"}, "minItems": 1}

PATTERNS: Mapping[str, Schema] = {
    "match": {
        "type": "object",
        "minProperties": 1,
        "description": "Conditions by path; all must hold.",
        "properties": {
            "any_of": _MATCHES,
            "all_of": _MATCHES,
            "none_of": _MATCHES,
            "any": {
                "type": "object",
                "description": "One element of the array at `in` satisfies all of `match`.",
                "properties": {"in": _text("The array's path."), "match": {"$ref": "#/$defs/match"}},
                "required": ["in", "match"],
                "additionalProperties": False,
            },
        },
        "additionalProperties": {"$ref": "#/$defs/condition"},
    },
    "condition": {
        "anyOf": [
            _SCALAR,
            {"type": "array", "items": _SCALAR, "minItems": 1},
            {"$ref": "#/$defs/operators"},
        ]
    },
    "operators": {
        "type": "object",
        "minProperties": 1,
        "description": "All of them must hold.",
        "properties": {
            "eq": _SCALAR,
            "in": {"type": "array", "items": _SCALAR, "minItems": 1},
            "not": {"$ref": "#/$defs/condition"},
            "prefix": _text("The text begins with this."),
            "suffix": _text("The text ends with this."),
            "contains": _text("The text contains this."),
            "glob": _text("* within a segment, ** across, ? one character; the whole text."),
            "regex": _text("RE2, searched for anywhere in the text."),
            "ieq": _text("Equal but for upper and lower case."),
            "gt": _NUMBER,
            "gte": _NUMBER,
            "lt": _NUMBER,
            "lte": _NUMBER,
            "between": {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2},
            "cidr": _texts("A network such as 10.0.0.0/8, or a list of them."),
            "exists": {"type": "boolean"},
        },
        "additionalProperties": False,
    },
}
"""What may stand in `match`: for editors only; reading asks `compile_pattern`."""

_LIST: Schema = {"type": "array"}
_MOMENT = _text('RFC 3339 with an offset, or a time of day such as "06:00" on 2026-01-01 in UTC.')

CASE_FILE = Words({"cases": _LIST}, required=("cases",))
CASE = Words(
    {"name": _text("What the case shows."), "given": _LIST, "expect": _LIST, "also": {"type": "object"}},
    required=("name", "given", "expect"),
)
GIVEN = Words(
    {
        "at": _MOMENT,
        "from": _text("The source; absent only where the set has one."),
        "event": {"type": "object"},
        "advance": _duration("The clock moves on."),
    },
    any_of=("event", "advance"),
)
CASE_EVENT = Words(
    {
        "type": _text("The event's type."),
        "subject": _text("The event's subject."),
        "data": {},
        "id": _text("The event's id."),
        "time": _MOMENT,
        "meta": {"type": "object"},
    },
    required=("type",),
)
EXPECTED = Words(
    {
        "fire": _text("A rule that fires."),
        "no_fire": _text("A rule that does not."),
        "emit": _text("The type of an event that a rule emits."),
        "no_emit": _text("The type of an event that none emits."),
        "key": {},
        "with": {"type": "object"},
        "at": _MOMENT,
        "data": {},
    },
    later=frozenset({"open", "missing"}),
    any_of=("fire", "no_fire", "emit", "no_emit"),
)
_COUNT: Schema = {"type": "integer", "minimum": 0}
VARIATIONS = Words({"shuffle": _COUNT, "splits": _COUNT})

DEFINITIONS: Mapping[str, Words] = {
    "source": SOURCE,
    "workflow": WORKFLOW,
    "param": PARAM,
    "task": TASK,
    "retry": RETRY,
    "rule": RULE,
}
