"""Before a run: whether its jobs would outlive their limits, by arithmetic that a simulation of departures confirms."""

from __future__ import annotations

import math
from collections import deque

import pytest

from aiopplx._policy.durations import Law, guess
from aiopplx._policy.forecast import LEARNT, outlook
from aiopplx._policy.turns import FLOOR


def law(median: float = 180.0, *, ended: int = 0) -> Law:
    known = Law(guess(180.0, 0.9))
    for n in range(ended):
        known.ended(0.0, median + n, median + n)
    return known


def waits(jobs: int) -> list[int]:
    """Departures from each submission to the poll that reads its result: submissions first, one in ten for a poll."""
    submitted: dict[int, int] = {}
    unread: deque[int] = deque()
    found: list[int] = []
    departure = 0
    while len(found) < jobs:
        departure += 1
        if unread and (len(submitted) == jobs or departure % FLOOR == 0):
            found.append(departure - submitted[unread.popleft()])
        elif len(submitted) < jobs:
            submitted[len(submitted)] = departure
            unread.append(len(submitted) - 1)
    return found


@pytest.mark.parametrize("jobs", [100, 300, 1_000])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 0.95])
def test_late_results_are_those_of_a_simulation(jobs: int, share: float):
    limit = share * jobs
    expected = outlook(law(), jobs, 1.0, limit)
    true = waits(jobs)
    assert expected.late == pytest.approx(sum(wait > limit for wait in true) / jobs, abs=0.05)
    assert expected.oldest == pytest.approx(max(true), rel=0.05, abs=2.0)


def test_polls_that_wait_for_nobody_make_no_result_late():
    assert outlook(law(), 100_000, None, 600.0).late == 0.0
    assert outlook(law(), 0, 1.0, 600.0).late == 0.0


def test_law_counts_once_it_is_learnt():
    assert not outlook(law(300.0, ended=LEARNT - 1), 10, None, 100.0).is_worth_telling
    assert outlook(law(300.0, ended=LEARNT), 10, None, 100.0).is_worth_telling
    assert not outlook(law(300.0, ended=50), 10, None, 3_600.0).is_worth_telling


def test_limit_that_no_run_reaches_is_none():
    assert outlook(law(), 1_000, 50 / 60, math.inf).late == 0.0
