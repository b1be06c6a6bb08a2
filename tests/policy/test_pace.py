"""The budget of polls in virtual time."""

from __future__ import annotations

import pytest
from _virtual import START
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._policy.pace import Bucket

TINY = 1e-6


@given(per_minute=st.floats(0.1, 10_000), laters=st.lists(st.floats(0, 60), min_size=2, max_size=200))
def test_bucket_never_gives_more_than_burst_and_rate(per_minute: float, laters: list[float]):
    bucket, now, left = Bucket(per_minute), START, list[float]()
    for later in laters:
        now += later
        if bucket.delay(now) == 0.0:
            bucket.leave(now)
            left.append(now)
    burst = max(10.0, per_minute / 60.0)
    for first in range(0, len(left), 7):
        for last in range(first, len(left), 5):
            assert last - first + 1 <= burst + (left[last] - left[first]) * per_minute / 60.0 + TINY


@pytest.mark.parametrize("per_minute", [0.1, 1, 60, 6_000])
def test_bucket_gives_its_rate_in_the_long_run(per_minute: float):
    bucket, now = Bucket(per_minute), START
    for _ in range(500):
        now += bucket.delay(now) + TINY
        bucket.leave(now)
    at_once = max(1.0, min(10.0, per_minute), per_minute / 60.0)
    assert (now - START) * per_minute / 60.0 == pytest.approx(500.0 - at_once, abs=1.1)
