"""When the jobs that run now will be done, by the learnt laws of their durations.

A job that has run for so long that hardly any job ends so late is stalled: it is counted apart, since nobody knows when
it will end, or whether. This module knows nothing of tasks or clocks: times are seconds from now.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from aiopplx._policy.durations import Law

MOST = 256
"""Jobs that are asked one by one; of more, an even sample by age."""
HORIZON = 7 * 86_400.0
"""Seconds: nothing is foretold beyond."""


class Forecast(msgspec.Struct, frozen=True):
    """When the jobs that run now are expected to be done.

    Attributes:
        running: jobs that run, without those that are stalled.
        stalled: jobs that have run for longer than 999 of 1,000 such jobs take: nothing is foretold of them.
        half: seconds since 1970 at which half of the running ones will be done; None if none runs.
        most: the same for nine in ten.
        all: the same for all.
    """

    running: int = 0
    stalled: int = 0
    half: float | None = None
    most: float | None = None
    all: float | None = None


def forecast(jobs: Sequence[tuple[Law, float]], now: float) -> Forecast:
    """What is expected of jobs.

    Args:
        jobs: the law and the age in seconds of each.
        now: seconds since 1970.
    """
    for law in {id(law): law for law, _ in jobs}.values():
        law.refresh()
    running = sorted(((law, age) for law, age in jobs if age < law.stalled_after), key=lambda job: job[1])
    stalled = len(jobs) - len(running)
    if not running:
        return Forecast(stalled=stalled)
    step = max(1, len(running) // MOST)
    asked = running[step // 2 :: step]
    # Of all: less than half a job is expected to remain.
    half, most, last = (_until(asked, done) for done in (0.5, 0.9, 1.0 - 0.5 / max(2, len(running))))
    return Forecast(len(running), stalled, now + half, now + most, now + last)


def _until(jobs: Sequence[tuple[Law, float]], share: float) -> float:
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
