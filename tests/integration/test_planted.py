"""The bugs planted at the sources: each fits the code of today, has its test, and is in docs/failures.md.

Not among the unit tests, which have to pass with a bug planted. `make planted` runs them.
"""

from __future__ import annotations

import pytest

from tests.planted import judge, page
from tests.planted.rows import complaints, read


def test_every_row_has_a_test_and_a_bug_or_a_reason() -> None:
    assert list(complaints()) == []


@pytest.mark.parametrize("row", [row for row in read() if row.patch], ids=lambda row: row.name)
def test_a_planted_bug_fits_the_code_of_today(row) -> None:
    assert judge.objection(row) == ""


def test_the_page_says_what_the_rows_say() -> None:
    """`make planted-page` makes its tables anew."""
    written = page.PAGE.read_text(encoding="utf-8")
    assert page.filled_in(written, read()) == written


def test_a_link_names_the_test_whole() -> None:
    (row,) = [row for row in read() if row.name == "t3"]
    assert "[latest hands over the last of those due](" in page.filled_in(page.PAGE.read_text("utf-8"), [row])
