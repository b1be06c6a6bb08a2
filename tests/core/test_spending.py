"""Each submission reserves what it may cost; real costs take its place, and unknown bills stay reserved."""

from __future__ import annotations

import asyncio
import math
from typing import cast

import pytest
from _billed import ended

from aiopplx import BudgetReached
from aiopplx._core.spending import Bounded, Unbounded
from aiopplx._http.clock import Clock
from aiopplx._policy.budget import Budget
from aiopplx._submission import Phase, Submission
from aiopplx._wire.api import API
from aiopplx._wire.kinds import Kind
from aiopplx.agent import AGENT
from aiopplx.journal._records import KindCosts, Ledger
from aiopplx.sonar import SONAR

EACH = 1.0
KIND, OTHER = Kind("sonar", "sonar-deep-research", "medium"), Kind("agent", "high")


def spending(jobs: float, earlier: Ledger | None = None) -> Bounded:
    """Room for so many jobs of one dollar each."""
    return Bounded(Budget(jobs * EACH, expected=lambda kind: EACH), Clock(), earlier or Ledger())


def new(key: str = "a key", *, job_id: str = "", phase: Phase = Phase.QUEUED, kind: Kind = KIND) -> Submission:
    return Submission(cast("API", SONAR), key, job_id=job_id, phase=phase, kind=kind)


async def fits(money: Bounded) -> bool:
    """Whether one more may be sent without waiting."""
    try:
        await money.reserve(new("one more"), money._clock.now() - 1.0)
    except BudgetReached:
        return False
    return True


async def test_each_submission_reserves_an_amount() -> None:
    money = spending(2.0, Ledger(0.0, {str(KIND): KindCosts(samples=(0.0,))}))
    first, second = new("1"), new("2")
    await money.reserve(first, math.inf)
    await money.reserve(second, math.inf)
    assert (money.has_reserved(first), money.has_reserved(second)) == (True, True)
    assert money.budget.balance(KIND).in_flight == 2
    assert not await fits(money)


@pytest.mark.parametrize(
    ("cost", "is_billed", "spent", "unknown", "has_room"),
    [
        (None, False, 0.0, 0, True),
        (0.4, True, 0.4, 0, False),
        (0.0, True, 0.0, 0, True),
        (None, True, 0.0, 1, False),
    ],
    ids=("refused", "known", "free", "unknown"),
)
async def test_what_an_end_leaves_of_the_reservation(
    cost: float | None, is_billed: bool, spent: float, unknown: int, has_room: bool
) -> None:
    money = spending(1.0)
    sub = new()
    await money.reserve(sub, math.inf)
    money.settle(sub, ended(cost), is_billed=is_billed)
    facts = money.budget.balance(KIND)
    assert (facts.spent, facts.unknown, facts.in_flight, facts.left) == (spent, unknown, 0, 0)
    assert not money.has_reserved(sub)
    assert await fits(money) is has_room


async def test_second_end_of_the_same_submission_changes_nothing() -> None:
    money = spending(3.0)
    sub = new(job_id="job")
    await money.reserve(sub, math.inf)
    for _ in range(2):
        money.settle(sub, ended(0.5), is_billed=True)
    assert money.budget.spent == 0.5


async def test_waiting_submission_is_sent_once_a_job_makes_room() -> None:
    money = spending(1.0)
    first, second = new("1"), new("2")
    await money.reserve(first, math.inf)
    waiting = asyncio.create_task(money.reserve(second, math.inf))
    await asyncio.sleep(0)
    assert not waiting.done()
    money.settle(first, None, is_billed=False)
    await waiting
    assert money.has_reserved(second)


async def test_second_of_an_unknown_kind_awaits_the_first() -> None:
    money = spending(4.0)
    first, second = new("1"), new("2")
    await money.reserve(first, math.inf)
    waiting = asyncio.create_task(money.reserve(second, math.inf))
    await asyncio.sleep(0)
    assert not waiting.done()
    money.settle(first, ended(0.9), is_billed=True)
    await waiting
    assert await fits(money)


async def test_waiting_fails_when_nothing_can_make_room() -> None:
    money = spending(1.0)
    first = new("1")
    await money.reserve(first, math.inf)
    waiting = asyncio.create_task(money.reserve(new("2"), math.inf))
    await asyncio.sleep(0)
    money.settle(first, ended(0.9), is_billed=True)
    with pytest.raises(BudgetReached, match="A higher limit goes on with it"):
        await waiting


async def test_what_was_sent_is_sent_again_without_room() -> None:
    """It makes no second bill where the API honours keys; its own is reserved from the beginning."""
    money = spending(1.0, Ledger(0.0, {str(KIND): KindCosts(running=1)}))
    again = new("again", phase=Phase.UNANSWERED)
    assert not await fits(money)
    await money.reserve(again, money._clock.now() - 1.0)
    assert (money.budget.balance(KIND).in_flight, money.budget.balance(KIND).left) == (1, 0)
    elsewhere = Submission(cast("API", AGENT), "k", phase=Phase.UNANSWERED, kind=KIND)
    with pytest.raises(BudgetReached):
        await money.reserve(elsewhere, money._clock.now() - 1.0)


# --- a cost that becomes known ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "back"),
    [
        (new("a key", job_id="job"), new("another key", job_id="job")),
        (new("a key", phase=Phase.UNANSWERED), new("a key", job_id="job")),
    ],
    ids=("by its id", "by its key"),
)
async def test_cost_that_becomes_known_settles_the_unknown_bill(left: Submission, back: Submission) -> None:
    money = spending(3.0)
    money.reserve_running(left)
    money.settle(left, None, is_billed=True)
    assert money.budget.balance(KIND).left == 1
    money.settle(back, ended(0.3), is_billed=True)
    facts = money.budget.balance(KIND)
    assert (facts.left, facts.unknown, facts.spent, facts.in_flight) == (0, 0, 0.3, 0)


async def test_unknown_bill_taken_up_is_one_reservation() -> None:
    money = spending(3.0)
    sub = new(job_id="job")
    money.reserve_running(sub)
    money.settle(sub, None, is_billed=True)
    money.reserve_running(new("another key", job_id="job"))
    facts = money.budget.balance(KIND)
    assert (facts.left, facts.in_flight) == (0, 1)


async def test_cost_of_a_job_of_elsewhere_is_not_counted() -> None:
    money = spending(3.0)
    money.settle(new(job_id="job"), ended(0.3), is_billed=True)
    assert money.budget.spent == 0.0


# --- jobs of earlier runs ---------------------------------------------------------------------------------------------


def earlier(running: int = 0, unknown: int = 0) -> Ledger:
    """Of one kind, and of both a cost is known, so that what is reserved is all that counts."""
    return Ledger(0.0, {str(KIND): KindCosts(running, unknown, samples=(0.0,)), str(OTHER): KindCosts(samples=(0.0,))})


@pytest.mark.parametrize(("running", "unknown", "has_room"), [(0, 0, True), (1, 0, True), (1, 1, False), (3, 0, False)])
async def test_jobs_of_earlier_runs_reserve_their_share(running: int, unknown: int, has_room: bool) -> None:
    money = spending(2.0, earlier(running, unknown))
    assert await fits(money) is has_room


@pytest.mark.parametrize("left_behind", [earlier(running=1), earlier(unknown=1)], ids=("running", "unknown"))
@pytest.mark.parametrize(
    ("sub", "is_of_an_earlier_run"),
    [
        (new(job_id="job", phase=Phase.RUNNING), True),
        (new(phase=Phase.UNANSWERED), True),
        (new(phase=Phase.QUEUED), False),
        (new(job_id="job", phase=Phase.RUNNING, kind=OTHER), False),
    ],
    ids=("running", "in doubt", "new", "of another kind"),
)
async def test_job_of_an_earlier_run_is_counted_once(
    sub: Submission, is_of_an_earlier_run: bool, left_behind: Ledger
) -> None:
    money = spending(2.0, left_behind)
    money.reserve_running(sub)
    assert money.budget.balance(KIND).in_flight == 1
    # Two dollars: one is reserved, and the share of a job that was not taken up takes the other.
    assert money.budget.may_send(KIND) is is_of_an_earlier_run
    money.settle(sub, ended(0.5), is_billed=True)
    assert money.budget.balance(KIND).reserved == (0.0 if is_of_an_earlier_run else 1.0)


async def test_costs_of_earlier_runs_decide_the_reservation() -> None:
    money = spending(2.0, Ledger(0.0, {str(KIND): KindCosts(samples=(0.25,) * 20)}))
    assert money.budget.balance(KIND).reservation == 0.25
    assert money.budget.balance(OTHER).reservation == EACH


async def test_job_asked_for_by_id_settles_under_its_kind() -> None:
    """Without a journal nobody knows what it was asked; what it reserved does."""
    money = spending(9.0)
    money.reserve_running(new(job_id="job"))
    money.settle(new(job_id="job"), None, is_billed=True)
    left = new(job_id="left")
    money.reserve_running(left)
    money.settle(left, None, is_billed=True)
    money.settle(new("", job_id="left", kind=Kind("sonar")), ended(0.3), is_billed=True)
    assert money.budget.balance(KIND).left == 0
    assert money.budget.balance(KIND).reservation == EACH
    assert money.budget.spent == 0.3


async def test_session_without_a_cap_holds_nothing() -> None:
    money = Unbounded()
    sub = new()
    await money.reserve(sub, 0.0)
    money.reserve_running(sub)
    money.settle(sub, ended(1e9), is_billed=True)
    assert not money.has_reserved(sub)
