"""What a session may spend: submissions wait here until the budget has room, and jobs that end make room again.

The budget's reservations
-------------------------
What a job costs is known when it has ended, so a budget cannot be kept by counting costs alone. Each submission
reserves an amount before it is sent, as large as such jobs have been seen to cost (`_policy.budget` decides how much).
When its job ends, the real cost replaces the reservation. A submission that was refused gives it back. For a job that
nobody waits for any more the amount stays reserved until its cost is read after all, in whatever way and by whomever.
For jobs of earlier runs that may still be billed as much is reserved from the beginning, until somebody asks for them.

This module knows nothing of how large a reservation is, of journals or of HTTP.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Protocol

from aiopplx._errors import BudgetReached
from aiopplx._http.clock import Clock
from aiopplx._job import Job, JobStatus
from aiopplx._policy.budget import Balance, Budget
from aiopplx._submission import Phase, Submission
from aiopplx._wire.kinds import Kind
from aiopplx.journal._records import Ledger

REMEDY = "Session(max_cost=) sets the limit"
REMEMBERED = 10_000
"""Jobs whose cost is not known, and may still become so."""


class Spending(Protocol):
    """What the lifecycle needs to know and to tell about money."""

    async def reserve(self, sub: Submission, until: float) -> None:
        """Wait for room for one more, until that moment at the latest, and reserve it. Raises `BudgetReached`."""
        ...

    def reserve_running(self, sub: Submission) -> None:
        """It runs already: its amount is reserved whether there is room or not."""
        ...

    def settle(self, sub: Submission, job: Job | None, *, is_billed: bool) -> None:
        """It ended, or nobody here waits for it any more. `job` is None where nothing is known about its cost."""
        ...

    def has_reserved(self, sub: Submission) -> bool:
        """Whether an amount is reserved for it at this moment."""
        ...


def reached(balance: Balance) -> BudgetReached:
    """There is no room, and nothing runs that could make some."""
    helps = "Waiting for one of them" if balance.is_unseen else "A higher limit"
    return BudgetReached(f"not sent: {balance}. {helps} goes on with it; nothing was billed", remedy=REMEDY)


def makes_no_second_bill(sub: Submission) -> bool:
    """Whether it is sent again, to an API that knows its key: what is reserved for it already is enough."""
    return sub.phase is Phase.UNANSWERED and sub.api.has_idempotency


class Unbounded:
    """A session without `max_cost`: everything may be spent, and nothing is counted."""

    async def reserve(self, sub: Submission, until: float) -> None:
        """There is always room."""

    def reserve_running(self, sub: Submission) -> None:
        """Nothing to keep."""

    def settle(self, sub: Submission, job: Job | None, *, is_billed: bool) -> None:
        """Nothing to settle."""

    def has_reserved(self, sub: Submission) -> bool:
        """Never."""
        return False


class Bounded:
    """A session with `max_cost`.

    Args:
        budget: decides.
        clock: measures time limits.
        ledger: what earlier runs spent, and the jobs that they left.
    """

    def __init__(self, budget: Budget, clock: Clock, ledger: Ledger) -> None:
        self.budget = budget
        self._clock = clock
        self._reserved: dict[Submission, Kind] = {}
        self._unknown: OrderedDict[str, Kind] = OrderedDict()
        self._changed = asyncio.Event()
        for label, costs in ledger.kinds.items():
            budget.bring_forward(Kind.of(label), left=costs.running, unknown=costs.unknown, samples=costs.samples)

    async def reserve(self, sub: Submission, until: float) -> None:
        """See `Spending`.

        Raises:
            BudgetReached: nothing fits any more and nothing runs that could make room, or `until` has come.
        """
        try:
            if not self._has_room(sub):
                async with self._clock.timeout_at(until):
                    await self._find_room(sub)
        except TimeoutError:
            balance = self.budget.balance(sub.kind)
            raise BudgetReached(
                f"not sent: within its time limit there was no room for it in the budget ({balance})", remedy=REMEDY
            ) from None
        self.reserve_running(sub)

    def _has_room(self, sub: Submission) -> bool:
        """Whether nothing has to be waited for, or asked."""
        return self.budget.may_send(sub.kind) or (makes_no_second_bill(sub) and self.budget.may_send_again(sub.kind))

    async def _find_room(self, sub: Submission) -> None:
        """Wait until there is room for it. Raises `BudgetReached` if nothing runs that could make room."""
        while not self._has_room(sub):
            if not self.budget.may_make_room(sub.kind):
                raise reached(self.budget.balance(sub.kind))
            self._changed.clear()
            await self._changed.wait()

    def reserve_running(self, sub: Submission) -> None:
        """See `Spending`."""
        kind = self._take_back_bill(sub)
        if kind is not None or sub.job_id or sub.phase is Phase.UNANSWERED:
            kind = kind or sub.kind
            self.budget.taken_up(kind)
        else:
            kind = sub.kind
            self.budget.sent(kind)
        self._reserved[sub] = kind

    def settle(self, sub: Submission, job: Job | None, *, is_billed: bool) -> None:
        """See `Spending`."""
        cost = job.cost if job is not None else None
        kind = self._reserved.pop(sub, None)
        if kind is None and cost is not None:
            kind = self._take_back_bill(sub)
            if kind is not None:
                self.budget.taken_up(kind)
        if kind is not None:
            self._charge(sub, kind, job, cost, is_billed=is_billed)
        self._changed.set()

    def _charge(self, sub: Submission, kind: Kind, job: Job | None, cost: float | None, *, is_billed: bool) -> None:
        if not is_billed:
            self.budget.refused(kind)
            return
        if job is None or job.status is JobStatus.IN_DOUBT:
            self.budget.was_left(kind)
        else:
            self.budget.settled(kind, cost)
        name = sub.job_id or sub.key
        if name and cost is None:
            self._unknown[name] = kind
            if len(self._unknown) > REMEMBERED:
                self._unknown.popitem(last=False)

    def _take_back_bill(self, sub: Submission) -> Kind | None:
        """Remove it from the bills of unknown amount of this session, by its id or by its key. Returns its kind.

        One that was left in doubt has no id, and is the same bill when it is sent again under its key.
        """
        for name in (sub.job_id, sub.key):
            if name and name in self._unknown:
                return self._unknown.pop(name)
        return None

    def has_reserved(self, sub: Submission) -> bool:
        """See `Spending`."""
        return sub in self._reserved
