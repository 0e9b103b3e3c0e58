"""Tasks of kinds that connectors bring: what loading says of their blocks, and what it leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any, cast

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from eventflow.errors import RuleSetError
from eventflow.rulefile.connectors import TASK_GROUP, Connectors, find_kinds
from eventflow.rulefile.load import load
from eventflow.rulefile.schema import rule_file_schema
from eventflow.task import Context, Kind
from eventflow.workflow.definition import OfKind, Task


class Place(BaseModel):
    """Where it goes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    room: str
    shelf: int = 0


class Store:
    """A third party's kind, as far as loading looks at it."""

    class Config(BaseModel):
        """Its words."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        place: Place
        count: int = Field(default=1, ge=1)
        labels: list[str] = []
        token: str = ""
        days: Annotated[Any, AfterValidator(lambda days: days.keys())] = None

    async def run(self, config: Any, ctx: Context, /) -> object: ...

    async def close(self) -> None: ...


KINDS = cast("Mapping[str, type[Kind]]", {"store": Store})
HEAD = """\
workflows:
  w:
    params: {n: int, room: string, place: map}
    tasks:
      first: {shell: [x]}
      t:
"""


def loaded(words: str, kinds: Mapping[str, type[Kind]] = KINDS) -> Task:
    text = HEAD + "".join(f"        {line}\n" for line in words.splitlines())
    return load({"r.yaml": text.encode()}, Path("/set"), {}, kinds=kinds).workflows["w"].tasks["t"]


def said(words: str, kinds: Mapping[str, type[Kind]] = KINDS) -> list[str]:
    with pytest.raises(RuleSetError) as caught:
        loaded(words, kinds)
    return [str(problem).removeprefix("r.yaml:") for problem in caught.value.problems]


def test_ours_are_found() -> None:
    assert list(find_kinds()) == ["kafka"]


def test_a_block_becomes_templates_beside_the_words_of_every_task() -> None:
    block = 'store: {place: {room: "${params.room}", shelf: 3}, count: "${params.n}"}'
    task = loaded(f"{block}\nafter: first\nretry: {{attempts: 2}}")
    assert task.call == OfKind("store", KINDS["store"])
    assert list(task.inputs) == ["place", "count"]
    assert [hole.text for hole in task.inputs["place"].holes] == ["params.room"]
    assert task.after == ("first",)
    assert task.retry.attempts == 2


@pytest.mark.parametrize(
    "words",
    [
        'store: {place: {room: a}, count: "${params.n}"}',
        'store: {place: "${params.place}"}',
        'store: {place: {room: a, shelf: "${params.n}"}, labels: ["${params.room}", b]}',
        'store: {place: {room: a}, token: "${secret.TOKEN}"}',
        'store: {place: {room: "a$${b"}, token: "Bearer ${secret.TOKEN}"}',
    ],
)
def test_what_a_hole_will_bring_is_not_judged_yet(words: str) -> None:
    loaded(words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "store: {place: {room: a}, cuont: 2}",
            ["7:35: workflow 'w', task 't': store: unknown word 'cuont'; did you mean 'count'?"],
        ),
        (
            'store: {place: {room: "${params.room}", shelv: 1}}',
            ["7:49: workflow 'w', task 't': store: unknown word 'shelv'; did you mean 'shelf'?"],
        ),
        ("store: {count: 2}", ["7:9: workflow 'w', task 't': store: 'place' is missing"]),
        (
            'store: {place: {shelf: "${params.n}"}}',
            ["7:17: workflow 'w', task 't': store: 'place.room' is missing"],
        ),
        (
            "store: {place: {room: a}, count: many}",
            ["7:42: workflow 'w', task 't': store: 'count' must be a valid integer, unable to parse string "
             "as an integer, not the text 'many'"],
        ),
        (
            'store: {place: {room: "${params.rom}"}}',
            ["7:24: workflow 'w', task 't': unknown parameter 'rom'; did you mean 'room'?"],
        ),
        (
            'store: {place: {room: "${event.id}"}}',
            ["7:31: workflow 'w', task 't': store: place: hole ${event.id}: unknown name 'event'; here you "
             "may read params, tasks, run"],
        ),
        (
            'store: {place: {room: "${tasks.first.result}"}}',
            ["7:24: workflow 'w', task 't': the result of task 'first' is not there by then; add it to "
             "'after'"],
        ),
        ("store: 3", ["7:16: workflow 'w', task 't': store: must be a mapping, not the number 3"]),
        (
            "store: {place: {room: a}}\nshell: [x]",
            ["7:9: workflow 'w', task 't': has both 'shell' and 'store'; a task runs one thing"],
        ),
        (
            "store: {place: {room: a}}\nwith: {a: 1}",
            ["8:9: workflow 'w', task 't': 'with' is for python tasks; write the holes below 'store'"],
        ),
        ("after: first", ["6:7: workflow 'w', task 't': needs 'python' or 'shell' or 'store'"]),
        ("stor: {}", ["7:9: workflow 'w', task 't': unknown word 'stor'; did you mean 'store'?"]),
    ],
)  # fmt: skip
def test_a_wrong_block_is_told_where_and_why(words: str, expected: list[str]) -> None:
    assert said(words) == expected


def test_a_bug_in_the_model_of_a_kind_is_said_at_its_place_unless_a_hole_may_be_the_reason() -> None:
    assert said("store: {place: {room: a}, days: 3}") == [
        "7:9: workflow 'w', task 't': store: its words cannot be checked: AttributeError: 'int' object has "
        "no attribute 'keys'"
    ]
    loaded('store: {place: {room: a}, days: "${params.place}"}')


def test_secrets_stand_below_a_kind_only() -> None:
    assert said('python: "json:loads"\nwith: {s: "${secret.A}"}') == [
        "8:19: workflow 'w', task 't': with: s: a secret cannot stand here: its value would be stored"
    ]


def test_a_kind_that_does_not_import_is_known_and_says_what_to_install() -> None:
    point = EntryPoint(name="ghost", value="no.such.module:Ghost [ghosts]", group=TASK_GROUP)
    assert said("ghost: {}", Connectors[Kind]({"ghost": point}, "kind of task")) == [
        "7:9: workflow 'w', task 't': kind of task 'ghost' does not import here: No module named 'no'; "
        "install its package[ghosts]"
    ]


def test_editors_know_the_words_of_kinds_and_that_a_hole_may_stand_for_any_value() -> None:
    definitions = rule_file_schema({}, KINDS)["$defs"]
    assert definitions["task"]["properties"]["store"] == {"$ref": "#/$defs/store-task"}
    assert {"required": ["store"]} in definitions["task"]["anyOf"]
    hole = {"$ref": "#/$defs/hole"}
    words = definitions["store-task"]["properties"]
    assert words["place"] == {"anyOf": [{"$ref": "#/$defs/store-task.Place"}, hole]}
    assert words["token"] == {"type": "string"}
    assert definitions["store-task.Place"]["properties"]["shelf"]["anyOf"][1] == hole
