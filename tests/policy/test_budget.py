"""The budget decides what may still be sent under a cap, while costs become known as jobs end."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._policy.budget import ENOUGH, REMEMBERED, Budget

costs = st.floats(min_value=0.0, max_value=50.0, allow_nan=False)


def sends_until_full(budget: Budget) -> int:
    count = 0
    while budget.may_send():
        budget.sent()
        count += 1
    return count


def test_budget_holds_its_prior_for_each_job_in_flight() -> None:
    assert sends_until_full(Budget(10.0, prior=2.0)) == 5


def test_budget_below_one_hold_may_send_nothing() -> None:
    budget = Budget(1.0, prior=2.0)
    assert not budget.may_send()


def test_budget_of_an_exact_multiple_survives_rounding() -> None:
    assert sends_until_full(Budget(0.3, prior=0.1)) == 3


def test_full_budget_waits_for_the_jobs_in_flight() -> None:
    budget = Budget(4.0, prior=2.0)
    assert sends_until_full(budget) == 2
    assert budget.facts.in_flight == 2
    budget.settled(0.5)
    budget.settled(0.5)
    assert budget.may_send()
    assert budget.spent == 1.0


def test_full_budget_with_nothing_in_flight_stays_full() -> None:
    budget = Budget(4.0, prior=2.0)
    sends_until_full(budget)
    budget.settled(2.0)
    budget.settled(2.0)
    assert not budget.may_send()
    assert budget.facts.in_flight == 0


def test_budget_gives_the_hold_of_a_refused_job_back() -> None:
    budget = Budget(2.0, prior=2.0)
    budget.sent()
    assert not budget.may_send()
    budget.refused()
    assert budget.may_send()
    assert budget.spent == 0.0


@pytest.mark.parametrize("cost", [None, math.nan, math.inf, -1.0])
def test_budget_keeps_the_hold_of_an_unknown_bill(cost: float | None) -> None:
    budget = Budget(4.0, prior=2.0)
    budget.sent()
    budget.settled(cost)
    assert budget.facts.unknown == 1
    assert budget.facts.held == 2.0
    assert sends_until_full(budget) == 1


def test_budget_holds_the_dearest_cost_until_samples_suffice() -> None:
    budget = Budget(100.0, prior=1.0)
    budget.sent()
    budget.settled(7.0)
    assert budget.hold == 7.0


def test_budget_holds_the_95th_percentile_once_samples_suffice() -> None:
    known = [float(n) for n in range(1, 101)]
    assert Budget(100.0, prior=500.0, samples=known).hold == 95.0


def test_budget_forgets_its_prior_once_samples_suffice() -> None:
    assert Budget(100.0, prior=9.0, samples=[0.5] * (ENOUGH - 1)).hold == 9.0
    assert Budget(100.0, prior=9.0, samples=[0.5] * ENOUGH).hold == 0.5


def test_budget_at_quantile_one_holds_the_dearest() -> None:
    assert Budget(100.0, prior=1.0, samples=[*[0.5] * 99, 8.0], quantile=1.0).hold == 8.0


def test_budget_remembers_only_the_latest_costs() -> None:
    budget = Budget(1e6, prior=1.0, samples=[9.0] * REMEMBERED)
    for _ in range(REMEMBERED):
        budget.sent()
        budget.settled(0.25)
    assert budget.hold == 0.25


def test_budget_takes_the_newest_samples_of_an_earlier_run() -> None:
    assert Budget(100.0, prior=1.0, samples=[*[2.0] * REMEMBERED, *[9.0] * REMEMBERED]).hold == 2.0


def test_budget_revalues_its_holds_when_costs_rise() -> None:
    budget = Budget(10.0, prior=1.0)
    for _ in range(4):
        budget.sent()
    budget.settled(5.0)
    assert budget.facts.held == 15.0
    assert not budget.may_send()


def test_budget_counts_what_earlier_runs_spent() -> None:
    assert sends_until_full(Budget(10.0, prior=1.0, spent=6.0, unknown=2)) == 2


def test_budget_refuses_to_settle_an_unsent_job() -> None:
    with pytest.raises(ValueError, match="no job is in flight"):
        Budget(1.0, prior=1.0).settled(0.5)


@pytest.mark.parametrize(
    "given_",
    [{"cap": -1.0}, {"cap": math.nan}, {"cap": math.inf}, {"prior": -0.1}, {"quantile": 0.0}, {"quantile": 1.1}],
)
def test_budget_refuses_an_invalid_amount(given_: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="not"):
        Budget(**({"cap": 1.0, "prior": 1.0} | given_))


def test_budget_reports_its_balance() -> None:
    budget = Budget(5.0, prior=0.5, spent=1.25, unknown=1)
    budget.sent()
    budget.sent()
    said = str(budget.facts)
    assert said.startswith("$1.25 of $5.00 spent")
    assert "2 running" in said
    assert "1 of unknown cost" in said
    assert "$0.50" in said


@given(cap=st.floats(0.0, 100.0), prior=st.floats(0.01, 10.0), seen=st.lists(costs, max_size=60))
def test_budget_stays_under_its_cap_while_holds_suffice(cap: float, prior: float, seen: list[float]) -> None:
    budget = Budget(cap, prior=prior, quantile=1.0)
    for cost in seen:
        if not budget.may_send():
            break
        budget.sent()
        budget.settled(min(cost, budget.hold))
        assert budget.spent <= cap + 0.001


@given(st.lists(costs, max_size=300))
def test_budget_adds_up_exactly(seen: list[float]) -> None:
    budget = Budget(1.0, prior=1.0)
    for cost in seen:
        budget.sent()
        budget.settled(cost)
    assert budget.spent == pytest.approx(math.fsum(seen), abs=1e-9)
