"""Submissions wait here until the budget has room for them; jobs that end make room again.

This module knows nothing of how much a job may cost (that is `_policy.budget`), of journals or of HTTP.
"""

from __future__ import annotations

import asyncio

from aiopplx._errors import BudgetReached
from aiopplx._job import Job, JobStatus
from aiopplx._policy.budget import Budget
from aiopplx._submission import Submission

_NO_BILL = frozenset({JobStatus.REJECTED, JobStatus.STOPPED})
_NO_END = frozenset({
    JobStatus.IN_PROGRESS,
    JobStatus.TIMED_OUT,
    JobStatus.UNREADABLE,
    JobStatus.IN_DOUBT,
    JobStatus.EXPIRED,
})


class Purse:
    """What a session may spend.

    Args:
        budget: decides.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.is_settled_up = False
        self._owed = 0
        self._changed = asyncio.Event()

    def owe(self, jobs: int) -> None:
        """So many jobs of earlier runs are billed, and nobody has asked for them in this one: each keeps its share."""
        self.is_settled_up = True
        self._owed = jobs

    async def hold(self, sub: Submission) -> None:
        """Wait until there is room for one more, and take it.

        Raises:
            BudgetReached: nothing fits any more, and nothing runs that could make room.
        """
        while not self._may_send():
            if not self.budget.facts.in_flight:
                raise BudgetReached(
                    f"not sent: {self.budget.facts}. A higher max_cost goes on with it; nothing was billed"
                )
            self._changed.clear()
            await self._changed.wait()
        self.found(sub)

    def _may_send(self) -> bool:
        facts = self.budget.facts
        return self.budget.may_send() and (not self._owed or facts.hold * (self._owed + 1) <= facts.left)

    def found(self, sub: Submission) -> None:
        """It is being sent, or runs already."""
        if sub.job_id or sub.was_in_doubt:
            self._owed = max(0, self._owed - 1)
        self.budget.sent()
        sub.is_held_for = True

    def ended(self, sub: Submission | None, job: Job) -> None:
        """What it really cost, as far as anybody said."""
        if sub is None or not sub.is_held_for:
            return
        sub.is_held_for = False
        if job.status in _NO_BILL and not job.id:
            self.budget.refused()
        else:
            self.budget.settled(None if job.status in _NO_END else job.cost)
        self._changed.set()
