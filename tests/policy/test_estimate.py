"""What a run will cost: ranges that hold what they say, and nothing said where nothing is known."""

import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._policy.estimate import Estimate, _rounded, estimate
from aiopplx._wire.kinds import Kind, kind_named

SONAR = kind_named("sonar", "sonar-deep-research", "medium")
HIGH = kind_named("agent", "high")
STRANGE = kind_named("agent", "somebody/model")


def of(counts: dict[Kind, int], costs: dict[Kind, list[float]] | None = None, **given: float) -> Estimate:
    return estimate(counts, costs or {}, max_in_flight=int(given.get("max_in_flight", 1000)), rpm=given.get("rpm"))


def test_published_figures_are_said_to_be_such() -> None:
    found = of({SONAR: 300})
    assert (found.low, found.high, found.middle) == (110.0, 360.0, None)
    assert str(found).startswith("about $110 to $360, ")
    assert "published figures; nothing of yours is known yet" in str(found)


def test_an_unknown_kind_is_never_free() -> None:
    found = of({SONAR: 3, STRANGE: 2})
    assert (found.low, found.high) == (None, None)
    assert str(found).startswith("the cost of 2 of 5 is not known")


def test_own_costs_decide_from_five_on() -> None:
    few = of({SONAR: 100}, {SONAR: [0.9, 2.0, 0.8, 0.7]})
    assert (few.low, few.high, few.known) == (38.0, 200.0, 4)
    own = of({SONAR: 295}, {SONAR: [0.94, 0.71, 0.88, 1.02, 0.86]})
    assert own.middle == 260.0
    assert own.low is not None
    assert own.high is not None
    assert 200 < own.low < 260 < own.high < 320
    assert "(from 5 of yours)" in str(own)


@pytest.mark.parametrize(("sigma", "least"), [(0.25, 0.84), (0.45, 0.80), (0.7, 0.76)])
@pytest.mark.parametrize("pilot", [5, 20])
def test_the_likely_range_holds_most_runs(sigma: float, least: float, pilot: int) -> None:
    chance = random.Random(7)
    held = 0
    for _ in range(600):
        costs = [chance.lognormvariate(0.0, sigma) for _ in range(pilot + 95)]
        found = of({STRANGE: 95}, {STRANGE: costs[:pilot]})
        assert found.low is not None
        assert found.high is not None
        held += found.low <= sum(costs[pilot:]) <= found.high
    assert held / 600 > least


def test_kinds_are_added() -> None:
    both = of({SONAR: 10, HIGH: 10})
    assert both.low == pytest.approx(7.8)
    assert both.high == pytest.approx(22.0)


def test_time_follows_rate_slots_and_tier() -> None:
    slow = of({SONAR: 60}, rpm=6)
    assert 600 < slow.seconds_low < slow.seconds_high < 600 + 3600
    crowded = of({SONAR: 100}, rpm=1000, max_in_flight=1)
    assert crowded.seconds_low == crowded.seconds_high > 100 * 150
    unknown = of({SONAR: 300})
    assert unknown.seconds_high > 300 / 5 * 60 > unknown.seconds_low
    assert unknown.seconds_low > 300 / 100 * 60  # no tier of Sonar allows more
    assert of({HIGH: 300}).seconds_high < unknown.seconds_high


def test_nothing_costs_nothing() -> None:
    assert str(of({})) == "nothing to pay for"


@given(st.floats(1e-4, 1e6))
def test_bounds_are_rounded_outwards(amount: float) -> None:
    assert _rounded(amount, down=True) <= amount * 1.000001
    assert _rounded(amount, down=False) >= amount * 0.999999
    assert _rounded(amount) == pytest.approx(amount, rel=0.06)


@given(st.lists(st.floats(0.001, 5.0), min_size=5, max_size=60), st.integers(1, 1000))
def test_the_middle_lies_within_the_range(costs: list[float], count: int) -> None:
    found = of({SONAR: count}, {SONAR: costs})
    assert found.low is not None
    assert found.high is not None
    assert found.low <= count * fmean(costs[:50]) * 1.000001
    assert found.high >= count * fmean(costs[:50]) * 0.999999
