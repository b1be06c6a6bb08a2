"""The budget decides what may still be sent under a cap, while costs become known as jobs end, each kind by itself."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._policy.budget import ENOUGH, REMEMBERED, UNPUBLISHED, UNSEEN, Budget, expected
from aiopplx._wire.kinds import Kind

JOB, DEAR = Kind("sonar", "cheap"), Kind("sonar", "dear")

costs = st.floats(min_value=0.0, max_value=50.0, allow_nan=False)


def budget_of(cap: float, *, prior: float = 1.0, **more: float) -> Budget:
    return Budget(cap, expected=lambda kind: prior, **more)


def seen(cap: float, known: list[float], *, prior: float = 1.0, **more: float) -> Budget:
    """With these costs of the kind, newest first."""
    budget = budget_of(cap, prior=prior, **more)
    budget.bring_forward(JOB, samples=known)
    return budget


def sends_until_full(budget: Budget, kind: Kind = JOB) -> int:
    count = 0
    while budget.may_send(kind):
        budget.sent(kind)
        count += 1
    return count


def reserved_for(budget: Budget, kind: Kind = JOB) -> float:
    return budget.balance(kind).reservation


# --- reservations ----------------------------------------------------------------------------------------------------


def test_budget_reserves_what_is_expected_for_each_job() -> None:
    assert sends_until_full(budget_of(10.0, prior=2.0)) == 5


def test_budget_below_one_reservation_may_send_nothing() -> None:
    assert not budget_of(1.0, prior=2.0).may_send(JOB)


def test_budget_of_an_exact_multiple_survives_rounding() -> None:
    assert sends_until_full(budget_of(0.3, prior=0.1)) == 3


def test_full_budget_waits_for_the_jobs_in_flight() -> None:
    budget = budget_of(4.0, prior=2.0)
    assert sends_until_full(budget) == 2
    assert budget.may_make_room(JOB)
    budget.settled(JOB, 0.5)
    budget.settled(JOB, 0.5)
    assert budget.may_send(JOB)
    assert budget.spent == 1.0


def test_full_budget_with_nothing_in_flight_stays_full() -> None:
    budget = budget_of(4.0, prior=2.0)
    sends_until_full(budget)
    budget.settled(JOB, 2.0)
    budget.settled(JOB, 2.0)
    assert not budget.may_send(JOB)
    assert not budget.may_make_room(JOB)


def test_budget_gives_back_what_a_refused_job_reserved() -> None:
    budget = budget_of(2.0, prior=2.0)
    budget.sent(JOB)
    assert not budget.may_send(JOB)
    budget.refused(JOB)
    assert budget.may_send(JOB)
    assert budget.spent == 0.0


@pytest.mark.parametrize("cost", [None, math.nan, math.inf, -1.0])
def test_budget_keeps_the_reservation_of_an_unknown_bill(cost: float | None) -> None:
    budget = budget_of(4.0, prior=2.0)
    budget.sent(JOB)
    budget.settled(JOB, cost)
    balance = budget.balance(JOB)
    assert (balance.unknown, balance.reserved, balance.spent) == (1, 2.0, 0.0)
    assert sends_until_full(budget) == 1


def test_job_left_keeps_its_reservation_till_taken_up() -> None:
    budget = budget_of(4.0, prior=2.0)
    budget.sent(JOB)
    budget.was_left(JOB)
    assert (budget.balance(JOB).left, budget.balance(JOB).reserved, budget.may_make_room(JOB)) == (1, 2.0, False)
    budget.taken_up(JOB)
    budget.settled(JOB, 0.5)
    balance = budget.balance(JOB)
    assert (balance.spent, balance.reserved, balance.left, balance.in_flight) == (0.5, 0.0, 0, 0)


def test_budget_holds_the_dearest_cost_until_samples_suffice() -> None:
    assert reserved_for(seen(100.0, [0.1, 7.0, 0.2])) == 7.0


def test_budget_holds_the_95th_percentile_once_samples_suffice() -> None:
    assert reserved_for(seen(100.0, [float(n) for n in range(1, 101)], prior=500.0)) == 95.0


def test_budget_forgets_what_was_expected_once_samples_suffice() -> None:
    assert reserved_for(seen(100.0, [0.5] * (ENOUGH - 1), prior=9.0)) == 9.0
    assert reserved_for(seen(100.0, [0.5] * ENOUGH, prior=9.0)) == 0.5


def test_budget_at_quantile_one_holds_the_dearest() -> None:
    assert reserved_for(seen(100.0, [*[0.5] * 99, 8.0], quantile=1.0)) == 8.0


def test_budget_remembers_only_the_latest_costs() -> None:
    budget = seen(1e6, [9.0] * REMEMBERED)
    for _ in range(REMEMBERED):
        budget.sent(JOB)
        budget.settled(JOB, 0.25)
    assert reserved_for(budget) == 0.25


def test_budget_takes_the_newest_samples_of_an_earlier_run() -> None:
    assert reserved_for(seen(100.0, [*[2.0] * REMEMBERED, *[9.0] * REMEMBERED])) == 2.0


def test_budget_revalues_its_holds_when_costs_rise() -> None:
    budget = budget_of(10.0)
    for _ in range(4):
        budget.sent(JOB)
    budget.settled(JOB, 5.0)
    assert budget.balance(JOB).reserved == 15.0
    assert not budget.may_send(JOB)


def test_first_dearer_cost_is_reserved_however_many_were_cheaper() -> None:
    budget = seen(100.0, [0.1] * REMEMBERED)
    budget.sent(JOB)
    budget.settled(JOB, 1.0)
    assert reserved_for(budget) == 1.0
    for _ in range(ENOUGH):
        assert reserved_for(budget) == 1.0
        budget.sent(JOB)
        budget.settled(JOB, 0.1)
    assert reserved_for(budget) == 0.1


@pytest.mark.parametrize("at_once", [1, 5, 8, 50, 1000])
@pytest.mark.parametrize("rise", [1.5, 2.0, 10.0])
def test_rising_price_passes_the_cap_by_what_was_out(rise: float, at_once: int) -> None:
    budget, old, out = seen(10.0, [0.1] * REMEMBERED), 0.1, 0
    most = 0
    while True:
        while out < at_once and budget.may_send(JOB):
            budget.sent(JOB)
            out += 1
        most = most or out  # out when the first of them tells its cost
        if not out:
            break
        budget.settled(JOB, old * rise)
        out -= 1
    bound = 10.0 + most * old * (rise - 1.0)
    assert budget.spent <= bound + 1e-9
    if at_once * old * rise <= 10.0:
        assert budget.spent <= 10.0 + 1e-9  # all that was out fits under the cap at its new price


def test_budget_counts_what_earlier_runs_left_behind() -> None:
    budget = budget_of(10.0, spent=5.0)
    budget.bring_forward(JOB, left=1, unknown=2)
    assert sends_until_full(budget) == 2
    assert (budget.balance(JOB).left, budget.balance(JOB).unknown) == (1, 2)


# --- kinds -----------------------------------------------------------------------------------------------------------


def test_costs_of_one_kind_say_nothing_about_another() -> None:
    budget = seen(10.0, [0.01] * 500, prior=2.0)
    assert (reserved_for(budget, JOB), reserved_for(budget, DEAR)) == (0.01, 2.0)
    assert sends_until_full(budget, DEAR) == 5


def test_jobs_of_all_kinds_share_one_cap() -> None:
    budget = seen(10.0, [0.5] * ENOUGH, prior=4.0)
    budget.sent(DEAR)
    budget.sent(DEAR)
    assert sends_until_full(budget, JOB) == 4
    assert budget.balance(JOB).reserved == 10.0


@pytest.mark.parametrize("ends", [lambda b: None, lambda b: b.was_left(DEAR)], ids=["running", "left"])
def test_ten_are_out_until_one_tells_its_cost(ends: object) -> None:
    budget = budget_of(1000.0)
    for _ in range(UNSEEN):
        assert budget.may_send(DEAR)
        budget.sent(DEAR)
        if callable(ends):
            ends(budget)
    assert not budget.may_send(DEAR)
    assert budget.balance(DEAR).is_unseen
    assert budget.may_send(JOB)  # of another kind
    budget.taken_up(DEAR)
    budget.settled(DEAR, 3.0)
    assert budget.may_send(DEAR)
    assert reserved_for(budget, DEAR) == 3.0


def test_only_a_job_of_the_kind_tells_its_cost() -> None:
    budget = budget_of(1000.0)
    budget.bring_forward(DEAR, left=UNSEEN)
    budget.sent(JOB)
    assert not budget.may_make_room(DEAR)
    budget.taken_up(DEAR)
    assert budget.may_make_room(DEAR)


def test_ends_without_a_cost_do_not_block_their_kind() -> None:
    budget = budget_of(1000.0)
    budget.bring_forward(DEAR, unknown=3 * UNSEEN)
    assert sends_until_full(budget, DEAR) == UNSEEN


@pytest.mark.parametrize(
    ("kind", "dollars"),
    [
        (Kind("sonar", "sonar-deep-research", "medium"), 1.20),
        (Kind("sonar", "sonar-deep-research", "high"), 1.60),
        (Kind("agent", "medium"), 0.10),
        (Kind("agent", "xhigh"), UNPUBLISHED),
        (Kind("sonar"), UNPUBLISHED),
        (Kind(), UNPUBLISHED),
    ],
)
def test_first_job_of_a_kind_holds_the_most_published(kind: Kind, dollars: float) -> None:
    assert expected(kind) == dollars
    assert Budget(10.0).balance(kind).reservation == dollars


# --- mistakes, and what is said --------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["settled", "refused", "was_left"])
def test_budget_refuses_to_end_an_unsent_job(end: str) -> None:
    budget = budget_of(1.0)
    budget.sent(DEAR)
    with pytest.raises(ValueError, match="no job of this kind is in flight"):
        getattr(budget, end)(JOB, *([0.5] if end == "settled" else []))


@pytest.mark.parametrize(
    "given_",
    [{"cap": -1.0}, {"cap": math.nan}, {"cap": math.inf}, {"spent": -0.1}, {"quantile": 0.0}, {"quantile": 1.1}],
)
def test_budget_refuses_an_invalid_amount(given_: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="not"):
        Budget(**({"cap": 1.0} | given_))


def test_budget_reports_its_balance() -> None:
    budget = budget_of(5.0, prior=0.5, spent=1.25)
    budget.bring_forward(JOB, unknown=1)
    for _ in range(3):
        budget.sent(JOB)
    budget.was_left(JOB)
    said = str(budget.balance(JOB))
    assert said.startswith("$1.25 of $5.00 spent, 2 running, 1 that may still run and are not waited for, 1 of unknown")
    assert said.endswith("($2.00 reserved for these); one more (sonar cheap -) is expected to cost up to $0.50")


# --- what a cap bounds -----------------------------------------------------------------------------------------------


@given(cap=st.floats(0.0, 100.0), prior=st.floats(0.01, 10.0), given_=st.lists(costs, max_size=60))
def test_budget_stays_under_its_cap_while_holds_suffice(cap: float, prior: float, given_: list[float]) -> None:
    budget = budget_of(cap, prior=prior, quantile=1.0)
    for cost in given_:
        if not budget.may_send(JOB):
            break
        budget.sent(JOB)
        budget.settled(JOB, min(cost, reserved_for(budget)))
        assert budget.spent <= cap + 0.001


@pytest.mark.parametrize("seed", range(60))
def test_cap_is_passed_only_by_costs_above_reservations(seed: int) -> None:
    """Any mixture of kinds, some of them dearer than is published, in any order of ends: the bound of the documents."""
    rng = random.Random(seed)
    kinds = [Kind("sonar", str(n)) for n in range(rng.randint(1, 5))]
    prices = {kind: rng.choice([0.01, 0.1, 1.2, 8.0]) for kind in kinds}
    priors = {kind: prices[kind] * rng.choice([0.3, 1.0, 3.0]) for kind in kinds}
    cap = rng.uniform(1.0, 100.0)
    budget = Budget(cap, expected=lambda kind: priors[kind])
    out: list[tuple[Kind, float]] = []
    billed = bound = 0.0
    for _ in range(1500):
        kind = rng.choice(kinds)
        if rng.random() < 0.6 and budget.may_send(kind):
            budget.sent(kind)
            out.append((kind, prices[kind] * rng.lognormvariate(0.0, 0.4)))
            bound = cap + sum(max(0.0, cost - reserved_for(budget, kind)) for kind, cost in out)
        elif out:
            kind, cost = out.pop(rng.randrange(len(out)))
            budget.settled(kind, cost)
            billed += cost
    billed += sum(cost for _, cost in out)
    assert billed <= bound + 0.001
    assert billed > 0.0 or cap < max(priors.values())


@given(st.lists(costs, max_size=300))
def test_budget_adds_up_exactly(given_: list[float]) -> None:
    budget = budget_of(1.0)
    for cost in given_:
        budget.sent(JOB)
        budget.settled(JOB, cost)
    assert budget.spent == pytest.approx(math.fsum(given_), abs=1e-9)
