"""The Kafka page does what it says: its rule files load, its tables are complete, its event is what comes."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import get_args

import pytest

from connectors.kafka.config import Format, KafkaConfig
from connectors.kafka.record import VARIABLES, RecordMaker
from eventflow.event import Event
from eventflow.rulefile.connectors import find_connectors
from eventflow.rulefile.load import load

PAGE = (Path(__file__).parents[2] / "docs/connectors/kafka.md").read_text()
YAML = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
(EVENT,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", YAML)
def test_a_rule_file_of_the_page_loads(text: str, tmp_path: Path) -> None:
    loaded = load({"page.yaml": text.encode()}, folder=tmp_path, connectors=find_connectors())
    assert not [str(problem) for problem in loaded.warnings]


def test_every_word_and_format_is_explained() -> None:
    words = PAGE.partition("## Words")[2].partition("## The event")[0]
    rows = " ".join(line.split("|")[1] for line in words.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", rows)) == set(KafkaConfig.model_fields)
    assert all(f"`{name}`" in words for name in get_args(Format))
    assert all(f"`{name}`" in PAGE for name in VARIABLES)


def test_the_event_of_the_page_is_what_its_record_becomes() -> None:
    shown = json.loads(EVENT)
    meta = shown["meta"]
    config = KafkaConfig(bootstrap="b", topics=["payments.v1"], initial="earliest")
    made = RecordMaker("payments", config, lambda text, _: pytest.fail(text)).record(
        meta["topic"], meta["partition"], meta["offset"], b"p-1", json.dumps(shown["data"]).encode(),
        [("trace", b"7f3a")], meta["timestamp"],
    )  # fmt: skip
    assert isinstance(made, Event)
    assert {name: getattr(made, name) for name in shown} == {
        **shown, "time": datetime.fromisoformat(shown["time"]),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "match", "warning"),
    [
        ("format: json", "type: kafka.recrod", "did you mean 'kafka.record'?"),
        ("format: json, type: data.kind", "type: anything", None),
        ("format: cloudevents", "type: com.example.paid", None),
        ("format: debezium", "type: row.insert", "did you mean 'row.inserted'?"),
        ("format: debezium", "type: kafka.record, data.ts_ms: 5", None),
        ("format: text", "type: kafka.record, data.kind: order", "data.kind"),
    ],
)
def test_check_knows_what_a_topic_sends(words: str, match: str, warning: str | None, tmp_path: Path) -> None:
    text = f"""
sources:
  topic: {{connector: kafka, bootstrap: b, topics: [t], initial: latest, {words}}}
rules:
  seen: {{from: topic, match: {{{match}}}, emit: seen}}
"""
    loaded = load({"r.yaml": text.encode()}, folder=tmp_path, connectors=find_connectors())
    said = [str(problem) for problem in loaded.warnings]
    assert len(said) == (warning is not None)
    assert warning is None or warning in said[0]
