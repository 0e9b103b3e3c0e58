"""Verdicts as JUnit XML, in the form that CI servers read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from eventflow.rulefile.verdict import Verdict

_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_junit(results: Sequence[tuple[Verdict, float]]) -> bytes:
    """One `testcase` per case, with the seconds it took; a failed one holds its reasons."""
    failed = sum(not verdict.passed for verdict, _ in results)
    seconds = sum(taken for _, taken in results)
    suite = Element(
        "testsuite", name="eventflow", tests=str(len(results)), failures=str(failed), errors="0", skipped="0",
        time=f"{seconds:.6f}",
    )  # fmt: skip
    for verdict, taken in results:
        case = verdict.case
        record = SubElement(
            suite, "testcase", name=_text(case.name), classname=_text(case.file), file=_text(case.file),
            line=str(case.line), time=f"{taken:.6f}",
        )  # fmt: skip
        if not verdict.passed:
            failure = SubElement(record, "failure", message=_text(verdict.failures[0]))
            failure.text = _text("\n".join([f"{verdict.variation}, seed {verdict.seed}", *verdict.failures]))
    whole = Element("testsuites")
    whole.append(suite)
    return tostring(whole, encoding="utf-8", xml_declaration=True)


def _text(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
