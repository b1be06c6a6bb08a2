"""When each job is polled, as a rule and in simulation, and in which order all jobs are."""

from __future__ import annotations

import math
import random
import weakref
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._policy.polling import SHORTEST, PollPolicy, PollRule, RunningJob, Schedule

CHANCE = st.floats(0, 1, exclude_max=True)


def next_gap(rule: PollRule, job: RunningJob, jitter: float, random: float) -> float:
    policy = rule if isinstance(rule, PollPolicy) else PollPolicy.by(rule)
    return msgspec.structs.replace(policy, jitter=jitter).next_gap(job, random)


def ages(rule: PollRule, until: float, *, jitter: float = 0.0, draw: Callable[[], float] = lambda: 0.5) -> list[float]:
    """The ages at which a job that never ends is polled."""
    age, found = 0.0, list[float]()
    while True:
        age += next_gap(rule, RunningJob(age=age, polls=len(found)), jitter, draw())
        if age > until:
            return found
        found.append(age)


# --- the default rule -------------------------------------------------------------------------------------------------


def test_default_policy_waits_then_polls_every_ten_seconds():
    assert ages(PollPolicy(), 905.0) == [30.0 + 10.0 * n for n in range(88)]


def test_tail_gaps_grow_by_a_quarter_to_their_bound():
    tail = [age for age in ages(PollPolicy(), 5_000.0) if age >= 900.0]
    gaps = [after - before for before, after in pairwise(tail)]
    growing = [gap for gap in gaps if gap < 120.0]
    assert growing == pytest.approx([10.0 * 1.25**n for n in range(len(growing))])
    assert len(growing) == 12
    assert set(gaps[len(growing) :]) == {120.0}
    assert len(gaps) > len(growing) + 10


@given(gap=st.floats(0.1, 100), growth=st.floats(1, 3), tail_after=st.floats(0, 5_000), beyond=st.floats(0, 1))
def test_tail_gap_is_the_one_before_times_the_growth(gap: float, growth: float, tail_after: float, beyond: float):
    policy = PollPolicy(quiet=0.0, gap=gap, growth=growth, tail_after=tail_after, max_gap=1e12)
    age = tail_after + beyond * gap
    before = policy(RunningJob(age=age, polls=1))
    for polls in range(2, 12):
        age += before
        after = policy(RunningJob(age=age, polls=polls))
        # The sum of age and gap is rounded, and the rounding grows with it.
        assert after == pytest.approx(before * growth, rel=1e-6, abs=1e-6)
        before = after


@given(quiet=st.floats(1, 10_000), share=st.floats(0, 0.99), jitter=st.floats(0, 0.5), chance=CHANCE)
def test_no_poll_is_made_before_the_quiet_ends(quiet: float, share: float, jitter: float, chance: float):
    age = quiet * share
    wait = next_gap(PollPolicy(quiet=quiet), RunningJob(age=age, polls=0), jitter, chance)
    assert quiet - 1e-6 <= age + wait <= quiet + (quiet - age) * jitter + 2 * SHORTEST


def test_policy_without_quiet_polls_after_one_gap():
    assert PollPolicy(quiet=0.0)(RunningJob(age=0.0, polls=0)) == 10.0


@given(age=st.floats(0, 1e6), polls=st.integers(0, 10_000))
def test_gap_stays_between_the_even_one_and_the_longest(age: float, polls: int):
    policy = PollPolicy(quiet=0.0, gap=10.0, max_gap=120.0)
    assert 10.0 <= policy(RunningJob(age=age, polls=polls)) <= 120.0


@given(gap=st.floats(0.1, 1_000), age=st.floats(0, 1e5))
def test_gap_longer_than_the_longest_is_not_shortened(gap: float, age: float):
    assert PollPolicy(quiet=0.0, gap=gap)(RunningJob(age=age, polls=1)) >= gap


@pytest.mark.parametrize("seconds", [0.05, 2.0, 10.0, 300.0])
def test_fixed_policy_polls_after_equal_gaps(seconds: float):
    found = ages(PollPolicy.fixed(seconds), 100 * seconds + seconds / 2)
    assert found == pytest.approx([seconds * n for n in range(1, 101)])


def test_fixed_policy_never_slackens():
    assert PollPolicy.fixed(10.0)(RunningJob(age=1e6, polls=9)) == 10.0


def test_fixed_policy_has_the_budget_it_is_given():
    assert PollPolicy.fixed(10.0).budget is None
    assert PollPolicy.fixed(10.0, budget=60.0).budget == 60.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"gap": 0.0}, {"gap": -1.0}, {"gap": SHORTEST / 2}, {"gap": math.nan}, {"gap": math.inf},
        {"quiet": -1.0}, {"quiet": math.nan}, {"quiet": math.inf},
        {"growth": 0.99}, {"growth": math.nan}, {"growth": math.inf},
        {"jitter": -0.1}, {"jitter": 1.0}, {"jitter": math.nan},
        {"budget": 0.0}, {"budget": -1.0}, {"budget": math.nan},
        {"tail_after": -1.0}, {"tail_after": math.nan},
        {"max_gap": 0.0}, {"max_gap": -1.0}, {"max_gap": math.nan},
    ],
    ids=str,
)  # fmt: skip
def test_policy_that_would_never_poll_or_always_is_refused(wrong: dict[str, Any]):
    with pytest.raises(ValueError, match="a poll policy needs"):
        PollPolicy(**wrong)


@pytest.mark.parametrize("seconds", [0.0, -5.0, math.nan, math.inf])
def test_fixed_policy_of_no_time_is_refused(seconds: float):
    with pytest.raises(ValueError, match="a poll policy needs"):
        PollPolicy.fixed(seconds)


@pytest.mark.parametrize(
    "right",
    [{"gap": SHORTEST}, {"quiet": 0.0}, {"growth": 1.0}, {"jitter": 0.0}, {"budget": None}, {"tail_after": math.inf}],
    ids=str,
)
def test_policy_at_the_edge_of_sense_is_accepted(right: dict[str, Any]):
    assert next_gap(PollPolicy(**right), RunningJob(age=2_000.0, polls=1), 0.0, 0.5) >= SHORTEST


# --- from a rule's answer to a wait -----------------------------------------------------------------------------------


@given(gap=st.floats(1, 10_000), jitter=st.floats(0, 1, exclude_max=True), chance=CHANCE)
def test_jitter_changes_a_gap_by_its_share_at_most(gap: float, jitter: float, chance: float):
    wait = next_gap(lambda job: gap, RunningJob(age=1.0, polls=1), jitter, chance)
    assert gap * (1.0 - jitter) * (1 - 1e-12) <= wait <= gap * (1.0 + jitter) * (1 + 1e-12)


def test_jitter_spreads_evenly_round_the_gap():
    draw = random.Random(3)
    waits = [next_gap(lambda job: 10.0, RunningJob(age=1.0, polls=1), 0.1, draw.random()) for _ in range(10_000)]
    tenths = [0] * 10
    for wait in waits:
        tenths[int((wait - 9.0) / 0.2)] += 1
    assert all(800 <= count <= 1_200 for count in tenths), tenths


@pytest.mark.parametrize("answer", [math.nan, -math.inf, -1.0, -0.0, 0, 1e-300, SHORTEST / 2])
def test_rule_that_asks_for_no_time_gets_the_shortest(answer: float):
    assert next_gap(lambda job: answer, RunningJob(age=1.0, polls=1), 0.0, 0.5) == SHORTEST


@pytest.mark.parametrize("answer", [math.inf, 1e300, 10**9])
def test_rule_that_asks_for_infinity_gets_a_day(answer: float):
    assert next_gap(lambda job: answer, RunningJob(age=1.0, polls=1), 0.1, 0.99) == 86_400.0


@given(answer=st.floats() | st.integers(-(10**30), 10**30), jitter=st.floats(0, 1, exclude_max=True), chance=CHANCE)
def test_wait_is_finite_and_positive_whatever_the_rule(answer: float, jitter: float, chance: float):
    for polls in (0, 1):
        assert 0.0 < next_gap(lambda job: answer, RunningJob(age=0.0, polls=polls), jitter, chance) <= 86_400.0


def test_users_rule_is_given_the_state_of_the_job():
    asked: list[RunningJob] = []

    def rule(job: RunningJob) -> float:
        asked.append(job)
        return 5.0 if job.status == "CREATED" else 60.0

    assert next_gap(rule, RunningJob(age=7.0, polls=2, status="CREATED", model="sonar"), 0.0, 0.5) == 5.0
    assert next_gap(rule, RunningJob(age=8.0, polls=3, status="IN_PROGRESS"), 0.0, 0.5) == 60.0
    assert [(job.age, job.polls, job.model) for job in asked] == [(7.0, 2, "sonar"), (8.0, 3, "")]


# --- what it costs: docs/polling.md -----------------------------------------------------------------------------------


def polls_and_lag(policy: PollPolicy, jobs: int, jitter: float) -> tuple[float, float]:
    """Mean polls of a job and mean seconds from its end to its detection; one in a hundred never ends."""
    draw = random.Random(11)
    polls, lags = 0, list[float]()
    for n in range(jobs):
        ends = math.inf if n % 100 == 0 else draw.lognormvariate(math.log(180.0), 0.6)
        age, count = 0.0, 0
        while age < ends and age < 3_600.0:
            age += next_gap(policy, RunningJob(age=age, polls=count), jitter, draw.random())
            count += 1
        polls += count
        if age >= ends:
            lags.append(age - ends)
    return polls / jobs, sum(lags) / len(lags)


def test_even_gap_costs_what_the_law_of_durations_says():
    polls, lag = polls_and_lag(PollPolicy.fixed(10.0), 5_000, 0.0)
    assert polls == pytest.approx(25.4, rel=0.05)
    assert lag == pytest.approx(5.0, rel=0.03)


@pytest.mark.parametrize("jitter", [0.0, 0.1])
def test_quiet_start_and_growing_tail_save_a_third(jitter: float):
    policy = PollPolicy(quiet=60.0, gap=10.0, tail_after=450.0)
    polls, lag = polls_and_lag(policy, 10_000, jitter)
    assert polls == pytest.approx(17.0, rel=0.03)
    assert lag == pytest.approx(6.4, rel=0.04)
    # An even gap makes 127 of this product, the best schedule of all 92.
    assert polls * lag == pytest.approx(108.5, rel=0.05)


# --- the order of all jobs --------------------------------------------------------------------------------------------


def test_schedule_gives_keys_in_due_order():
    schedule: Schedule[str] = Schedule()
    for key, due in [("c", 3.0), ("a", 1.0), ("b", 2.0)]:
        schedule.put(key, due)
    assert schedule.next_due() == 1.0
    assert [schedule.pop(10.0) for _ in range(4)] == ["a", "b", "c", None]
    assert schedule.next_due() is None


def test_keys_due_together_come_out_as_they_went_in():
    schedule: Schedule[int] = Schedule()
    for key in (3, 1, 2):
        schedule.put(key, 5.0)
    assert [schedule.pop(5.0) for _ in range(3)] == [3, 1, 2]


def test_schedule_gives_nothing_before_it_is_due():
    schedule: Schedule[str] = Schedule()
    schedule.put("a", 5.0)
    assert schedule.pop(4.999) is None
    assert "a" in schedule
    assert schedule.pop(5.0) == "a"
    assert "a" not in schedule


@pytest.mark.parametrize("due", [1.0, 9.0])
def test_repeated_key_is_due_at_its_later_time_only(due: float):
    schedule: Schedule[str] = Schedule()
    schedule.put("a", 5.0)
    schedule.put("a", due)
    assert (len(schedule), schedule.next_due()) == (1, due)
    assert schedule.pop(10.0) == "a"
    assert schedule.pop(10.0) is None


def test_removed_key_does_not_come_out():
    schedule: Schedule[str] = Schedule()
    schedule.put("a", 1.0)
    schedule.put("b", 2.0)
    assert schedule.remove("a")
    assert not schedule.remove("a")
    assert schedule.next_due() == 2.0
    assert schedule.pop(10.0) == "b"


KEYS = st.integers(0, 8)
DUES = st.integers(0, 6).map(float)
STEPS = st.one_of(
    st.tuples(st.just("put"), KEYS, DUES),
    st.tuples(st.just("remove"), KEYS, DUES),
    st.tuples(st.just("pop"), KEYS, DUES),
)


@given(steps=st.lists(STEPS, max_size=300))
def test_schedule_behaves_like_a_sorted_list(steps: list[tuple[str, int, float]]):
    schedule: Schedule[int] = Schedule()
    model: dict[int, tuple[float, int]] = {}
    for n, (step, key, time) in enumerate(steps):
        if step == "put":
            schedule.put(key, time)
            model[key] = (time, n)
        elif step == "remove":
            assert schedule.remove(key) is (model.pop(key, None) is not None)
        else:
            first = min(model, key=lambda k: model[k], default=None)
            expected = first if first is not None and model[first][0] <= time else None
            assert schedule.pop(time) == expected
            model.pop(-1 if expected is None else expected, None)
        assert len(schedule) == len(model)
        assert (key in schedule) is (key in model)
        assert schedule.next_due() == min((due for due, _ in model.values()), default=None)


class Key:
    """A key that can be counted while anything holds it."""

    def __init__(self, name: int) -> None:
        self.name = name

    def __hash__(self) -> int:
        return self.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and other.name == self.name


def most_held(steps: Callable[[Schedule[Key], Callable[[int], Key]], None]) -> int:
    """How many keys a schedule held when `steps` was through; equal ones count apart."""
    schedule: Schedule[Key] = Schedule()
    made: list[weakref.ref[Key]] = []

    def key(name: int) -> Key:
        one = Key(name)
        made.append(weakref.ref(one))
        return one

    steps(schedule, key)
    return sum(ref() is not None for ref in made)


def test_schedule_does_not_grow_with_one_repeated_key():
    def steps(schedule: Schedule[Key], key: Callable[[int], Key]) -> None:
        for n in range(5_000):
            schedule.put(key(1), 1e9 - n)

    assert most_held(steps) <= 70


def test_schedule_of_passing_keys_does_not_grow():
    def steps(schedule: Schedule[Key], key: Callable[[int], Key]) -> None:
        for n in range(5_000):
            schedule.put(key(n), 1e9)
            schedule.remove(Key(n))

    assert most_held(steps) <= 70


def test_emptied_schedule_holds_next_to_nothing():
    def steps(schedule: Schedule[Key], key: Callable[[int], Key]) -> None:
        for n in range(5_000):
            schedule.put(key(n), 1e9)
        for n in range(5_000):
            schedule.remove(Key(n))

    assert most_held(steps) <= 70


def test_schedule_holds_repeated_keys_only_a_few_times():
    def steps(schedule: Schedule[Key], key: Callable[[int], Key]) -> None:
        for n in range(20_000):
            schedule.put(key(n % 1_000), float(n))

    assert most_held(steps) <= 3_001
