"""The words of the `kafka` kind of task."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from connectors.kafka.task import PublishConfig
from eventflow.errors import RuleSetError
from eventflow.rulefile.load import load

RECORD = {"bootstrap": "localhost:9092", "topic": "orders.v1", "value": {"n": 1}}


def config(**words: Any) -> PublishConfig:
    return PublishConfig.model_validate({**RECORD, **words})


@pytest.mark.parametrize(
    ("words", "content"),
    [
        ({}, b'{"n":1}'),
        ({"value": "text"}, b'"text"'),
        ({"value": 10**30}, str(10**30).encode()),
        ({"value": "grün", "format": "text"}, "grün".encode()),
        ({"value": "AP8=", "format": "bytes"}, b"\x00\xff"),
        ({"value": None, "key": "k"}, None),
        ({"value": None, "key": "k", "format": "bytes"}, None),
    ],
)
def test_the_value_is_written_as_its_format_says(words: dict[str, Any], content: bytes | None) -> None:
    assert config(**words).content() == content


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"value": None}, "it needs a `key`"),
        ({"value": 3, "format": "text"}, "`format: text` takes a `value` that is text"),
        ({"value": "no base64!", "format": "bytes"}, "takes a `value` in base64"),
        ({"topic": "a b"}, "topic"),
        ({"partition": -1}, "partition"),
        ({"partition": "1"}, "partition"),
        ({"key": True}, "key"),
        ({"headers": {"eventflow-idempotency-key": "x"}}, "is written by itself"),
        ({"tls": {"ca": "ca.pem"}}, "are absolute"),
        ({"acks": 1}, "acks"),
    ],
)
def test_what_could_not_be_written_is_refused(words: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        config(**words)


def test_a_block_in_a_rule_file_is_checked_but_for_its_holes() -> None:
    def problems(words: str) -> list[str]:
        text = f"workflows: {{w: {{params: {{p: int}}, tasks: {{t: {{kafka: {{{words}}}}}}}}}}}"
        try:
            load({"r.yaml": text.encode()}, Path("/set"), {})
        except RuleSetError as error:
            return [one.message.removeprefix("workflow 'w', task 't': kafka: ") for one in error.problems]
        return []

    assert (
        problems(
            'bootstrap: "${secret.KAFKA}", topic: t, value: {n: "${params.p}"}, partition: "${params.p}"'
        )
        == []
    )
    assert problems("topic: t, value: null") == ["'bootstrap' is missing"]
    assert problems("bootstrap: a, topic: t, value: null") == [
        "`value: null` deletes what has its key, so it needs a `key`"
    ]
    assert problems("bootstrap: a, topic: t, vlaue: 1, value: 2") == [
        "unknown word 'vlaue'; did you mean 'value'?"
    ]
    assert problems("bootstrap: a, topic: t, value: 2, format: jsn") == [
        "'format' must be 'json', 'text' or 'bytes', not the text 'jsn'; did you mean 'json'?"
    ]


def test_its_words_are_known_where_the_client_library_is_not_installed() -> None:
    code = (
        "import sys; sys.modules['aiokafka'] = None\n"
        "from eventflow.rulefile.connectors import find_kinds\n"
        "print(find_kinds()['kafka'].Config.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "PublishConfig\n"
