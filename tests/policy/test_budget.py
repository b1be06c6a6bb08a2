"""The budget decides what may still be sent under a cap, while costs become known as jobs end, each kind by itself."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._policy.budget import AT_WORST, ENOUGH, REMEMBERED, UNPUBLISHED, UNSEEN, Budget, expected
from aiopplx._wire.kinds import Kind

JOB, DEAR = Kind("sonar", "cheap"), Kind("sonar", "dear")

costs = st.floats(min_value=0.0, max_value=50.0, allow_nan=False)


def budget_of(cap: float, *, prior: float = 1.0, **more: float) -> Budget:
    return Budget(cap, expected=lambda kind: prior, **more)


def known(cap: float, *, prior: float = 1.0, **more: float) -> Budget:
    """One job of the kind has cost nothing, so that it is known, and what is expected is reserved."""
    return seen(cap, [0.0], prior=prior, **more)


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
    assert sends_until_full(known(10.0, prior=2.0)) == 5


def test_budget_below_one_reservation_may_send_nothing() -> None:
    assert not budget_of(1.0, prior=2.0).may_send(JOB)


def test_budget_of_an_exact_multiple_survives_rounding() -> None:
    assert sends_until_full(known(0.3, prior=0.1)) == 3


def test_full_budget_waits_for_the_jobs_in_flight() -> None:
    budget = known(4.0, prior=2.0)
    assert sends_until_full(budget) == 2
    assert budget.may_make_room(JOB)
    budget.settled(JOB, 0.5)
    budget.settled(JOB, 0.5)
    assert budget.may_send(JOB)
    assert budget.spent == 1.0


def test_full_budget_with_nothing_in_flight_stays_full() -> None:
    budget = known(4.0, prior=2.0)
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
    budget = known(10.0, spent=5.0)
    budget.bring_forward(JOB, left=1, unknown=2)
    assert sends_until_full(budget) == 2
    assert (budget.balance(JOB).left, budget.balance(JOB).unknown) == (1, 2)


# --- kinds -----------------------------------------------------------------------------------------------------------


def test_costs_of_one_kind_say_nothing_about_another() -> None:
    budget = seen(10.0, [0.01] * 500, prior=2.0)
    assert (reserved_for(budget, JOB), reserved_for(budget, DEAR)) == (0.01, 2.0)
    assert sends_until_full(budget, DEAR) == 1, "there is no room for two at three times what is expected"


def test_jobs_of_all_kinds_share_one_cap() -> None:
    budget = seen(10.0, [0.5] * ENOUGH, prior=4.0)
    budget.bring_forward(DEAR, samples=[1.0])
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


# --- kinds of which no cost is known ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cap", "count"), [(0.9, 0), (1.0, 1), (2.9, 1), (5.9, 1), (6.0, 2), (29.9, 9), (30.0, UNSEEN), (1e6, UNSEEN)]
)
def test_first_jobs_fit_at_three_times_what_is_published(cap: float, count: int) -> None:
    """The first one needs no more than is published: it would be sent alone in any case."""
    budget = budget_of(cap)
    assert sends_until_full(budget) == count
    assert budget.may_make_room(JOB) is (count > 0)


def test_first_known_cost_ends_the_wait() -> None:
    budget = budget_of(5.0)
    assert sends_until_full(budget) == 1
    said = "one more (sonar cheap -) waits until a running job tells the first cost of its kind"
    assert str(budget.balance(JOB)).endswith(f"($1.00 reserved for these); {said}")
    budget.settled(JOB, 0.5)
    assert sends_until_full(budget) == 4


@pytest.mark.parametrize("end", ["refused", "was_left", "settled"])
def test_job_without_a_cost_makes_way_for_the_next(end: str) -> None:
    budget = budget_of(5.0)
    sends_until_full(budget)
    getattr(budget, end)(JOB, *([None] if end == "settled" else []))
    assert sends_until_full(budget) == 1


def test_known_kind_leaves_room_for_an_unknown_one() -> None:
    """Only while its cost may become known: a job that nobody waits for tells nothing."""
    budget = seen(10.0, [0.5] * ENOUGH, prior=2.0)
    budget.sent(DEAR)
    assert sends_until_full(budget) == 8
    assert budget.may_make_room(JOB)
    budget.was_left(DEAR)
    assert sends_until_full(budget) == 8


def test_left_unknown_kind_counts_while_a_cost_comes() -> None:
    budget = budget_of(10.0)
    budget.bring_forward(DEAR, left=2)
    assert sends_until_full(budget, JOB) == 1, "with it, three jobs may cost nine dollars"
    budget.settled(JOB, 1.0)
    assert sends_until_full(budget, JOB) == 7, "nothing would tell the others' cost"


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
    budget = known(5.0, prior=0.5, spent=1.25)
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


KINDS = [Kind("sonar", str(n)) for n in range(4)]
# What happens: to a job of which kind, and how many times its reservation it costs, or None if it tells nothing.
happenings = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "send", "end", "end", "leave", "take up"]),
        st.integers(0, 3),
        st.none() | st.floats(0.0, 4.0),
    ),
    max_size=120,
)
priors = st.lists(st.floats(0.01, 4.0), min_size=4, max_size=4)


class Bills:
    """Jobs under a cap, and what each of them comes to, whether or not it tells that."""

    def __init__(self, cap: float, priors: list[float]) -> None:
        self.budget = Budget(cap, expected=lambda kind: priors[int(kind.model)])
        self.running: dict[Kind, list[float | None]] = {kind: [] for kind in KINDS}
        self.left: dict[Kind, list[float | None]] = {kind: [] for kind in KINDS}
        self.billed = 0.0
        self.unknown: list[tuple[Kind, float]] = []
        self.most = 1.0

    def happen(self, what: str, kind: Kind, times: float | None, *, at_most: float = math.inf) -> bool:
        """Returns whether one was sent."""
        budget, running, left = self.budget, self.running[kind], self.left[kind]
        if what == "send" and budget.may_send(kind):
            budget.sent(kind)
            running.append(times if times is None else min(times, at_most) * reserved_for(budget, kind))
            return True
        if what == "end" and running:
            cost = running.pop(0)
            if cost is None:
                self.unknown.append((kind, reserved_for(budget, kind)))
            else:
                self.billed += cost
            budget.settled(kind, cost)
        elif what == "leave" and running:
            budget.was_left(kind)
            left.append(running.pop(0))
        elif what == "take up" and left:
            budget.taken_up(kind)
            running.append(left.pop(0))
        return False

    def out(self) -> list[tuple[Kind, float]]:
        """What is not known to the budget: each job's kind, and what it comes to; what it held if nobody ever says."""
        jobs = [(kind, cost) for some in (self.running, self.left) for kind, out in some.items() for cost in out]
        return [
            *self.unknown,
            *((kind, reserved_for(self.budget, kind) if cost is None else cost) for kind, cost in jobs),
        ]


@given(cap=st.floats(0.1, 100.0), priors=priors, given_=happenings)
def test_bill_is_k_times_the_cap_at_most(
    cap: float, priors: list[float], given_: list[tuple[str, int, float | None]]
) -> None:
    """If no job costs more than k times what was reserved for it when the last one was sent."""
    bills = Bills(cap, priors)
    most = 1.0
    for what, n, times in given_:
        if bills.happen(what, KINDS[n], times):
            ratios = [cost / reserved_for(bills.budget, kind) for kind, cost in bills.out()]
            most = max(1.0, *ratios)
    billed = bills.billed + sum(cost for _, cost in bills.out())
    assert billed <= most * (cap + 0.001)


@given(cap=st.floats(0.1, 100.0), priors=priors, given_=happenings)
def test_whoever_waits_for_room_waits_for_a_running_job(
    cap: float, priors: list[float], given_: list[tuple[str, int, float | None]]
) -> None:
    """And with nothing running, whatever fits at what is expected is sent, unless ten of its kind were left."""
    bills = Bills(cap, priors)
    for what, n, times in given_:
        bills.happen(what, KINDS[n], times)
        budget = bills.budget
        for kind in KINDS:
            balance = budget.balance(kind)
            fits = balance.spent + balance.reserved + balance.reservation <= cap
            if fits and not balance.is_unseen and not budget.may_send(kind):
                assert balance.is_late
                assert budget.may_make_room(kind)
            if not balance.in_flight:
                assert not budget.may_make_room(kind)
                assert not fits or balance.is_unseen or budget.may_send(kind)


@given(
    cap=st.floats(0.1, 100.0),
    priors=priors,
    given_=happenings.map(lambda all_: [(what, n, times) for what, n, times in all_ if what in ("send", "end")]),
)
def test_cap_is_passed_by_one_unknown_job_at_most(
    cap: float, priors: list[float], given_: list[tuple[str, int, float | None]]
) -> None:
    """If a first job costs three times what is published at most, and none costs more than is reserved later."""
    bills = Bills(cap, priors)
    known_: set[int] = set()
    for what, n, times in given_:
        bills.happen(what, KINDS[n], times or 0.0, at_most=1.0 if n in known_ else AT_WORST)
        budget = bills.budget
        known_ |= {m for m, kind in enumerate(KINDS) if budget.at_worst(kind) == reserved_for(budget, kind)}
    billed = bills.billed + sum(cost for _, cost in bills.out())
    assert billed <= cap + (AT_WORST - 1.0) * max(priors) + 0.001


@given(st.lists(costs, max_size=300))
def test_budget_adds_up_exactly(given_: list[float]) -> None:
    budget = budget_of(1.0)
    for cost in given_:
        budget.sent(JOB)
        budget.settled(JOB, cost)
    assert budget.spent == pytest.approx(math.fsum(given_), abs=1e-9)
