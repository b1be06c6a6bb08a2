"""How long a run still takes: foretold in the midst of simulated runs, and compared with how long they then took."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._policy.durations import Law, guess
from aiopplx._policy.forecast import HORIZON, ROUNDS, forecast
from aiopplx._policy.laws import Laws
from aiopplx._wire.kinds import Kind

PUBLISHED = guess(212.0, 0.5)
POLL = 2.0
"""Seconds between two polls of a job."""
KIND = Kind("sonar", "model")


class Run(NamedTuple):
    """A run: how long its jobs take, how many there are, how many run at once, and how many are sent in a second."""

    median: float
    sigma: float
    jobs: int
    places: int
    per_second: float | None = None


class Moment(NamedTuple):
    """What is foretold when so many jobs have ended, and what then came: seconds."""

    ended: int
    foretold: float
    true: float


def moments(run: Run, seed: int = 0) -> Iterator[Moment]:
    """The course of a run: its law has seen what polls could tell by then, and nothing else."""
    chance = random.Random(seed)
    durations = [chance.lognormvariate(math.log(run.median), run.sigma) for _ in range(run.jobs)]
    begins, ends = _times(run, durations)
    law, seen = Law(PUBLISHED), [0.0] * run.jobs
    for ended, job in enumerate(sorted(range(run.jobs), key=ends.__getitem__), 1):
        now = ends[job]
        _poll(law, seen, job, max(seen[job], durations[job] - POLL))
        law.ended(seen[job], durations[job], durations[job])
        running = [other for other in range(run.jobs) if begins[other] <= now < ends[other]]
        if not running or ended not in {run.jobs * tenth // 10 for tenth in range(1, 9)}:
            continue
        for other in running:
            _poll(law, seen, other, now - begins[other])
        foretold = forecast(
            [(law, now - begins[other]) for other in running],
            now,
            waiting=sum(begin > now for begin in begins),
            places=run.places,
            per_second=run.per_second,
        )
        assert foretold.last is not None
        yield Moment(ended, foretold.last - now, max(ends) - now)


def _times(run: Run, durations: list[float]) -> tuple[list[float], list[float]]:
    begins: list[float] = []
    free = [0.0] * run.places
    for n, duration in enumerate(durations):
        begins.append(max(heapq.heappop(free), n / run.per_second if run.per_second else 0.0))
        heapq.heappush(free, begins[-1] + duration)
    return begins, [begin + duration for begin, duration in zip(begins, durations, strict=True)]


def _poll(law: Law, seen: list[float], job: int, age: float) -> None:
    law.ran(seen[job], age)
    seen[job] = max(seen[job], age)


@pytest.mark.parametrize("median", [2.0, 20.0, 200.0, 900.0])
@pytest.mark.parametrize(("jobs", "places"), [(20, 1), (50, 5), (100, 25), (300, 25), (400, 100), (200, 1000)])
@pytest.mark.parametrize("sigma", [0.1, 0.3])
def test_time_left_is_that_of_a_simulated_run(median: float, jobs: int, places: int, sigma: float) -> None:
    # The first of many that run to end say little of the rest.
    enough = max(5, min(jobs, places) // 4)
    told = [moment for moment in moments(Run(median, sigma, jobs, places)) if moment.ended >= enough]
    assert told
    for moment in told:
        odd = 0.3 * median + 4.0  # an end that is near hangs on one late job, and nobody looks at seconds
        assert 0.6 * moment.true - odd <= moment.foretold <= 1.7 * moment.true + odd, moment


@pytest.mark.parametrize("per_minute", [5.0, 50.0, 300.0])
def test_time_left_is_that_of_a_limit_of_submissions(per_minute: float) -> None:
    for moment in moments(Run(20.0, 0.3, 200, 1000, per_minute / 60.0)):
        assert moment.foretold == pytest.approx(moment.true, rel=0.25, abs=20.0), moment


def test_slow_jobs_are_not_foretold_by_what_was_published() -> None:
    slow = list(moments(Run(1800.0, 0.2, 100, 50)))
    assert all(moment.foretold >= 0.7 * moment.true for moment in slow), slow


@given(
    ages=st.lists(st.floats(0.0, 3_000.0), max_size=40),
    durations=st.lists(st.floats(0.5, 3_000.0), max_size=20),
    waiting=st.integers(0, 10_000),
    places=st.integers(1, 10_000),
    per_second=st.none() | st.floats(0.01, 100.0),
)
def test_more_to_do_never_ends_earlier(
    ages: list[float], durations: list[float], waiting: int, places: int, per_second: float | None
) -> None:
    law = Law(PUBLISHED)
    for duration in durations:
        law.ended(0.0, duration, duration)
    jobs = [(law, age) for age in ages[:places]]
    usual = law

    def ends(waiting: int, places: int, per_second: float | None = per_second) -> float:
        last = forecast(jobs, 0.0, waiting=waiting, places=places, per_second=per_second, usual=usual).last
        return last if last is not None else HORIZON if waiting else 0.0

    now = ends(waiting, places)
    assert 0.0 <= now <= HORIZON
    # What is played in parts, or reckoned by a mean, may be off by a little.
    assert ends(4 * waiting + 4 * places, places) >= 0.8 * now
    if per_second is not None:
        assert ends(waiting, places, per_second / 4.0) >= 0.8 * now


def test_stalled_jobs_keep_their_places() -> None:
    law = Law(PUBLISHED)
    for n in range(100):
        law.ran(0.0, 200.0 + n)
        law.ended(200.0 + n, 200.0 + n, 200.0 + n)
    stuck = [(law, 6_000.0)] * 5
    free = forecast([], 0.0, waiting=20, places=10, usual=law).last
    half = forecast(stuck, 0.0, waiting=20, places=10, usual=law).last
    assert free is not None
    assert half is not None
    assert half == pytest.approx(2.0 * free, rel=0.2)
    assert forecast(stuck, 0.0, waiting=20, places=5, usual=law).last is None


def test_many_jobs_are_played_by_a_few() -> None:
    law = Law(PUBLISHED)
    for n in range(100):
        law.ended(0.0, 200.0 + n, 200.0 + n)
    for places in (10, 100, 1_000, 4_000):
        played = forecast([], 0.0, waiting=ROUNDS * places, places=places, usual=law).last
        more = forecast([], 0.0, waiting=4 * ROUNDS * places, places=places, usual=law).last
        assert played is not None
        assert more is not None
        assert more == pytest.approx(4.0 * played, rel=0.15)


def test_nothing_is_foretold_of_nothing() -> None:
    assert forecast([], 0.0).last is None
    assert forecast([], 0.0, waiting=10).last is None
    laws = Laws()
    assert laws.latest is None
    law = laws.of(KIND)
    assert laws.latest is law
