"""What a session may spend: submissions wait here until the budget has room, and jobs that end make room again.

The budget's holds
------------------
What a job costs is known when it has ended, so a budget cannot be kept by counting costs alone. Each submission takes a
hold before it is sent, as large as such jobs have been seen to cost (`_policy.budget` decides how much). When its job
ends, the real cost replaces the hold. A submission that was refused gives its hold back. A job that nobody waits
for any more keeps its hold as a bill of unknown amount, until its cost is read after all, in whatever way.
Jobs of earlier runs that may still be billed are carried over: each counts for one hold until somebody asks for it.

This module knows nothing of how large a hold is, of journals or of HTTP.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from typing import Protocol

from aiopplx._errors import BudgetReached
from aiopplx._http.clock import Clock
from aiopplx._job import Job
from aiopplx._policy.budget import Budget
from aiopplx._submission import Phase, Submission

REMEMBERED = 10_000
"""Jobs whose cost is not known, and may still become so."""


class Spending(Protocol):
    """What the lifecycle needs to know and to tell about money."""

    is_carried_over: bool

    def carry_over(self, jobs: int) -> None:
        """This number of jobs of earlier runs are, or may be, billed, and nobody has asked for them in this run."""
        ...

    async def hold(self, sub: Submission, until: float) -> None:
        """Wait for room for one more, until that moment at the latest, and hold it. Raises `BudgetReached`."""
        ...

    def found(self, sub: Submission) -> None:
        """It runs already: it gets its hold whether there is room or not."""
        ...

    def ended(self, sub: Submission, job: Job | None, *, is_billed: bool) -> None:
        """It ended, or nobody here waits for it any more. `job` is None where nothing is known about its cost."""
        ...

    def holds(self, sub: Submission) -> bool:
        """Whether it has a hold at this moment."""
        ...


class Unbounded:
    """A session without `max_cost`: everything may be spent, and nothing is counted."""

    is_carried_over = True

    def carry_over(self, jobs: int) -> None:
        """Nothing to keep."""

    async def hold(self, sub: Submission, until: float) -> None:
        """There is always room."""

    def found(self, sub: Submission) -> None:
        """Nothing to keep."""

    def ended(self, sub: Submission, job: Job | None, *, is_billed: bool) -> None:
        """Nothing to settle."""

    def holds(self, sub: Submission) -> bool:
        """Never."""
        return False


class Bounded:
    """A session with `max_cost`.

    Args:
        budget: decides.
        clock: measures time limits.
    """

    def __init__(self, budget: Budget, clock: Clock) -> None:
        self.budget = budget
        self.is_carried_over = False
        self._clock = clock
        self._carried_over = 0
        self._held: set[Submission] = set()
        self._unknown: OrderedDict[str, None] = OrderedDict()
        self._changed = asyncio.Event()

    def carry_over(self, jobs: int) -> None:
        """See `Spending`."""
        self.is_carried_over = True
        self._carried_over = jobs

    async def hold(self, sub: Submission, until: float) -> None:
        """See `Spending`.

        Raises:
            BudgetReached: nothing fits any more and nothing runs that could make room, or `until` has come.
        """
        left = None if until == math.inf else max(0.0, until - self._clock.now())
        try:
            async with self._clock.timeout(left):
                await self._room()
        except TimeoutError:
            raise BudgetReached(
                f"not sent: within its time limit there was no room for it in max_cost ({self.budget.facts})"
            ) from None
        self.found(sub)

    async def _room(self) -> None:
        while not self._may_send():
            if not self.budget.facts.in_flight:
                raise BudgetReached(
                    f"not sent: {self.budget.facts}. A higher max_cost goes on with it; nothing was billed"
                )
            self._changed.clear()
            await self._changed.wait()

    def _may_send(self) -> bool:
        facts = self.budget.facts
        carried = self._carried_over
        return self.budget.may_send() and (not carried or facts.hold * (carried + 1) <= facts.left)

    def found(self, sub: Submission) -> None:
        """See `Spending`."""
        if self._take_back_bill(sub):
            self.budget.taken_up()
        else:
            if sub.job_id or sub.phase is Phase.UNANSWERED:
                self._carried_over = max(0, self._carried_over - 1)
            self.budget.sent()
        self._held.add(sub)

    def ended(self, sub: Submission, job: Job | None, *, is_billed: bool) -> None:
        """See `Spending`."""
        cost = job.cost if job is not None else None
        if sub in self._held:
            self._held.discard(sub)
            self._settle(sub, cost, is_billed=is_billed)
        elif cost is not None and self._take_back_bill(sub):
            self.budget.taken_up()
            self.budget.settled(cost)
        self._changed.set()

    def _settle(self, sub: Submission, cost: float | None, *, is_billed: bool) -> None:
        if not is_billed:
            self.budget.refused()
            return
        self.budget.settled(cost)
        name = sub.job_id or sub.key
        if cost is None and name:
            self._unknown[name] = None
            if len(self._unknown) > REMEMBERED:
                self._unknown.popitem(last=False)

    def _take_back_bill(self, sub: Submission) -> bool:
        """Remove it from the bills of unknown amount of this session, by its id or by its key. True if it was one.

        One that was left in doubt has no id, and is the same bill when it is sent again under its key.
        """
        for name in (sub.job_id, sub.key):
            if name and name in self._unknown:
                del self._unknown[name]
                return True
        return False

    def holds(self, sub: Submission) -> bool:
        """See `Spending`."""
        return sub in self._held
