"""Every mistake in a rule file is told with its place, the object, and what to do: input -> exact message."""

# ruff: noqa: E501 - messages are compared as the one line that they are

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path

import pytest

from eventflow.errors import RuleSetError
from eventflow.rulefile.connectors import find_connectors
from eventflow.rulefile.load import load
from eventflow.rulefile.words import LATER_CONNECTORS, RULE, TASK, WHEN


def problems_of(*texts: str) -> list[str]:
    """What `check` would say of a set of these files, r1.yaml and so on, errors and warnings."""
    files = {f"r{number}.yaml": textwrap.dedent(text).encode() for number, text in enumerate(texts, 1)}
    try:
        ruleset = load(files, Path("/set"), find_connectors())
    except RuleSetError as error:
        return [str(problem).removeprefix("r1.yaml:") for problem in error.problems]
    return [str(problem).removeprefix("r1.yaml:") for problem in ruleset.warnings]


def in_rule(words: str) -> list[str]:
    """The problems of one rule; its words begin in line 3, column 5."""
    return problems_of("rules:\n  r:\n" + textwrap.indent(textwrap.dedent(words), "    "))


def in_source(words: str) -> list[str]:
    return problems_of("sources:\n  s:\n" + textwrap.indent(textwrap.dedent(words), "    "))


def in_task(words: str) -> list[str]:
    """The problems of the task t of a workflow with the parameters path and n, behind the task first."""
    head = "workflows:\n  w:\n    params: {path: string, n: int}\n    tasks:\n      first: {shell: [x]}\n      t:\n"
    return problems_of(head + textwrap.indent(textwrap.dedent(words), "        "))


def running(rule_with: str) -> list[str]:
    """The problems of a rule that runs a workflow with one parameter of each kind; `with` stands in line 5."""
    params = "path: string, n: {type: int, default: 1}, day: {type: date, default: 2026-01-31}"
    workflow = f"workflows:\n  w:\n    params: {{{params}}}\n    tasks: {{a: {{shell: [x]}}}}\n"
    return problems_of(f"rules:\n  r:\n    match: {{type: x}}\n    run: w\n    {rule_with}\n{workflow}")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("mach: {type: x}\nemit: y", ["3:5: rule 'r': unknown word 'mach'; did you mean 'match'?"]),
        ("match: {type: x}", ["2:3: rule 'r': needs 'run' or 'emit'"]),
        ("emit: y", ["2:3: rule 'r': needs 'from' or 'match': what does it fire on?"]),
        ("match: {type: x}\nrun: lod", ["4:10: rule 'r': run: unknown workflow 'lod'; there is none"]),
        ("from: nowhere\nemit: y", ["3:11: rule 'r': from: unknown source 'nowhere'; there is eventflow"]),
        ("from: []\nemit: y", ["3:11: rule 'r': 'from' is an empty list"]),
        (
            "from: [eventflow, eventflow]\nmatch: {type: x}\nemit: y",
            ["3:23: rule 'r': 'from' names 'eventflow' twice; the first is at 3:12"],
        ),
        ("match: {type: x}\nemit: y\nemit: z", ["5:5: duplicate key 'emit'; the first is at 4:5"]),
        ("match: {}\nemit: y", ["3:12: rule 'r': 'match' must be a mapping of conditions by path, not an empty mapping"]),
        ("match: x\nemit: y", ["3:12: rule 'r': 'match' must be a mapping of conditions by path, not the text 'x'"]),
        ("match: {type: x}\nemit: [y]", ["4:11: rule 'r': 'emit' must be text, not a list"]),
        (
            'match: {type: x}\nemit: "y.${event.id}"',
            ["4:11: rule 'r': 'emit' is a type without holes; what varies goes into 'with'"],
        ),
        (
            'match: {type: x}\nemit: "a\\0b"',
            ["4:11: rule 'r': 'emit' holds a NUL character; no type of an event does"],
        ),
        ("match: {type: x}\nemit: y\nwith: 5", ["5:11: rule 'r': with: must be a mapping such as {name: value}, not the number 5"]),
        (
            "match: {type: x}\nemit: y\npriority: 10",
            ["5:15: rule 'r': 'priority' must be a whole number from 0 to 9, not the number 10"],
        ),
        (
            "match: {type: x}\nemit: y\npriority: true",
            ["5:15: rule 'r': 'priority' must be a whole number from 0 to 9, not true"],
        ),
        (
            "match: {type: x}\nemit: y\non_error: dead_letter",
            ["5:15: rule 'r': 'on_error' must be one of count, dead-letter, not the text 'dead_letter'; "
             "did you mean 'dead-letter'?"],
        ),
        ("match: {type: x}\nemit: y\nmode: shadow", ["5:11: rule 'r': 'mode: shadow' is not supported yet"]),
        (
            "match: {type: x}\nemit: y\nmode: alive",
            ["5:11: rule 'r': 'mode' must be one of live, shadow, paused, not the text 'alive'; did you mean 'live'?"],
        ),
        (
            'match: {type: x}\nemit: y\nwhere: "evnt.id == 1"',
            ["5:12: rule 'r': where: unknown name 'evnt'; did you mean 'event'? (at 1:1 of the expression)"],
        ),
        (
            'match: {type: x}\nemit: y\nwhere: "event.id + 1"',
            ["5:12: rule 'r': where: this must be true or false, it is of type int (at 1:1 of the expression)"],
        ),
        (
            'match: {type: x}\nemit: y\nwhere: "${event.id}"',
            ["5:12: rule 'r': 'where' is an expression as it stands; write it without ${ and }"],
        ),
        (
            'match: {type: x}\nemit: y\nwhere: event.dta.n > 1',
            ["5:12: warning: rule 'r': where: an event has no 'dta' of its own; did you mean 'event.data'?"],
        ),
        (
            'match: {type: x}\nemit: y\nwith: {a: ["${event.id}", "${evnt.id}"]}',
            ["5:31: rule 'r': with: a: hole ${evnt.id}: unknown name 'evnt'; did you mean 'event'?"],
        ),
        (
            'match: {type: x}\nemit: y\nwith: {a: "${event.id"}',
            ["5:15: rule 'r': with: a: a hole that is not closed: `${` needs its `}`"],
        ),
        (
            'match: {type: x}\nemit: y\nwith: {a: "${secret.KEY}"}',
            ["5:15: rule 'r': with: a: a secret cannot stand here: its value would be stored"],
        ),
        (
            "match: {type: x}\nemit: x",
            ["2:3: rule 'r': sets itself off (r -> r); narrow 'match' (data.workflow names whose outcome it is), "
             "or allow it with 'reentry'"],
        ),
        (
            "match: {data.n: 1}\nemit: y",
            ["2:3: warning: rule 'r': has no condition on 'type' and no 'from': it fires on events of every kind"],
        ),
        (
            "when: {count: true, reachs: 5}\nmatch: {type: x}\nemit: y",
            ["3:5: rule 'r': 'when' is not supported yet",
             "3:25: rule 'r': when: unknown word 'reachs'; did you mean 'reaches'?"],
        ),
    ],
)  # fmt: skip
def test_a_wrong_rule_is_told_where_and_why(words: str, expected: list[str]) -> None:
    assert in_rule(words) == expected


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ('data.n: {gt: "5"}', "3:26: rule 'r': match: data.n: gt takes numbers, not a string"),
        ("data.n: {gtt: 5}", "3:22: rule 'r': match: data.n: unknown operator 'gtt'; did you mean 'gt'?"),
        ("data..n: 5", "3:13: rule 'r': match: 'data..n': a path is names with single dots between them"),
        ("dta.n: 5", "3:13: rule 'r': match: dta.n: a path starts with an attribute of the event, and 'dta' is none; "
                     "did you mean 'data'?"),
        ("data.n: .nan", "3:21: .nan is no number that can be compared; write it in quotes if text is meant"),
        ("data.n: []", "3:21: rule 'r': match: data.n: in needs at least one value: an empty list holds for nothing"),
        ("any_of: []", "3:21: rule 'r': match: any_of takes a list of at least one match"),
        ("none_of: [{}]", "3:23: rule 'r': match: none_of: an empty match holds for everything; leave it out, or say "
                          "what must hold"),
        ('data.n: {regex: "("}', "3:29: rule 'r': match: data.n: not a regular expression of RE2: missing ): ("),
        ("data.n: {exists: 1}", "3:30: rule 'r': match: data.n: exists takes true or false"),
    ],
)  # fmt: skip
def test_a_wrong_condition_is_told_at_its_own_place(match: str, expected: str) -> None:
    assert in_rule(f"match: {{{match}}}\nemit: y") == [expected]


def test_every_wrong_condition_of_a_match_is_told_at_once() -> None:
    assert [
        text.partition(": ")[0] for text in in_rule("match: {data.a: {gt: x}, data.b: {lt: y}}\nemit: z")
    ] == [
        "3:26",
        "3:43",
    ]


@pytest.mark.parametrize("word", sorted(RULE.later - {"when"}))
def test_a_word_that_does_not_work_yet_is_refused_at_its_place(word: str) -> None:
    assert in_rule(f"match: {{type: x}}\nemit: y\n{word}: 1") == [
        f"5:5: rule 'r': '{word}' is not supported yet"
    ]


@pytest.mark.parametrize("word", sorted(WHEN))
def test_operators_over_several_events_are_refused(word: str) -> None:
    assert in_rule(f"when: {{{word}: 1}}\nemit: y") == ["3:5: rule 'r': 'when' is not supported yet"]


@pytest.mark.parametrize("word", sorted(TASK.later))
def test_kinds_of_task_that_do_not_work_yet_are_refused(word: str) -> None:
    assert in_task(f"{word}: 1") == [f"7:9: workflow 'w', task 't': '{word}' is not supported yet"]


@pytest.mark.parametrize("name", sorted(LATER_CONNECTORS))
def test_connectors_that_do_not_work_yet_are_refused(name: str) -> None:
    assert in_source(f"connector: {name}\nwhatever: 1") == [
        f"3:16: source 's': the connector '{name}' is not supported yet"
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("path: x", ["2:3: source 's': 'connector' is missing"]),
        ("conector: file", ["3:5: source 's': unknown word 'conector'; did you mean 'connector'?"]),
        (
            "connector: file\npath: x\ninitial: process\nrescan: 0s",
            ["6:13: source 's': 'rescan': '0s' must be longer than nothing"],
        ),
        ("connector: fil", ["3:16: source 's': unknown connector 'fil'; did you mean 'file'?"]),
        ("connector: file\npath: x", ["2:3: source 's': 'initial' is missing"]),
        (
            "connector: file\npath: x\ninitial: proces",
            ["5:14: source 's': 'initial' must be 'process' or 'ignore', not the text 'proces'; "
             "did you mean 'process'?"],
        ),
        (
            "connector: file\npath: x\ninitial: process\npatern: '*'",
            ["6:5: source 's': unknown word 'patern'; did you mean 'pattern'?"],
        ),
        (
            "connector: file\npath: x\ninitial: process\nsettle: {quit: 2s}",
            ["6:14: source 's': unknown word 'quit'; did you mean 'quiet'?"],
        ),
        (
            "connector: file\npath: x\ninitial: process\nsettle: {quiet: 2}",
            ["6:21: source 's': 'settle.quiet': 2 is no duration; write a number and a unit, "
             "like 500ms, 20s, 5m, 6h or 7d"],
        ),
        (
            'connector: file\npath: "${event.data.path}"\ninitial: process',
            ["4:11: source 's': 'path': there is nothing to fill a ${} with here; write it out"],
        ),
        (
            'connector: webhook\nverify: {scheme: hmac, header: X, secrets: ["${env.KEY}"]}\nid: data.id',
            ["4:49: source 's': '${env.KEY}': the only hole here is ${secret.NAME}"],
        ),
        (
            "connector: file\npath: ''\ninitial: process\nsettle: 2s\nremoved: 'yes'",
            ["4:11: source 's': 'path' must not be empty",
             "6:13: source 's': 'settle' must be a mapping such as {quiet: 2s}, not the text '2s'",
             "7:14: source 's': 'removed' must be true or false, not the text 'yes'"],
        ),
        (
            "connector: webhook\nid: data.id",
            ["2:3: source 's': 'verify' is missing: `none`, or a map with a scheme (github, standard, stripe, hmac) and its secrets"],
        ),
        (
            "connector: webhook\nverify: {scheme: github, secrets: [\"${secret.A}\", hunter2]}",
            ["4:55: warning: source 's': 'secrets' is written out for all who read this file: use ${secret.NAME}"],
        ),
        (
            "connector: sql_watermark\nurl: postgresql://u:hunter2@h/d\ntable: a.t\ncolumn: id\ninitial: latest\nevery: 10s",
            ["4:10: warning: source 's': 'url' holds a password for all who read this file: use ${secret.NAME}"],
        ),
        ("connector: sql_watermark\nurl: postgresql://u:${secret.P}@h/d\ntable: a.t\ncolumn: id\ninitial: latest\nevery: 10s", []),
        (
            "connector: webhook\nverify: {scheme: slack, header: X, secrets: [a]}\nid: data.id",
            ["4:22: source 's': 'verify.scheme': scheme 'slack' is not supported yet; use `hmac` with the "
             "sender's header, or `github`, `standard` (Standard Webhooks) or `stripe`"],
        ),
        (
            "connector: webhook\nverify: none",
            ["2:3: warning: source 's': has neither 'id' nor 'dedupe': a sender's retry is a second event"],
        ),
        (
            "connector: webhook\nverify: none\nid: data.id\ntype: github.push",
            ["6:11: source 's': type: unknown name 'github'; here you may read data, headers, query (at 1:1 of the expression); this is CEL, so a text needs "
             "quotes inside: \"'github.push'\""],
        ),
        (
            "connector: webhook\nverify: none\nid: \"headers['x-id'\"",
            ["5:9: source 's': id: ']' is missing (at 1:15 of the expression)"],
        ),
    ],
)  # fmt: skip
def test_a_wrong_source_is_told_where_and_why(words: str, expected: list[str]) -> None:
    assert in_source(words) == expected


KAFKA = "connector: kafka\nbootstrap: h:1\ntopics: [a]\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("initial: latest\ntls: {caa: x}", ["7:11: source 's': unknown word 'caa'; did you mean 'ca'?"]),
        ("initial: latest\ntls: maybe", ["7:10: source 's': 'tls' must be true or false, or a mapping, not the text 'maybe'"]),
        ("initial: earlest", ["6:14: source 's': 'initial' must be 'earliest' or 'latest', not the text 'earlest'; did you mean 'earliest'?"]),
        ("initial: 5", ["6:14: source 's': 'initial' must be 'earliest' or 'latest', or a mapping, not the number 5"]),
        ("initial: {timestmp: x}", ["6:15: source 's': unknown word 'timestmp'; did you mean 'timestamp'?"]),
        (
            "initial: {timestamp: yesterday}",
            ["6:26: source 's': 'initial.timestamp' must be a time with its offset, such as 2026-01-31T06:00:00Z, not the text 'yesterday'"],
        ),
    ],
)  # fmt: skip
def test_of_a_value_of_several_forms_only_the_one_given_is_spoken_of(words: str, expected: list[str]) -> None:
    assert in_source(KAFKA + words) == expected


@pytest.mark.parametrize(
    ("verify", "expected"),
    [
        ("{scheme: github, secrets: ['${secret.A}'], tolerance: 5m}", ["4:56: source 's': 'tolerance' goes only with standard and stripe"]),
        ("{scheme: githb, secrets: ['${secret.A}']}", ["4:22: source 's': 'verify.scheme': unknown scheme 'githb'; did you mean 'github'?"]),
        ("{scheme: stripe, secrets: ['${secret.A}'], tolerence: 5m}", ["4:56: source 's': unknown word 'tolerence'; did you mean 'tolerance'?"]),
    ],
)  # fmt: skip
def test_words_of_a_scheme_are_its_own(verify: str, expected: list[str]) -> None:
    assert in_source(f"connector: webhook\nverify: {verify}\nid: data.id") == expected


def test_a_misspelt_word_in_a_list_is_known_and_the_one_meant_is_not_missing() -> None:
    assert in_source("connector: postgres_cdc\nurl: '${secret.A}'\ntables: [{tabel: a.b, were: x}]") == [
        "5:15: source 's': unknown word 'tabel'; did you mean 'table'?",
        "5:27: source 's': unknown word 'were'; did you mean 'where'?",
    ]


@pytest.mark.parametrize(
    "words",
    ["connector: postgres_cdc\nurl: {}\ntables: [a.b]",
     "connector: sql_watermark\nurl: {}\ntable: a.b\ncolumn: id\ninitial: latest"],
)  # fmt: skip
def test_an_address_of_another_database_is_refused_without_its_password(words: str) -> None:
    said = (
        "4:10: source 's': 'url': mysql:// is no address of Postgres; write postgresql://USER@HOST/DATABASE"
    )
    assert in_source(words.format("mysql://u:hunter2@h/x")) == [said]
    assert in_source(words.format("postgres://u@h/x")) == []


def test_broken_cel_is_told_beside_words_that_are_wrong() -> None:
    assert in_source("connector: webhook\nverify: none\nid: 'data.foo +'\ntype: '${data.x}'\nlimitt: 4") == [
        "5:9: source 's': id: the expression ends too early (at 1:11 of the expression)",
        "6:11: source 's': '${data.x}': the only hole here is ${secret.NAME}",
        "6:11: source 's': type: '$' cannot stand here (at 1:1 of the expression)",
        "7:5: source 's': unknown word 'limitt'; did you mean 'limit'?",
    ]


def test_what_stands_beside_a_trigger_that_does_not_work_yet_is_not_called_wrong() -> None:
    """The example of several events in the language's own description."""
    said = problems_of("""\
        sources: {landing: {connector: file, path: x, initial: process}}
        workflows: {close-day: {params: {day: date, files: list}, tasks: {a: {shell: [x]}}}}
        rules:
          close-day:
            when:
              all:
                sales: {from: landing, match: {data.dataset: sales}, members: {data.region: [us, eu, apac]}}
                fx: {from: landing, match: {data.kind: fx}, key: data.business_day}
              key: data.day
              within: 6h
            on_incomplete: {emit: close-day.incomplete}
            run: close-day
            with: {day: "${key}", files: "${events.sales.map(e, e.data.path)}"}
          counted:
            when: {sum: data.n, reaches: 10, within: 1h, match: {type: x}}
            emit: y
            with: {sum: "${value}", from: "${window.start}", to: "${window.end}"}
        """)
    assert said == [
        "5:5: rule 'close-day': 'when' is not supported yet",
        "11:5: rule 'close-day': 'on_incomplete' is not supported yet",
        "15:5: rule 'counted': 'when' is not supported yet",
    ]


def test_a_webhook_scheme_that_does_not_work_yet_is_all_that_is_said() -> None:
    assert in_source(
        'connector: webhook\nverify: {scheme: slack, secrets: ["${secret.GH}"]}\nid: data.id'
    ) == [
        "4:22: source 's': 'verify.scheme': scheme 'slack' is not supported yet; use `hmac` with the sender's "
        "header, or `github`, `standard` (Standard Webhooks) or `stripe`"
    ]


def test_the_source_eventflow_is_built_in() -> None:
    said = problems_of("sources:\n  eventflow: {connector: file, path: x, initial: process}\n")
    assert said == ["2:3: the source 'eventflow' is built in; choose another name"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("after: first", ["6:7: workflow 'w', task 't': needs 'python' or 'shell' or 'kafka'"]),
        ("shell: [x]\npython: json:loads", ["7:9: workflow 'w', task 't': has both 'python' and 'shell'; a task runs one thing"]),
        ("python: nope", ["7:17: workflow 'w', task 't': python: 'nope' is not of the form module:function"]),
        (
            "python: nosuchmodule.tasks:load",
            ["7:17: warning: workflow 'w', task 't': python: there is no module 'nosuchmodule.tasks' in the folder or in this environment"],
        ),
        (
            "shell: echo hi",
            ["7:16: workflow 'w', task 't': 'shell' must be a list of texts, not the text 'echo hi'; no shell reads it, "
             'so spaces and quotes in data stay harmless: ["program", "argument"]'],
        ),
        ("shell: [echo, 5]", ["7:23: workflow 'w', task 't': 'shell' takes texts; write the number 5 in quotes"]),
        ("shell: []", ["7:16: workflow 'w', task 't': 'shell' is an empty list; name a program"]),
        (
            "shell: [x]\nafter: frst",
            ["8:16: workflow 'w', task 't': after: unknown task 'frst'; did you mean 'first'?"],
        ),
        (
            "shell: [x]\nafter: t",
            ["8:16: workflow 'w', task 't': the tasks wait for each other: t after t"],
        ),
        (
            "shell: [x]\ntimeout: 5 minutes",
            ["8:18: workflow 'w', task 't': 'timeout' must be a duration such as 500ms, 20s, 5m, 6h or 7d, "
             "not the text '5 minutes'"],
        ),
        (
            "shell: [x]\ntimeout: 0s",
            ["8:18: workflow 'w', task 't': 'timeout' must be longer than nothing, not the text '0s'"],
        ),
        (
            "shell: [x]\nretry: {attempts: 0, backof: 2s}",
            ["8:27: workflow 'w', task 't': retry: 'attempts' must be a whole number from 1 to 1000, not the number 0",
             "8:30: workflow 'w', task 't': retry: unknown word 'backof'; did you mean 'backoff'?"],
        ),
        ("shell: [x]\nretry: 3", ["8:16: workflow 'w', task 't': retry: must be a mapping such as {attempts: 3}, not the number 3"]),
        (
            "shell: [x]\nwith: {a: 1}",
            ["8:9: workflow 'w', task 't': 'with' is for python tasks; write the holes into the arguments"],
        ),
        (
            "python: json:loads\nwith: {ctx: 1}",
            ["8:16: workflow 'w', task 't': with: 'ctx' is the task's context, handed over by itself"],
        ),
        (
            "python: json:loads\nwith: {a-b: 1}",
            ["8:16: workflow 'w', task 't': with: 'a-b' is no name of an argument"],
        ),
        (
            'python: json:loads\nwith: {a: "${params.pth}"}',
            ["8:19: workflow 'w', task 't': unknown parameter 'pth'; did you mean 'path'?"],
        ),
        (
            'shell: ["${tasks.frst.result}"]',
            ["7:17: workflow 'w', task 't': unknown task 'frst'; did you mean 'first'?"],
        ),
        (
            'shell: ["${tasks.first.result.n}"]',
            ["7:17: workflow 'w', task 't': the result of task 'first' is not there by then; add it to 'after'"],
        ),
        (
            'shell: ["${tasks.first.n}"]\nafter: first',
            ["7:17: workflow 'w', task 't': tasks.first.n: what a task returned is below 'tasks.first.result'"],
        ),
        (
            'shell: ["${event.data.n}"]',
            ["7:17: workflow 'w', task 't': shell[0]: hole ${event.data.n}: unknown name 'event'; here you may read params, tasks, run"],
        ),
    ],
)  # fmt: skip
def test_a_wrong_task_is_told_where_and_why(words: str, expected: list[str]) -> None:
    assert in_task(words) == expected


def test_tasks_that_wait_for_each_other_are_told_with_their_circle() -> None:
    said = problems_of("""\
        workflows:
          w:
            tasks:
              a: {shell: [x], after: c}
              b: {shell: [x], after: a}
              c: {shell: [x], after: [b]}
        """)
    assert len(said) == 1
    assert "the tasks wait for each other: " in said[0]
    assert {"a after c", "b after a", "c after b"} <= {
        " after ".join(pair) for pair in _pairs(said[0].rpartition(": ")[2].split(" after "))
    }


def _pairs(names: list[str]) -> list[tuple[str, str]]:
    return list(itertools.pairwise(names))


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ("{path: sting}", "3:20: workflow 'w': 'params: path' must be one of string, int, float, bool, date, datetime, "
                          "duration, list, map, json, not the text 'sting'; did you mean 'string'?"),
        ("{a b: int}", "3:14: workflow 'w': parameter 'a b': a name has letters, digits and '_' only"),
        ("{n: {default: 1}}", "3:14: workflow 'w': parameter 'n': 'type' is missing"),
        ("{n: {type: int, default: x}}", "3:38: workflow 'w': parameter 'n': 'default' must be an int, not the text 'x'"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_told_where_and_why(params: str, expected: str) -> None:
    assert problems_of(f"workflows:\n  w:\n    params: {params}\n    tasks: {{a: {{shell: [x]}}}}\n") == [
        expected
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("priority: 1", ["2:3: rule 'r': with: parameter 'path' (string) of workflow 'w' is missing"]),
        ("with: {n: 1}", ["5:5: rule 'r': with: parameter 'path' (string) of workflow 'w' is missing"]),
        (
            "with: {path: a, pth: b}",
            ["5:21: rule 'r': with: unknown parameter of workflow 'w' 'pth'; did you mean 'path'?"],
        ),
        (
            "with: {path: 5}",
            ["5:18: rule 'r': with: parameter 'path' of workflow 'w' must be a string, not the number 5"],
        ),
        (
            'with: {path: a, n: "1"}',
            ["5:24: rule 'r': with: parameter 'n' of workflow 'w' must be an int, not the text '1'"],
        ),
        (
            "with: {path: a, n: true}",
            ["5:24: rule 'r': with: parameter 'n' of workflow 'w' must be an int, not true"],
        ),
        (
            "with: {path: a, day: 2026-02-30}",
            ["5:26: rule 'r': with: parameter 'day' of workflow 'w' must be a date such as 2026-01-31, "
             "not the text '2026-02-30'"],
        ),
        (
            'with: {path: a, n: "${rule}"}',
            ["5:24: rule 'r': with: parameter 'n' of workflow 'w' must be of type int; ${rule} is of type string"],
        ),
        (
            'with: {path: a, n: "${event.data.n} rows"}',
            ["5:24: rule 'r': with: parameter 'n' of workflow 'w' must be of type int; ${event.data.n} rows is of "
             "type string"],
        ),
        ('with: {path: "${event.data.path}", n: "${event.data.n}", day: "${firing.time}"}', []),
    ],
)  # fmt: skip
def test_with_is_held_against_the_parameters_of_the_workflow(words: str, expected: list[str]) -> None:
    assert running(words) == expected


def test_a_name_is_unique_in_the_set() -> None:
    first = "rules:\n  r: {match: {type: x}, emit: y}\n"
    assert problems_of(first, first) == ["r2.yaml:2:3: rule 'r' is already defined at r1.yaml:2:3"]


@pytest.mark.parametrize("name", ["Upper", "1st", "a_b", "-a", "é", "x" * 64])
def test_a_name_has_its_form(name: str) -> None:
    said = problems_of(f"rules:\n  {name}: {{match: {{type: x}}, emit: y}}\n")
    assert len(said) == 1
    assert said[0].startswith("2:3: rule '")
    assert said[0].endswith("': a name begins with a letter and has at most 63 of a-z, 0-9 and '-'")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sourcs: {}", ["1:1: rule file: unknown word 'sourcs'; did you mean 'sources'?"]),
        ("- a", ["1:1: a rule file is a mapping with sources, workflows, rules; this is a list"]),
        ("rules: x", ["1:8: rules: must be a mapping, not the text 'x'"]),
        ("rules:\n  r:", ["2:5: rule 'r': must be a mapping, not nothing"]),
        ("rules: {}\n---\nrules: {}", ["2:1: a second document begins here; one file holds one document"]),
        (
            "rules:\n  r: {match: {type: x}, emit: y, with: {a: ${event.id}}}",
            ["2:45: not valid YAML: did not find expected ',' or '}' while parsing a flow mapping that begins in line 2 "
             '(a hole inside {} or [] needs quotes: "${...}")'],
        ),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_where_and_why(text: str, expected: list[str]) -> None:
    assert problems_of(text) == expected


def test_a_file_that_cannot_be_read_does_not_make_other_files_wrong() -> None:
    said = problems_of("rules:\n  r: {match: {type: x}, run: elsewhere}\n", "workflows: {elsewhere: [")
    assert len(said) == 1
    assert said[0].startswith("r2.yaml:1:")


def test_rules_that_set_each_other_off_are_told_unless_all_of_them_allow_it() -> None:
    circle = """\
        rules:
          a: {match: {type: x}, emit: y}
          b: {match: {type: y}, emit: x, reentry: 1}
          c: {match: {type: x}, emit: z}
        """
    remedy = "narrow 'match' (data.workflow names whose outcome it is), or allow it with 'reentry'"
    assert problems_of(circle) == [f"2:3: rule 'a': sets itself off (a -> b -> a); {remedy}"]
    assert problems_of(circle.replace("emit: y}", "emit: y, reentry: 1}")) == []


def test_a_rule_on_outcomes_is_a_circle_only_where_it_may_take_those_of_its_own_workflow() -> None:
    rule = """\
        workflows: {alert: {tasks: {a: {shell: [x]}}}, load: {tasks: {a: {shell: [x]}}}}
        rules:
          r: {from: eventflow, match: {type: eventflow.run.failed%s}, run: alert}
        """
    assert "sets itself off" in problems_of(rule % "")[0]
    assert problems_of(rule % ", data.workflow: load") == []
    assert problems_of(rule % ", data.workflow: {not: alert}") == []
    assert problems_of(rule % ", subject: [other]") == []
    assert "sets itself off" in problems_of(rule % ", data.workflow: {prefix: al}")[0]
