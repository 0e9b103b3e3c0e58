"""The planted bugs of the kill run are patches: each must fit the code of today.

Not among the unit tests, which have to pass with a bug planted.
"""

from __future__ import annotations

import pytest

from tests.chaos import mutants


@pytest.mark.parametrize("name", mutants.names())
def test_a_mutant_fits_the_code_of_today(name: str) -> None:
    assert mutants.objection(name) == ""
