"""What a session may spend where sessions share one budget: the amounts are held in the store that they share.

How much is held back for a submission is decided here as ever (`_policy.budget`), from what such jobs have cost. But
whether there is room for it only the store knows, in which all sessions hold. So a submission that finds none waits
until a job of this session ends, or looks again from time to time, because those of other sessions end as well. When
nothing that runs anywhere can make room, it ends as it would alone.

The store settles by itself, with the step that ends a submission: this session's own account of it says what it learnt
of costs, and what is shown. This module knows nothing of SQL, of journals' rows, or of HTTP.
"""

from __future__ import annotations

import msgspec

from aiopplx._core.spending import Bounded, makes_no_second_bill, reached
from aiopplx._http.clock import Clock
from aiopplx._policy.budget import Balance, Budget
from aiopplx._submission import Submission
from aiopplx.journal._protocol import Pool
from aiopplx.journal._records import KindCosts, Ledger, Room

LOOK = 1.0
"""Seconds after which it is asked again whether other sessions' jobs have made room."""


class Pooled(Bounded):
    """A session with `max_cost`, whose store has one budget for all its sessions.

    Args:
        pool: the store.
        budget: decides how much is held back.
        clock: measures time limits.
        ledger: what jobs have cost.
    """

    def __init__(self, pool: Pool, budget: Budget, clock: Clock, ledger: Ledger) -> None:
        # What runs, or has an unknown bill, is held in the store.
        kinds = {label: KindCosts(samples=costs.samples) for label, costs in ledger.kinds.items()}
        super().__init__(budget, clock, Ledger(ledger.spent, kinds))
        self._pool = pool
        self._short: set[int] = set()  # rows for which room is looked for

    def _has_room(self, sub: Submission) -> bool:
        return False  # the store knows

    async def _find_room(self, sub: Submission) -> None:
        self._short.add(sub.row)
        try:
            await self._be_held(sub)
        finally:
            self._short.discard(sub.row)

    async def _be_held(self, sub: Submission) -> None:
        kind, again = sub.kind, makes_no_second_bill(sub)
        # A job makes room within its time limit. If nothing has changed for so long, what is held is held for good.
        seen, until = (-1.0, -1.0), 0.0
        while True:
            self._changed.clear()
            balance = self.budget.balance(kind)
            at_worst = self.budget.at_worst(kind)
            if (again or not balance.is_unseen) and await self._is_held(sub, at_worst, again=again):
                return
            room = await self._pool.room(but=self._short)
            may_lower = balance.reservation < at_worst and not balance.is_unseen and not self._may_fit(at_worst, room)
            if may_lower and await self._is_held(sub, balance.reservation, again=again):
                return  # there will be no room for more, so what is published has to do
            if (room.spent, room.held) != seen:
                seen, until = (room.spent, room.held), self._clock.now() + sub.timeout
            if balance.is_unseen:
                may_wait = self.budget.may_make_room(kind)
            else:
                may_wait = room.may_change and balance.reservation <= (room.cap or 0.0)
            if not may_wait or self._clock.now() >= until:
                raise reached(_common(balance, room))
            await self._clock.wait(self._changed, LOOK)

    def _may_fit(self, dollars: float, room: Room) -> bool:
        """Whether there may be room for so much once others have ended, or less be needed by then."""
        return room.may_change and (self.budget.is_telling or room.cap is None or room.spent + dollars <= room.cap)

    async def _is_held(self, sub: Submission, dollars: float, *, again: bool) -> bool:
        return sub.claim is not None and await self._pool.hold(sub.claim, dollars, again=again)


def _common(balance: Balance, room: Room) -> Balance:
    """The balance of all sessions together."""
    cap = balance.cap if room.cap is None else room.cap
    return msgspec.structs.replace(balance, cap=cap, spent=room.spent, reserved=room.held)
