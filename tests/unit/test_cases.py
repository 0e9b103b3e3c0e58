"""Test files: what a case says, what it expects, and what is told where that does not come about."""

# ruff: noqa: E501 - cases and messages are compared as the one line that they are

from __future__ import annotations

import textwrap
from pathlib import Path
from xml.etree import ElementTree

import pytest

from eventflow.errors import RuleSetError
from eventflow.rulefile.cases import read_cases
from eventflow.rulefile.connectors import find_connectors
from eventflow.rulefile.junit import as_junit
from eventflow.rulefile.load import load
from eventflow.rulefile.ruleset import RuleSet
from eventflow.rulefile.verdict import Verdict, judge

RULES = """\
sources:
  landing: {connector: file, path: x, initial: process}
workflows:
  load: {params: {path: string, n: {type: int, default: 7}}, tasks: {a: {shell: [x]}}}
rules:
  landed:
    match: {type: file.arrived, data.size: {gt: 0}}
    run: load
    with: {path: "${event.data.path}"}
  big:
    match: {type: file.arrived, data.size: {gt: 1000}}
    emit: big.landed
    with: {path: "${event.data.path}", at: "${firing.time}"}
  told:
    from: eventflow
    match: {type: big.landed}
    emit: big.told
    with: {of: "${event.subject}", path: "${event.data.path}"}
"""

ARRIVED = "{at: '06:00', event: {type: file.arrived, data: {path: /a, size: 5}}}"
BIG = "{at: '06:00', event: {type: file.arrived, data: {path: /a, size: 5000}}}"


@pytest.fixture(scope="module")
def ruleset() -> RuleSet:
    return load({"r.yaml": RULES.encode()}, Path("/set"), find_connectors())


def case_of(given: str, expect: str, also: str = "{}") -> bytes:
    return f"cases:\n  - name: c\n    given: [{given}]\n    expect: [{expect}]\n    also: {also}\n".encode()


def verdict(ruleset: RuleSet, given: str, expect: str, also: str = "{}") -> Verdict:
    [case] = read_cases({"r.test.yaml": case_of(given, expect, also)}, ruleset)
    return judge(case, ruleset, 0)


@pytest.mark.parametrize(
    ("given", "expect"),
    [
        (ARRIVED, "{fire: landed}"),
        (ARRIVED, "{fire: landed, with: {path: /a}}"),
        (ARRIVED, "{fire: landed, with: {path: /a, n: 7}, at: '06:00', key: null}"),
        (ARRIVED, "{fire: landed, at: '2026-01-01T08:00:00+02:00'}"),
        (ARRIVED, "{fire: landed, at: '2026-01-01T06:00:00.000000000Z'}"),
        (ARRIVED, "{fire: landed}, {no_fire: big}, {no_emit: big.landed}"),
        (f"{ARRIVED}, {ARRIVED}", "{fire: landed}, {fire: landed}"),
        (f"{ARRIVED}, {{advance: 7h}}, {{event: {{type: file.arrived, data: {{path: /b, size: 1}}}}}}",
         "{fire: landed, with: {path: /b}, at: '13:00'}, {fire: landed, at: '06:00'}"),
        ("{event: {type: other}}", ""),
        ("{event: {type: other}}", "{no_fire: landed}, {no_emit: big.landed}"),
        ("{from: eventflow, event: {type: other}}", ""),
        ("", "{no_fire: landed}"),
        (BIG, "{fire: landed}, {fire: big, with: {path: /a}}, {fire: told, at: '06:00'}, {emit: big.told}, "
              "{emit: big.landed, data: {path: /a, at: '2026-01-01T06:00:00Z'}, at: '06:00'}"),
        (BIG, "{fire: told, with: {of: big, path: /a}}, {fire: landed}, {fire: big}, {emit: big.landed}, "
              "{emit: big.told, data: {of: big}}"),
    ],
)  # fmt: skip
def test_a_case_passes_where_exactly_the_expected_comes_about(
    ruleset: RuleSet, given: str, expect: str
) -> None:
    assert verdict(ruleset, given, expect).failures == ()


@pytest.mark.parametrize(
    ("given", "expect", "told"),
    [
        (ARRIVED, "", ["not expected: fire landed"]),
        (ARRIVED, "{no_fire: landed}", ["not expected: fire landed", "(line 4: no_fire landed)"]),
        (ARRIVED, "{fire: landed}, {fire: landed}", ["r.test.yaml:4: expected fire landed", "it fired once, as other lines expect"]),
        (f"{ARRIVED}, {ARRIVED}", "{fire: landed}", ["not expected: fire landed"]),
        (ARRIVED, "{fire: landed, with: {path: /b}}",
         ["expected fire landed with {\"path\":\"/b\"}", "fired instead: fire landed with"]),
        (ARRIVED, "{fire: landed, with: {nosuch: 1}}", ["expected fire landed"]),
        (ARRIVED, "{fire: landed, with: {n: '7'}}", ["expected fire landed"]),
        (ARRIVED, "{fire: landed, at: '06:01'}", ["expected fire landed at 2026-01-01T06:01:00+00:00"]),
        (ARRIVED, "{fire: landed, key: x}", ["expected fire landed key"]),
        (ARRIVED, "{fire: landed}, {fire: big}", ["it did not fire: ", "data.size"]),
        (ARRIVED, "{fire: landed}, {emit: big.landed}", ["no event of that type was emitted"]),
        (BIG, "{fire: landed}, {fire: big}, {fire: told}, {emit: big.told}", ["not expected: emit big.landed"]),
        (BIG, "{fire: landed}, {fire: big}, {fire: told}, {emit: big.told}, {emit: big.landed, data: {path: /b}}",
         ["expected emit big.landed data", "emitted instead: emit big.landed"]),
        ("{event: {type: file.arrived, data: {path: 5, size: 1}}}", "",
         ["rule 'landed' made a dead letter (start): parameter 'path' of workflow 'load' must be a string"]),
    ],
)  # fmt: skip
def test_a_case_fails_and_says_why(ruleset: RuleSet, given: str, expect: str, told: list[str]) -> None:
    found = verdict(ruleset, given, expect)
    assert not found.passed
    for words in told:
        assert any(words in line for line in found.failures), found.failures


CHAINS = """
rules:
  again: {match: {type: again}, emit: again, reentry: 100}
  odd: {match: {type: odd}, where: event.data.gone == 1, emit: seen, on_error: dead-letter}
  hollow: {match: {type: hollow}, emit: filled, with: {v: "${event.data.gone}"}}
  nul: {match: {type: nul}, emit: filled, with: {v: "a\\0b"}}
  deeper: {match: {type: deeper}, emit: deeper, reentry: 100, with: {v: [[[["${event.data}"]]]]}}
"""


@pytest.mark.parametrize(
    ("type_", "expect"),
    [
        ("again", ", ".join(["{fire: again}, {emit: again}"] * 16)),
        ("odd", "{no_fire: odd}"),
        ("odd", ""),
        ("hollow", "{fire: hollow, at: '00:00'}, {no_emit: filled}"),
        ("nul", "{fire: nul}, {no_emit: filled}"),
        ("deeper", f"{', '.join(['{fire: deeper}'] * 13)}, {', '.join(['{emit: deeper}'] * 12)}"),
    ],
)
def test_a_dead_letter_is_no_firing_and_a_trigger_whose_with_fails_is_one(type_: str, expect: str) -> None:
    rules = load({"r.yaml": CHAINS.encode()}, Path("/set"), find_connectors())
    assert verdict(rules, f"{{event: {{type: {type_}, data: {{}}}}}}", expect).failures == ()


def test_a_trigger_whose_with_fails_must_be_expected(ruleset: RuleSet) -> None:
    given = "{event: {type: file.arrived, data: {path: 5, size: 1}}}"
    for expect in ("{no_fire: landed}", "{fire: landed, with: {path: 5}}", "{fire: landed}, {fire: landed}"):
        assert not verdict(ruleset, given, expect).passed
    assert verdict(ruleset, given, "{fire: landed}").passed


def test_an_expectation_that_names_little_does_not_take_what_another_one_needs(ruleset: RuleSet) -> None:
    given = "{event: {type: file.arrived, data: {path: /a, size: 1}}}, {event: {type: file.arrived, data: {path: /b, size: 1}}}"
    for expect in (
        "{fire: landed}, {fire: landed, with: {path: /a}}",
        "{fire: landed}, {fire: landed, with: {path: /b}}",
    ):
        assert verdict(ruleset, given, expect).passed


def test_the_same_id_twice_is_one_event(ruleset: RuleSet) -> None:
    one = "{event: {type: file.arrived, id: x, data: {path: /a, size: 1}}}"
    assert verdict(ruleset, f"{one}, {one}", "{fire: landed}").passed


def test_shuffles_and_splits_end_the_same_way(ruleset: RuleSet) -> None:
    given = ", ".join(
        f"{{at: '06:00', event: {{type: file.arrived, data: {{path: /{n}, size: 1}}}}}}" for n in range(6)
    )
    expect = ", ".join(f"{{fire: landed, with: {{path: /{n}}}, at: '06:00'}}" for n in range(6))
    assert verdict(ruleset, given, expect, "{shuffle: 20, splits: 20}").passed
    failed = verdict(ruleset, given, expect.replace("/5", "/6"), "{shuffle: 20, splits: 20}")
    assert (failed.passed, failed.variation) == (False, "as written")


def test_a_loop_is_stopped_in_a_case_as_in_life() -> None:
    text = "rules:\n  r: {match: {type: x}, emit: x, reentry: 2}\n"
    ruleset = load({"r.yaml": text.encode()}, Path("/set"), find_connectors())
    fires = ", ".join(["{fire: r}, {emit: x}"] * 3)
    assert verdict(ruleset, "{event: {type: x}}", fires).failures == ()


def test_two_cases_of_one_name_are_an_error(ruleset: RuleSet) -> None:
    one = "{name: c, given: [], expect: []}"
    with pytest.raises(RuleSetError) as caught:
        read_cases({"r.test.yaml": f"cases: [{one},\n{one}]".encode()}, ruleset)
    assert str(caught.value) == "r.test.yaml:2:8: case 'c': the case in line 1 has this name already"


def test_a_set_without_sources_still_has_cases() -> None:
    ruleset = load({"r.yaml": b"rules: {r: {match: {type: x}, emit: y}}"}, Path("/set"), find_connectors())
    assert verdict(ruleset, "{event: {type: x, meta: {a: 1}, time: '07:00'}}", "{fire: r}, {emit: y}").passed


@pytest.mark.parametrize(
    ("given", "expect", "expected"),
    [
        (ARRIVED, "{fire: landd}", "4:21: case 'c', expect 1: fire: unknown rule 'landd'; did you mean 'landed'?"),
        ("{from: landng, event: {type: x}}", "", "3:20: case 'c', given 1: from: unknown source 'landng'; did you mean "
                                                 "'landing'?"),
        ("{at: 6am, event: {type: x}}", "", "3:18: case 'c', given 1: 'at' must be like 2026-01-01T06:00:00Z, or "
                                            "\"06:00\" on that day in UTC; not the text '6am'"),
        ("{at: '2026-13-01T06:00:00Z', event: {type: x}}", "",
         "3:18: case 'c', given 1: 'at' must be like 2026-01-01T06:00:00Z, or \"06:00\" on that day in UTC; "
         "not the text '2026-13-01T06:00:00Z'"),
        ("{at: '07:00', event: {type: x}}, {at: '06:00', event: {type: x}}", "",
         "3:51: case 'c', given 2: 'at' goes back in time: it is 2026-01-01T07:00:00+00:00 by then"),
        ("{event: {type: x}}, {at: '2025-12-31T06:00:00Z', event: {type: x}}", "",
         "3:38: case 'c', given 2: 'at' goes back in time: it is 2026-01-01T00:00:00+00:00 by then"),
        ("{at: '9999-12-31T06:00:00Z', event: {type: x}}, {advance: 1d}", "",
         "3:71: case 'c', given 2: 'advance' leads beyond the year 9999"),
        ("{event: {data: 1}}", "", "3:14: case 'c', given 1: event: 'type' is missing"),
        ("{evnt: {type: x}}", "", "3:14: case 'c', given 1: unknown word 'evnt'; did you mean 'event'?"),
        ("{at: '06:00', advance: 1h}", "", "3:14: case 'c', given 1: 'at' does not go with 'advance'"),
        ("{event: x}", "", "3:21: case 'c', given 1: event: must be a mapping such as {type: file.arrived, data: {...}}, not the text 'x'"),
        (ARRIVED, "{fire: landed, emit: x}", "4:29: case 'c', expect 1: has both 'fire' and 'emit'; write two entries"),
        (ARRIVED, "{fire: landed, data: 1}", "4:29: case 'c', expect 1: 'data' does not go with 'fire'"),
        (ARRIVED, "{open: landed}", "4:15: case 'c', expect 1: 'open' is not supported yet"),
        (ARRIVED, "landed", "4:14: case 'c': 'expect' takes mappings, not the text 'landed'"),
    ],
)  # fmt: skip
def test_a_broken_case_is_told_where_and_why(
    ruleset: RuleSet, given: str, expect: str, expected: str
) -> None:
    with pytest.raises(RuleSetError) as caught:
        read_cases({"r.test.yaml": case_of(given, expect)}, ruleset)
    assert expected in str(caught.value).replace("r.test.yaml:", "").splitlines()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a", "1:1: a test file is a mapping with 'cases'; this is a list"),
        ("case: []", "1:1: test file: unknown word 'case'; did you mean 'cases'?"),
        ("cases: x", "1:8: test file: 'cases' must be a list, not the text 'x'"),
        ("cases:\n  - {name: a, given: []}", "2:5: case 'a': 'expect' is missing"),
        ("cases:\n  - {name: a, given: [], expect: [], also: {shufle: 2}}",
         "2:45: case 'a': also: unknown word 'shufle'; did you mean 'shuffle'?"),
    ],
)  # fmt: skip
def test_a_broken_test_file_is_told_where_and_why(ruleset: RuleSet, text: str, expected: str) -> None:
    with pytest.raises(RuleSetError) as caught:
        read_cases({"r.test.yaml": text.encode()}, ruleset)
    assert expected in str(caught.value).replace("r.test.yaml:", "").splitlines()


def test_from_must_be_given_where_the_set_has_several_sources() -> None:
    text = """\
        sources:
          a: {connector: file, path: x, initial: process}
          b: {connector: file, path: y, initial: process}
        rules: {r: {from: b, match: {type: x}, emit: y}}
        """
    ruleset = load({"r.yaml": textwrap.dedent(text).encode()}, Path("/set"), find_connectors())
    assert verdict(ruleset, "{from: b, event: {type: x}}", "{fire: r}, {emit: y}").passed
    assert verdict(ruleset, "{from: a, event: {type: x}}", "").passed
    with pytest.raises(RuleSetError, match=r"'from' is missing: the set has the sources a, b"):
        verdict(ruleset, "{event: {type: x}}", "")


def test_names_in_cases_are_not_checked_where_the_set_itself_did_not_load() -> None:
    assert (
        len(read_cases({"r.test.yaml": case_of("{from: any, event: {type: x}}", "{fire: any}")}, None)) == 1
    )


def test_a_report_for_ci_has_a_record_for_each_case(ruleset: RuleSet) -> None:
    good, bad = verdict(ruleset, ARRIVED, "{fire: landed}"), verdict(ruleset, ARRIVED, "")
    suite = ElementTree.fromstring(as_junit([(good, 0.5), (bad, 0.25)]))[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("time")) == ("2", "1", "0.750000")
    assert [(case.get("name"), case.get("file"), len(case)) for case in suite] == [
        ("c", "r.test.yaml", 0), ("c", "r.test.yaml", 1),
    ]  # fmt: skip
    assert "not expected: fire landed" in str(suite[1][0].get("message"))
