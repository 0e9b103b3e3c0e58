"""When a failed try is followed by another one."""

from __future__ import annotations

from datetime import timedelta

import pytest

from eventflow.workflow.definition import Retry
from eventflow.workflow.retry import JITTER, LONGEST_WAIT, wait_after

TWO_SECONDS = timedelta(seconds=2)


def test_one_attempt_is_the_default() -> None:
    assert wait_after(Retry(), 1, 0.0) is None


def test_the_wait_doubles_and_ends_with_the_last_attempt() -> None:
    retry = Retry(attempts=4, backoff=TWO_SECONDS)
    waits = [wait_after(retry, failures, 0.0) for failures in range(1, 5)]
    assert waits == [TWO_SECONDS, TWO_SECONDS * 2, TWO_SECONDS * 4, None]


@pytest.mark.parametrize("chance", [0.0, 0.3, 0.999])
def test_jitter_never_shortens_and_adds_a_quarter_at_most(chance: float) -> None:
    wait = wait_after(Retry(attempts=9, backoff=TWO_SECONDS), 3, chance)
    assert wait is not None
    assert TWO_SECONDS * 4 <= wait <= TWO_SECONDS * 4 * (1 + JITTER)


def test_no_wait_is_longer_than_a_day_however_often_it_has_failed() -> None:
    assert wait_after(Retry(attempts=100_000, backoff=TWO_SECONDS), 99_999, 0.9) == LONGEST_WAIT
