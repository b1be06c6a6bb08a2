"""Whether one more submission may be paid for: a cap in dollars, and a learned hold for each job in flight.

The cost of a job is known when it ends. Until then the job holds what such jobs have cost, so that the sum of spent and
held amounts stays under the cap. This module knows nothing of tasks, clocks, journals or of where costs come from.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable

import msgspec

ENOUGH = 20
"""From this many known costs on, they alone decide the hold."""
REMEMBERED = 500
"""How many of the latest known costs decide the hold."""
EXPECTED_COST = 1.3
"""US dollars that a deep-research job is expected to cost before any cost is known: the upper end of what was seen
($0.84 to $1.26 in five jobs of June 2026)."""
_CENTI_CENT = 0.0001


class Balance(msgspec.Struct, frozen=True):
    """The state of a budget; all amounts in US dollars.

    Attributes:
        cap: the amount that may be spent.
        spent: the sum of the known costs.
        held: reserved for jobs in flight, and for bills of unknown amount.
        hold: what one more job would hold.
        in_flight: jobs that are sent and not settled.
        unknown: jobs that ended without a known cost.
    """

    cap: float
    spent: float
    held: float
    hold: float
    in_flight: int
    unknown: int

    @property
    def left(self) -> float:
        """The amount that is neither spent nor held; never negative."""
        return max(0.0, self.cap - self.spent - self.held)

    def __str__(self) -> str:
        said = f"${self.spent:.2f} of ${self.cap:.2f} spent"
        if self.in_flight:
            said += f", {self.in_flight} running"
        if self.unknown:
            said += f", {self.unknown} of unknown cost"
        if self.held:
            said += f" (${self.held:.2f} held for these)"
        return f"{said}; one more is expected to cost up to ${self.hold:.2f}"


class Budget:
    """A cap on spending, enforced by holds.

    The hold of a job is the `quantile` of the latest known costs, and it is the same for all jobs in flight: after
    expensive jobs, those still running are expected to be expensive too. Until there are 20 known costs it is `prior`,
    or the highest known cost if that is more. A bill whose amount never becomes known keeps its hold.

    The cap can be exceeded only by the amounts by which jobs cost more than their holds: at the default, one job in
    twenty does. `quantile=1.0` holds the highest of the latest costs.

    Args:
        cap: US dollars that may be spent in total.
        prior: the expected cost of a job before any is known, US dollars. Default `EXPECTED_COST`.
        spent: US dollars already spent in earlier runs that the cap covers.
        unknown: bills of earlier runs whose amount is unknown.
        samples: known costs of earlier jobs of this kind, newest first.
        quantile: the share of jobs that cost no more than the hold, above 0, at most 1.

    Raises:
        ValueError: an amount is negative or not a number, or the quantile is out of range.
    """

    def __init__(
        self,
        cap: float,
        *,
        prior: float = EXPECTED_COST,
        spent: float = 0.0,
        unknown: int = 0,
        samples: Iterable[float] = (),
        quantile: float = 0.95,
    ) -> None:
        for name, amount in (("cap", cap), ("prior", prior), ("spent", spent)):
            if not (math.isfinite(amount) and amount >= 0.0):
                raise ValueError(f"{name} must be an amount in dollars, not {amount!r}")
        if not 0.0 < quantile <= 1.0:
            raise ValueError(f"quantile must be above 0 and at most 1, not {quantile!r}")
        self.cap = cap
        self._prior = prior
        self._quantile = quantile
        self._spent = [spent]
        self._unknown = unknown
        self._in_flight = 0
        self._latest: deque[float] = deque()
        self._sorted: list[float] = []
        for cost in reversed([*samples][:REMEMBERED]):
            self._learn(cost)

    # --- questions ---------------------------------------------------------------------------------------------------

    def may_send(self) -> bool:
        """True if one more job fits under the cap, in addition to the spent and held amounts.

        False may be temporary: while jobs are in flight, one that costs less than its hold makes room again.
        """
        hold = self.hold
        return self.spent + hold * (self._in_flight + self._unknown + 1) <= self.cap + _CENTI_CENT

    @property
    def spent(self) -> float:
        """The sum of the known costs, US dollars."""
        return math.fsum(self._spent)

    @property
    def hold(self) -> float:
        """The expected upper limit of one job's cost, US dollars."""
        if len(self._sorted) < ENOUGH:
            return max(self._prior, self._sorted[-1] if self._sorted else 0.0)
        return self._sorted[math.ceil(self._quantile * len(self._sorted)) - 1]

    @property
    def facts(self) -> Balance:
        """The current state, for messages; its `str` is a sentence."""
        hold = self.hold
        held = hold * (self._in_flight + self._unknown)
        return Balance(self.cap, self.spent, held, hold, self._in_flight, self._unknown)

    # --- what happens ------------------------------------------------------------------------------------------------

    def sent(self) -> None:
        """A job counts from now on: it is being sent, or was found running from an earlier run."""
        self._in_flight += 1

    def refused(self) -> None:
        """A job that counted as sent was refused, or never sent: nothing is billed."""
        self._leave()

    def settled(self, cost: float | None) -> None:
        """A job ended.

        Args:
            cost: US dollars as billed; None (or anything that is not an amount) if unknown.
        """
        self._leave()
        if cost is None or not math.isfinite(cost) or cost < 0.0:
            self._unknown += 1
            return
        self._add(cost)
        self._learn(cost)

    def taken_up(self) -> None:
        """A job of unknown cost is being waited for again: it is in flight once more, and its cost may become known."""
        if not self._unknown:
            raise ValueError("no job has an unknown cost")
        self._unknown -= 1
        self._in_flight += 1

    def _leave(self) -> None:
        if not self._in_flight:
            raise ValueError("no job is in flight: each is settled once, after being sent")
        self._in_flight -= 1

    def _add(self, cost: float) -> None:
        # The sum and its rounding error, together as exact as one sum over all costs.
        self._spent.append(cost)
        if len(self._spent) >= 64:
            total = math.fsum(self._spent)
            self._spent = [total, math.fsum([*self._spent, -total])]

    def _learn(self, cost: float) -> None:
        if not math.isfinite(cost) or cost < 0.0:
            return
        self._latest.append(cost)
        insort(self._sorted, cost)
        if len(self._latest) > REMEMBERED:
            del self._sorted[bisect_left(self._sorted, self._latest.popleft())]
