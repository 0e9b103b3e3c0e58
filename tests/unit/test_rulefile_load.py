"""A rule set that is right, in its compiled form: what ingest, workers and commands read of it."""

from __future__ import annotations

import textwrap
from datetime import timedelta
from pathlib import Path

import pytest

from eventflow.errors import RuleSetError, UsageError
from eventflow.event import Event, encode_json
from eventflow.matching.rule import OnError
from eventflow.rulefile.connectors import find_connectors
from eventflow.rulefile.load import load
from eventflow.rulefile.ruleset import RuleSet
from eventflow.source import Delivery
from eventflow.workflow.definition import ParamType, Retry

SET = (Path(__file__).parent / "complete.yaml").read_text()


def loaded(text: str, **more: bytes) -> RuleSet:
    files = {"r.yaml": textwrap.dedent(text).encode()}
    files |= {name.replace("__", "/") + ".py": content for name, content in more.items()}
    return load(files, Path("/set"), find_connectors())


@pytest.fixture(scope="module")
def ruleset() -> RuleSet:
    return loaded(SET, retail__tasks=b"def profile(path): ...\ndef check(rows): ...\n")


def test_sources_are_checked_and_know_their_place(ruleset: RuleSet) -> None:
    landing = ruleset.sources["landing"]
    assert (landing.connector, landing.delivery) == ("file", Delivery.ledger)
    assert landing.folder == Path("/set")
    assert (landing.file, landing.line) == ("r.yaml", 4)
    assert landing.config.model_dump()["settle"]["quiet"] == timedelta(seconds=2)
    assert ruleset.sources["orders"].delivery is Delivery.pushed


def test_a_source_that_only_moved_in_its_file_is_the_same_source(ruleset: RuleSet) -> None:
    moved = load({"r.yaml": b"# a comment\n" + SET.encode()}, Path("/set"), find_connectors())
    assert moved.sources["landing"].line == 5
    assert moved.sources == ruleset.sources
    changed = load(
        {"r.yaml": SET.replace("quiet: 2s", "quiet: 3s").encode()}, Path("/set"), find_connectors()
    )
    assert changed.sources["landing"] != ruleset.sources["landing"]


def test_relative_paths_start_at_the_file_that_declares_the_source() -> None:
    source = b"sources: {s: {connector: file, path: x, initial: ignore}}"
    found = load({"deep/down/r.yaml": source}, Path("/set"), find_connectors())
    assert found.sources["s"].folder == Path("/set/deep/down")


def test_tasks_stand_behind_those_they_come_after(ruleset: RuleSet) -> None:
    workflow = ruleset.workflows["load-orders"]
    assert list(workflow.tasks) == ["profile", "check", "load"]
    assert ruleset.roots("load-orders") == ("profile",)
    check, load_task = workflow.tasks["check"], workflow.tasks["load"]
    assert check.retry == Retry(3, timedelta(seconds=2))
    assert check.call == "retail.tasks:check"
    assert isinstance(load_task.call, tuple)
    assert load_task.timeout == timedelta(minutes=10)
    assert workflow.tasks["profile"].retry.attempts == 1


def test_parameters_have_types_and_defaults(ruleset: RuleSet) -> None:
    params = ruleset.workflows["load-orders"].params
    assert {name: (param.type, param.required) for name, param in params.items()} == {
        "path": (ParamType.string, True),
        "day": (ParamType.date, True),
        "limit": (ParamType.int, False),
    }
    assert ruleset.bind("load-orders", {"path": "a", "day": "2026-01-31"}) == {
        "path": "a",
        "day": "2026-01-31",
        "limit": 10,
    }


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
@pytest.mark.parametrize("kind", ["date", "datetime"])
def test_a_moment_that_is_no_day_in_utc_is_refused_like_any_other_text(text: str, kind: str) -> None:
    flow = loaded(f"workflows: {{w: {{params: {{v: {kind}}}, tasks: {{t: {{shell: [ls]}}}}}}}}")
    with pytest.raises(UsageError, match="parameter 'v'"):
        flow.bind("w", {"v": text})


def test_a_rule_keeps_all_of_its_words(ruleset: RuleSet) -> None:
    rule, told = ruleset.rules
    assert (rule.name, rule.sources, rule.run, rule.emit) == (
        "orders-landed", frozenset({"landing"}), "load-orders", None,
    )  # fmt: skip
    assert (rule.priority, rule.reentry, rule.on_error) == (7, 2, OnError.dead_letter)
    assert (rule.owner, rule.tags, rule.description) == (
        "data-platform", ("orders", "nightly"), "orders of two regions",
    )  # fmt: skip
    assert rule.where is not None
    assert set(rule.inputs) == {"path", "day"}
    assert (told.sources, told.emit) == (frozenset({"landing", "eventflow"}), "something.happened")
    assert not ruleset.warnings


def test_the_matcher_finds_the_rules(ruleset: RuleSet) -> None:
    data = {"dataset": "orders", "region": "eu", "size": 5, "name": "a.csv"}
    event = Event(source="landing", id="1", type="file.arrived", data=data, raw=encode_json(data))
    assert [rule.name for rule in ruleset.matcher.match(event)] == ["orders-landed"]


@pytest.mark.parametrize(
    ("rule", "event_type", "wanted"),
    [
        ("match: {type: eventflow.run.failed}", "eventflow.run.failed", True),
        ("match: {type: eventflow.run.failed}", "eventflow.run.succeeded", False),
        ("match: {type: {prefix: eventflow.run}}", "eventflow.run.succeeded", True),
        ("match: {data.state: failed}", "eventflow.run.failed", True),
        ("from: eventflow", "anything", True),
        ("from: s", "eventflow.run.failed", False),
        ("from: [s, eventflow], match: {type: x}", "x", True),
        ("match: {none_of: [{type: x}]}", "x", False),
        ("match: {none_of: [{type: x, data.n: 1}]}", "x", True),
        ("match: {any_of: [{type: x}, {data.n: 1}]}", "y", True),
        ("match: {any_of: [{type: x}, {type: z}]}", "y", False),
        ("match: {all_of: [{type: x}, {data.n: 1}]}", "y", False),
    ],
)
def test_an_event_of_eventflows_own_is_wanted_where_some_rule_may_take_it(
    rule: str, event_type: str, wanted: bool
) -> None:
    found = loaded(
        "sources: {s: {connector: file, path: x, initial: ignore}}\n"
        f"rules: {{r: {{{rule}, emit: out, reentry: 1}}}}\n"
    )
    assert found.wants(event_type) is wanted


def test_names_may_be_used_across_files_and_before_they_are_defined() -> None:
    files = {
        "a.yaml": b"rules: {r: {from: s, match: {type: file.arrived}, run: w}}",
        "b/c.yml": b"workflows: {w: {tasks: {a: {shell: [x]}}}}",
        "d.yaml": b"sources: {s: {connector: file, path: x, initial: ignore}}",
    }
    found = load(files, Path("/set"), find_connectors())
    assert [len(found.rules), len(found.workflows), len(found.sources)] == [1, 1, 1]


@pytest.mark.parametrize(
    "text", ["", "# nothing yet\n", "rules:\nsources:\nworkflows:\n", "~", "{}", "---\n"]
)
def test_an_empty_file_is_an_empty_set(text: str) -> None:
    found = loaded(text)
    assert (found.rules, dict(found.sources), dict(found.workflows)) == ((), {}, {})
    assert not found.wants("eventflow.run.failed")


def test_aliases_are_the_same_value_again() -> None:
    found = loaded("""\
        rules:
          a: {match: &big {type: x, data.n: {gt: 5}}, emit: y}
          b: {match: *big, emit: z}
        """)
    assert found.rules[0].pattern == found.rules[1].pattern


def test_values_are_those_of_yaml_1_2() -> None:
    found = loaded(
        "rules: {r: {match: {type: x}, emit: y, with: {a: 017, b: 06:00, c: 2026-01-01, d: yes, e: 1.0}}}"
    )
    assert {name: template.value for name, template in found.rules[0].inputs.items()} == {
        "a": 17, "b": "06:00", "c": "2026-01-01", "d": "yes", "e": 1.0,
    }  # fmt: skip


# ---------------------------------------------------------------------- the folder's Python files

TASKS = "workflows: {{w: {{tasks: {{a: {{python: '{}'}}}}}}}}"


@pytest.mark.parametrize(
    ("reference", "code", "objection"),
    [
        ("tasks:load", {"tasks": b"def load(): ...\n"}, None),
        ("tasks:load", {"tasks": b"async def load(): ...\n"}, None),
        ("tasks:load", {"tasks": b"from elsewhere import load\n"}, None),
        ("tasks:load", {"tasks": b"from elsewhere import *\n"}, None),
        ("tasks:load", {"tasks": b"if True:\n    load = print\n"}, None),
        ("pkg.tasks:load", {"pkg__tasks": b"def load(): ...\n"}, None),
        ("tasks:laod", {"tasks": b"def load(): ...\n"}, "tasks.py defines no 'laod'; did you mean 'load'?"),
        ("of.the.environment:f", {}, None),
    ],
)  # fmt: skip
def test_a_python_task_is_looked_up_in_the_folder_without_importing_it(
    reference: str, code: dict[str, bytes], objection: str | None
) -> None:
    text = TASKS.format(reference)
    if objection is None:
        assert loaded(text, **code).workflows["w"].tasks["a"].call == reference
        return
    with pytest.raises(RuleSetError) as caught:
        loaded(text, **code)
    assert f"r.yaml:1:37: workflow 'w', task 'a': python: {objection}" in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "doubt"),
    [
        (
            "tsks:load",
            "there is no module 'tsks' in the folder or in this environment; did you mean 'tasks'?",
        ),
        ("pkg.lod:f", "there is no module 'pkg.lod' in the folder; did you mean 'pkg.load'?"),
        ("json.tool:main", None),
        ("__main__:main", None),
    ],
)
def test_a_module_that_is_nowhere_is_doubted(reference: str, doubt: str | None) -> None:
    ruleset = loaded(TASKS.format(reference), tasks=b"def load(): ...", pkg__load=b"def f(): ...")
    expected = [] if doubt is None else [f"r.yaml:1:37: warning: workflow 'w', task 'a': python: {doubt}"]
    assert [str(warning) for warning in ruleset.warnings] == expected


def test_the_code_version_is_a_digest_of_names_and_contents() -> None:
    versions = {
        loaded("{}", **code).code_version
        for code in ({}, {"a": b"x = 1"}, {"a": b"x = 2"}, {"b": b"x = 1"}, {"a": b"x = 1", "b": b""})
    }
    assert len(versions) == 5
    assert loaded("{}", a=b"x = 1").code_version == loaded("rules: {}", a=b"x = 1").code_version
    assert loaded("{}", a=b"x = 1").code_files == {"a.py": b"x = 1"}
