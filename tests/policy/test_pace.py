"""The pace in virtual time: rates given and learnt, against the service's documented limit."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable
from itertools import pairwise

import pytest
from _virtual import START, Steps, World
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._policy.gate import Gate
from aiopplx._policy.pace import Bucket, Pace
from aiopplx._policy.retry import Bounds, Fault, Over, RetryPolicy, SubmitTries
from aiopplx._wire.call import Lane

POLICY = RetryPolicy()
NO_BOUNDS = Bounds()
TINY = 1e-6


class LeakyBucket:
    """The service's limit as it documents it: refilled all the time, a burst of its capacity, refusals cost nothing."""

    def __init__(self, per_minute: float) -> None:
        self.per_minute = self.tokens = float(per_minute)
        self.at = START

    def take(self, now: float) -> bool:
        self.tokens = min(self.per_minute, self.tokens + (now - self.at) * self.per_minute / 60.0)
        self.at = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


class Submitters:
    """Many submissions through one gate to a leaky bucket, with the retries of the policy."""

    def __init__(self, world: World, server: LeakyBucket, *, latency: float = 0.35, gate: Gate | None = None) -> None:
        self.world = world
        self.server = server
        self.latency = latency
        self.gate = gate or Gate()
        self.taken: list[float] = []
        self.refused: list[float] = []

    def submit(self, jobs: int, *, at_once: int = 32) -> None:
        todo = iter(range(jobs))
        self.world.run([self.submitter(todo) for _ in range(at_once)])

    def submitter(self, todo: Iterable[int]) -> Steps:
        for _ in todo:
            tries = SubmitTries(POLICY)
            while True:
                left_at = yield from self.passed()
                if (yield from self.answered(left_at)):
                    break
                now, chance = self.world.now, self.world.chance.random()
                verdict = tries.failed(
                    Fault.THROTTLED, now, chance, doubt=False, repeatable=True, bounds=NO_BOUNDS, status=429
                )
                assert not isinstance(verdict, Over)
                yield verdict.delay

    def passed(self) -> Generator[float, None, float]:
        while (delay := self.gate.delay(Lane.SUBMIT, self.world.now)) > 0.0:
            yield delay
        self.gate.leave(Lane.SUBMIT, self.world.now)
        return self.world.now

    def answered(self, left_at: float) -> Generator[float, None, bool]:
        yield self.latency * self.world.chance.uniform(0.25, 0.75)
        room = self.server.take(self.world.now)
        (self.taken if room else self.refused).append(self.world.now)
        yield self.latency * self.world.chance.uniform(0.25, 0.75)
        self.gate.back(self.world.now)
        if room:
            self.gate.answered(Lane.SUBMIT, accepted=True)
        else:
            self.gate.throttled(Lane.SUBMIT, self.world.now, left_at, None, self.world.chance.random())
        return room

    def share_of_rate_since(self, since: float) -> float:
        taken = sum(at > since for at in self.taken)
        return taken * 60.0 / (self.taken[-1] - since) / self.server.per_minute

    def share_refused_since(self, since: float) -> float:
        taken, refused = sum(at > since for at in self.taken), sum(at > since for at in self.refused)
        return refused / (taken + refused)


# --- a rate that is given ---------------------------------------------------------------------------------------------

RPM = st.floats(0.1, 10_000)


@given(rpm=RPM, events=st.lists(st.tuples(st.floats(0, 100), st.booleans())))
def test_given_pace_keeps_departures_its_interval_apart(rpm: float, events: list[tuple[float, bool]]):
    pace, now, left = Pace(rpm), START, list[float]()
    for later, refuse in events:
        now += max(pace.delay(now), later)
        while (delay := pace.delay(now)) > 0.0:
            now += delay
        pace.leave(now)
        left.append(now)
        if refuse:
            pace.refused(now, now)
    assert all(after - before >= 60.0 / rpm - TINY for before, after in pairwise(left))


def test_given_pace_is_used_in_full():
    pace, now = Pace(60), START
    for _ in range(100):
        now += pace.delay(now)
        pace.leave(now)
    assert now - START == pytest.approx(99.0)


def test_given_pace_saves_up_nothing_unused():
    pace = Pace(60)
    pace.leave(START)
    pace.leave(START + 600)
    assert pace.delay(START + 600) == pytest.approx(1.0)


@given(first=RPM, second=RPM)
def test_limit_that_was_set_last_holds(first: float, second: float):
    pace = Pace(first)
    pace.limit(second)
    assert pace.interval == pytest.approx(60.0 / second)
    pace.leave(START)
    assert pace.delay(START) == pytest.approx(60.0 / second)


@given(first=RPM)
def test_lifted_limit_holds_back_nothing_that_it_still_spaced(first: float):
    pace = Pace(first)
    pace.leave(START)
    pace.limit(None)
    assert (pace.interval, pace.delay(START)) == (0.0, 0.0)


def test_lifted_limit_leaves_what_was_learnt():
    pace = Pace(100)
    for n in range(20):
        pace.leave(START + n)
    for _ in range(Pace.IN_A_ROW):
        pace.refused(START + 20, START + 19)
    learnt = pace.interval
    pace.limit(None)
    assert pace.interval == pytest.approx(learnt, rel=0.3)
    assert pace.delay(START + 20) > 0.0


def test_given_pace_above_the_servers_rate_falls_to_it():
    subs = Submitters(World(), LeakyBucket(20), gate=Gate(per_minute=100))
    subs.submit(800)
    half = START + (subs.taken[-1] - START) / 2
    assert subs.share_of_rate_since(half) == pytest.approx(1.0, abs=0.1)


# --- a rate that is learnt --------------------------------------------------------------------------------------------


def test_unknown_pace_is_free_until_the_first_refusal():
    pace = Pace()
    for _ in range(10_000):
        assert pace.delay(START) == 0.0
        pace.leave(START)


# Refused: what is tolerated of the submissions made. A bucket is only known to be empty by a refusal, and one in three
# minutes, which costs nothing, is one in fifteen at five a minute.
@pytest.mark.parametrize("latency", [0.05, 0.35, 3.0])
@pytest.mark.parametrize(("rpm", "refused"), [(5, 0.08), (20, 0.03), (100, 0.01)])
def test_learnt_pace_reaches_the_servers_rate_with_few_refusals(rpm: int, refused: float, latency: float):
    subs = Submitters(World(rpm), LeakyBucket(rpm), latency=latency)
    subs.submit(rpm * 40)
    half = START + (subs.taken[-1] - START) / 2
    assert subs.share_of_rate_since(half) == pytest.approx(1.0, abs=0.1)
    assert subs.share_refused_since(half) <= refused


@pytest.mark.parametrize("rpm", [5, 20, 100])
def test_learnt_pace_is_right_from_the_first_minutes(rpm: int):
    subs = Submitters(World(rpm), LeakyBucket(rpm))
    subs.submit(rpm * 10)
    # A full bucket gives one minute's worth at once, the other nine come at its rate.
    assert subs.taken[-1] - START <= 9.5 * 60.0
    # What is in flight when the bucket runs dry is refused; after that a few.
    assert len(subs.refused) <= 32 + 12


@pytest.mark.parametrize("rpm", [10, 100])
def test_learnt_pace_follows_a_rate_cut_in_half(rpm: int):
    subs = Submitters(World(), LeakyBucket(rpm))
    subs.submit(rpm * 10)
    subs.server.per_minute /= 2.0
    changed = subs.world.now
    subs.submit(rpm * 10)
    assert subs.share_of_rate_since(changed + 300.0) == pytest.approx(1.0, abs=0.1)
    assert subs.share_refused_since(changed + 300.0) <= 0.1


@pytest.mark.parametrize("rpm", [5, 100])
def test_learnt_pace_finds_a_doubled_rate_in_fifteen_minutes(rpm: int):
    subs = Submitters(World(), LeakyBucket(rpm))
    subs.submit(rpm * 10)
    subs.server.per_minute *= 2.0
    changed = subs.world.now
    subs.submit(rpm * 60)
    assert subs.share_of_rate_since(changed + 900.0) == pytest.approx(1.0, abs=0.1)


def test_learnt_pace_uses_the_rest_beside_another_program():
    world = World()
    subs = Submitters(world, LeakyBucket(20))
    todo = iter(range(400))

    def other() -> Steps:
        while len(subs.taken) < 400:
            subs.server.take(world.now)
            yield 6.0

    world.run([*(subs.submitter(todo) for _ in range(32)), other()])
    # Of what the two of them ask for, half the rate is the other's at most.
    assert subs.share_of_rate_since(START + 600.0) >= 0.45
    assert subs.share_refused_since(START + 600.0) <= 0.1


def test_learnt_pace_is_what_the_last_minute_took():
    pace, now = Pace(), START
    for _ in range(2):
        pace.leave(now)
        now += 18_000.0
    for _ in range(15):
        pace.leave(now)
    for _ in range(10):
        pace.refused(now + 0.3, left_at=now)
    # Five were taken, so five or six a minute and a fifth less; not two in ten hours.
    assert 10.0 <= pace.interval <= 15.0


@given(order=st.permutations([True] * 5 + [False] * 27))
def test_pace_learnt_from_a_burst_ignores_answer_order(order: list[bool]):
    pace = Pace()
    for _ in order:
        pace.leave(START)
    for taken in order:
        if not taken:
            pace.refused(START + 0.3, left_at=START)
    assert pace.interval == pytest.approx(12.5, rel=0.05)
    assert pace.delay(START + 0.3) == pytest.approx(pace.interval)


@pytest.mark.parametrize("rpm", [5, 100])
def test_pace_learnt_from_an_empty_bucket_recovers_in_minutes(rpm: int):
    # The same program again, just after it was killed: everything that leaves at first is refused.
    subs = Submitters(World(), LeakyBucket(rpm))
    subs.server.tokens = 0.0
    subs.submit(rpm * 10)
    assert subs.share_of_rate_since(START + 300.0) == pytest.approx(1.0, abs=0.1)
    assert subs.taken[-1] - START <= 13.0 * 60.0


def test_pace_is_cut_once_for_earlier_departures():
    pace, now = Pace(60), START
    left: list[float] = []
    for _ in range(600):
        now += pace.delay(now)
        pace.leave(now)
        left.append(now)
    for left_at in left[-Pace.IN_A_ROW - 2 : -2]:
        assert pace.interval == 1.0
        pace.refused(now + 0.1, left_at=left_at)
    once = pace.interval
    pace.refused(now + 0.2, left_at=left[-2])
    pace.refused(now + 0.3, left_at=left[-1])
    assert once > 1.2
    assert pace.interval == pytest.approx(once, rel=0.1)


def test_pace_is_not_learnt_from_occasional_refusals():
    pace, now, chance = Pace(), START, random.Random(7)
    for _ in range(2_000):
        now += pace.delay(now) + 0.01
        pace.leave(now)
        if chance.random() < 0.1:
            pace.refused(now, left_at=now)
        else:
            pace.accepted()
    assert pace.interval == 0.0


@given(
    rpm=st.none() | RPM,
    events=st.lists(
        st.tuples(st.floats(0, 2_000), st.sampled_from(["leave", "refused", "stale"]), st.floats(0, 60)), max_size=80
    ),
)
def test_pace_after_any_events_keeps_waits_short(rpm: float | None, events: list[tuple[float, str, float]]):
    pace, now = Pace(rpm), START
    slowest = max(75.0, 60.0 / rpm if rpm else 0.0) + TINY
    for later, event, ago in events:
        if event == "leave":
            now += max(later, pace.delay(now))
            pace.leave(now)
        else:
            now += later
            pace.refused(now, left_at=now - (ago if event == "stale" else 0.0))
        assert (60.0 / rpm if rpm else 0.0) <= pace.interval <= slowest
        assert 0.0 <= pace.delay(now) <= slowest + TINY


# --- the budget of polls ----------------------------------------------------------------------------------------------


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
