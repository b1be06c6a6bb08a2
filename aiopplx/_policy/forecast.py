"""When the jobs that run now will be done, by the learnt laws of their durations; and whether a run is too long.

A job that has run for so long that hardly any job ends so late is stalled: it is counted apart, since nobody knows when
it will end, or whether.

Jobs that are still to be submitted wait for a place, or for a limit of submissions, and then take as long as others.

A run can be too long for its own jobs where submissions and polls share a limit. Submissions go first (`turns`), but
for one departure in ten, so that results lie unread until the last question is sent. They are read oldest first.
Counted in departures, the wait of a result grows to nearly the number of jobs within the first ninth of them, and is
hardly shorter for the rest. A job whose time limit, or whose life at the server, is shorter than that is paid for and
not collected in time. That is said before anything is paid.

This module knows nothing of tasks or clocks: times are seconds from now.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import msgspec

from aiopplx._policy.durations import Curve, Law
from aiopplx._policy.turns import FLOOR

MOST = 256
"""Jobs that are asked one by one; of more, an even sample by age."""
ROUNDS = 8
"""Jobs for each place that are played one after the other; of more, the mean counts."""
HORIZON = 7 * 86_400.0
"""Seconds: nothing is foretold beyond."""
LEARNT = 5
"""Jobs of a kind that have ended here, from which on what is usual for it is known."""
WORTH_TELLING = 0.05
"""The share of jobs that are expected to be late, from which on it is told."""


class Forecast(msgspec.Struct, frozen=True):
    """When the jobs that run now are expected to be done.

    Attributes:
        running: jobs that run, without those that are stalled.
        stalled: jobs that have run for longer than 999 of 1,000 such jobs take: nothing is foretold of them.
        half: seconds since 1970 at which half of the running ones will be done; None if none runs.
        most: the same for nine in ten.
        all: the same for all.
        last: the same for all of these and those that are still to be submitted; None if nothing is to be waited for,
            or if stalled jobs take all the places.
    """

    running: int = 0
    stalled: int = 0
    half: float | None = None
    most: float | None = None
    all: float | None = None
    last: float | None = None


def forecast(
    jobs: Sequence[tuple[Law, float]],
    now: float,
    *,
    waiting: int = 0,
    places: int = MOST,
    per_second: float | None = None,
    usual: Law | None = None,
) -> Forecast:
    """What is expected of jobs.

    Args:
        jobs: the law and the age in seconds of each.
        now: seconds since 1970.
        waiting: jobs that are still to be submitted; they are taken to be like those that run.
        places: how many jobs run at once at most.
        per_second: submissions a second; None if no limit is known.
        usual: the law of the jobs that wait where none runs.
    """
    laws = {id(law): law for law, _ in jobs}
    curves = {known: law.expected() for known, law in laws.items()}
    running = sorted(
        ((curve, age) for law, age in jobs if age < (curve := curves[id(law)]).stalled_after), key=lambda job: job[1]
    )
    stalled = len(jobs) - len(running)
    half = most = last = None
    if running:
        step = max(1, len(running) // MOST)
        asked = running[step // 2 :: step]
        # Of all: less than half a job is expected to remain.
        half, most, last = (now + _until(asked, done) for done in (0.5, 0.9, 1.0 - 0.5 / max(2, len(running))))
    if not waiting:
        return Forecast(len(running), stalled, half, most, last, last)
    like = [curve for curve, _ in running] or ([usual.expected()] if usual is not None else [*curves.values()])
    through = _through(running, like, waiting, places - stalled, per_second) if like and places > stalled else None
    # No run of many ends before those do that run now.
    rest = None if through is None else max(now + through, last or now)
    return Forecast(len(running), stalled, half, most, last, rest)


def _until(jobs: Sequence[tuple[Curve, float]], share: float) -> float:
    """Seconds until this share of the jobs is expected to have ended, of those that end."""
    low, high = 0.0, HORIZON
    wanted = share * len(jobs)
    while high - low > 0.5:
        middle = 0.5 * (low + high)
        if sum(law.will_have_ended(age, age + middle) for law, age in jobs) < wanted:
            low = middle
        else:
            high = middle
    return high


def _through(
    running: Sequence[tuple[Curve, float]],
    like: Sequence[Curve],
    waiting: int,
    places: int,
    per_second: float | None,
) -> float:
    """Seconds until jobs that wait have gone through the places and have ended, and those that run before them.

    It is played: each takes the place that is free first. Durations are not drawn but spread evenly over the law, so
    that the same question has the same answer. Of many places a share is played, with its share of the jobs; and what
    is more than `ROUNDS` jobs for each place is reckoned by the mean.
    """
    shares = max(1, places // MOST)
    places, waiting = places // shares, max(1, waiting // shares)
    per_second = per_second / shares if per_second is not None else None
    spread = _Spread()
    ends = [curve.age_of_end(spread.next(), age) - age for curve, age in running[shares // 2 :: shares]]
    heapq.heapify(ends)
    last, sent = max(ends, default=0.0), 0.0
    played = min(waiting, ROUNDS * places)
    total = 0.0
    for n in range(played):
        free = heapq.heappop(ends) if len(ends) >= places else 0.0
        sent = max(free, sent + 1.0 / per_second) if per_second else free
        duration = like[n % len(like)].age_of_end(spread.next())
        total += duration
        last = max(last, sent + duration)
        heapq.heappush(ends, sent + duration)
    slowest = max(total / played / places, 1.0 / per_second if per_second else 0.0)
    return min(last + (waiting - played) * slowest, HORIZON)


class _Spread:
    """Numbers between 0 and 1, any number of which lie evenly: each is the one before and the golden section."""

    def __init__(self) -> None:
        self._at = 0.5

    def next(self) -> float:
        self._at = (self._at + 0.6180339887498949) % 1.0
        return self._at


class Outlook(msgspec.Struct, frozen=True):
    """What is expected of a run before its first submission.

    Attributes:
        late: the share of its jobs whose result is expected to come after their limit.
        oldest: seconds from the submission of a job until its result is read, for the one that waits longest in line.
    """

    late: float
    oldest: float

    @property
    def is_worth_telling(self) -> bool:
        """Whether more than a few jobs are expected to be late."""
        return self.late >= WORTH_TELLING


def outlook(law: Law, jobs: int, per_second: float | None, limit: float) -> Outlook:
    """What is expected of jobs that are submitted from now on.

    Args:
        law: of their durations. It counts only if it is learnt.
        jobs: how many run at once at most.
        per_second: departures that submissions and polls share; None if polls need not wait, or nobody knows.
        limit: seconds from the submission of a job after which its result is of no use.
    """
    law.refresh()
    too_slow = 1.0 - law.will_have_ended(0.0, limit) if law.finished >= LEARNT else 0.0
    if per_second is None or jobs <= 0:
        return Outlook(too_slow, 0.0)
    asked = min(jobs, MOST)
    waits = [_wait_in_line((n + 0.5) / asked * jobs, jobs) / per_second for n in range(asked)]
    late = sum(1.0 if wait > limit else too_slow for wait in waits) / asked
    return Outlook(late, max(waits))


def _wait_in_line(n: float, jobs: int) -> float:
    """Departures between the submission of the n-th job and the poll that reads its result."""
    submitted = n * FLOOR / (FLOOR - 1)
    by_floor = jobs / (FLOOR - 1)
    read = n * FLOOR if n <= by_floor else jobs * FLOOR / (FLOOR - 1) + n - by_floor
    return read - submitted
