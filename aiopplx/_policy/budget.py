"""Whether one more submission may be paid for: a cap in dollars, and a reservation for each job not yet billed.

The cost of a job is known when it ends. Until then what jobs of its kind have cost is reserved for it, so that the sum
of spent and reserved amounts stays under the cap. Each kind has its own costs and its own reservations: a cheap model
says nothing about a dear one.

What is published may be wrong. So of a kind whose cost nobody has seen, ten jobs at most are out at once; and while one
of them is waited for, everything else needs room for three times what is published for each. Under a small cap one job
thus tells its cost before the others are paid for, and under a large one nobody waits. Where nothing is waited for that
would tell a cost, what is published has to do: waiting would change nothing.

What a cap bounds
-----------------
A submission leaves only while spent and reserved amounts, its own among them, stay under the cap. So the cap is passed
by no more than the sum of what the jobs that were out at the last submission cost above their reservations. It follows
that if no job costs more than k times what was reserved for it then, k being 1 or more, no more than k times the cap is
billed. When a price rises, these are the jobs that were out when the first of the dearer ones told its cost: from then
on it is the reservation of all.

This module knows nothing of tasks, clocks or journals, nor of where costs come from.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

import msgspec

from aiopplx._wire.kinds import Kind
from aiopplx.apis._registry import published

ENOUGH = 20
"""From this many known costs of a kind on, they alone decide its reservation; it is never below the highest of as many
that came last."""
REMEMBERED = 500
"""How many of the latest known costs of a kind decide its reservation."""
UNPUBLISHED = 2.0
"""US dollars reserved for a job if nothing is published about its kind and no cost is known: more than the highest cost
that is published."""
UNSEEN = 10
"""How many jobs of a kind may be out at once while no cost of that kind is known."""
AT_WORST = 3.0
"""How many times what is published there must be room for, for each job of a kind of which no cost is known."""
_CENTI_CENT = 0.0001


def expected(kind: Kind) -> float:
    """What a job of a kind is expected to cost at most before one was seen, US dollars."""
    high = published(kind).high
    return UNPUBLISHED if high is None else high


class Balance(msgspec.Struct, frozen=True):
    """The state of a budget, for one kind of job; all amounts in US dollars.

    Attributes:
        kind: the kind of job that is asked about.
        cap: the amount that may be spent.
        spent: the sum of the known costs.
        reserved: for jobs whose cost is not known.
        reservation: what would be reserved for one more job of this kind.
        in_flight: jobs that are out, and whose outcome is waited for.
        left: jobs that run, or may run, and nobody here waits for.
        unknown: jobs that ended without a known cost.
        is_unseen: no cost of this kind is known, and as many jobs of it are out as may be.
        is_late: one more would fit, but a job is waited for that may cost three times what is published, for all that
            is known.
    """

    kind: Kind
    cap: float
    spent: float
    reserved: float
    reservation: float
    in_flight: int
    left: int
    unknown: int
    is_unseen: bool
    is_late: bool = False

    @property
    def rest(self) -> float:
        """The amount that is neither spent nor reserved; never negative."""
        return max(0.0, self.cap - self.spent - self.reserved)

    def __str__(self) -> str:
        said = f"${self.spent:.2f} of ${self.cap:.2f} spent"
        if self.in_flight:
            said += f", {self.in_flight} running"
        if self.left:
            said += f", {self.left} that may still run and are not waited for"
        if self.unknown:
            said += f", {self.unknown} of unknown cost"
        if self.reserved:
            said += f" (${self.reserved:.2f} reserved for these)"
        if self.is_unseen:
            return f"{said}; no cost of such a job ({self.kind}) is known yet, and {UNSEEN} of them are out"
        if self.is_late:
            return f"{said}; one more ({self.kind}) waits until a running job tells the first cost of its kind"
        return f"{said}; one more ({self.kind}) is expected to cost up to ${self.reservation:.2f}"


class _Account:
    """The jobs and the costs of one kind."""

    def __init__(self, expected: float, quantile: float) -> None:
        self.in_flight = 0
        self.left = 0
        self.unknown = 0
        self._expected = expected
        self._quantile = quantile
        self._latest: deque[float] = deque()
        self._sorted: list[float] = []
        self.reservation = expected

    @property
    def reserved(self) -> float:
        return self.reservation * (self.in_flight + self.left + self.unknown)

    @property
    def is_seen(self) -> bool:
        return bool(self._sorted)

    @property
    def is_full(self) -> bool:
        return not self._sorted and self.in_flight + self.left >= UNSEEN

    @property
    def at_worst(self) -> float:
        """What one more job of this kind may cost, for all that is known."""
        return self.reservation if self._sorted else AT_WORST * self.reservation

    @property
    def reserved_at_worst(self) -> float:
        return self.at_worst * (self.in_flight + self.left) + self.reservation * self.unknown

    def learn(self, cost: float) -> None:
        self._latest.append(cost)
        insort(self._sorted, cost)
        if len(self._latest) > REMEMBERED:
            del self._sorted[bisect_left(self._sorted, self._latest.popleft())]
        self.reservation = self._amount()

    def _amount(self) -> float:
        if len(self._sorted) < ENOUGH:
            return max(self._expected, self._sorted[-1])
        # Among 500 costs, those of a price that has just risen are few: the latest tell of it at once.
        latest = max(islice(reversed(self._latest), ENOUGH))
        return max(latest, self._sorted[math.ceil(self._quantile * len(self._sorted)) - 1])


class Budget:
    """A cap on spending, enforced by reservations.

    The reservation of a job is the `quantile` of the latest known costs of its kind, or the highest of the last 20 if
    that is more. It is the same for all jobs of the kind: after an expensive one, those still running are expected to
    be expensive too. Until 20 costs are known it is the expected cost, or the highest known one if that is more. A bill
    whose amount never becomes known stays reserved.

    Args:
        cap: US dollars that may be spent in total.
        spent: US dollars already spent in earlier runs that the cap covers.
        quantile: the share of jobs that cost no more than the reservation, above 0, at most 1.
        expected: what a job of a kind is expected to cost at most before one was seen, US dollars.

    Raises:
        ValueError: an amount is negative or not a number, or the quantile is out of range.
    """

    def __init__(
        self,
        cap: float,
        *,
        spent: float = 0.0,
        quantile: float = 0.95,
        expected: Callable[[Kind], float] = expected,
    ) -> None:
        for name, amount in (("cap", cap), ("spent", spent)):
            if not _is_amount(amount):
                raise ValueError(f"{name} must be an amount in dollars, not {amount!r}")
        if not 0.0 < quantile <= 1.0:
            raise ValueError(f"quantile must be above 0 and at most 1, not {quantile!r}")
        self.cap = cap
        self._quantile = quantile
        self._expected = expected
        self._spent = [spent]
        self._accounts: dict[Kind, _Account] = {}

    def bring_forward(self, kind: Kind, *, left: int = 0, unknown: int = 0, samples: Iterable[float] = ()) -> None:
        """What earlier runs that the cap covers have spent, and the jobs that they left.

        Args:
            kind: of the jobs.
            left: how many run, or may run.
            unknown: how many ended, or may have, with a bill of unknown amount.
            samples: known costs, newest first.
        """
        account = self._account(kind)
        account.left += left
        account.unknown += unknown
        for cost in reversed([*samples][:REMEMBERED]):
            if _is_amount(cost):
                account.learn(cost)

    # --- questions ---------------------------------------------------------------------------------------------------

    def may_send(self, kind: Kind) -> bool:
        """True if one more job of this kind fits under the cap, in addition to the spent and reserved amounts.

        False may be temporary: while jobs are in flight, one that costs less than its reservation makes room again, and
        one of a kind of which no cost is known tells what such jobs cost.
        """
        account = self._account(kind)
        return not account.is_full and self._fits(self.reserved + account.reservation) and not self._is_late(account)

    def may_send_again(self, kind: Kind) -> bool:
        """True if a job that was left, and may not exist, fits under the cap: it is reserved for already, and the key
        that it is sent under makes no second bill.
        """
        return bool(self._account(kind).left) and self._fits(self.reserved)

    def may_make_room(self, kind: Kind) -> bool:
        """True if a job is in flight whose end may let one more of this kind be sent."""
        account = self._account(kind)
        if account.is_full:
            return account.in_flight > 0
        return any(account.in_flight for account in self._accounts.values())

    def at_worst(self, kind: Kind) -> float:
        """What one more job of this kind may cost, for all that is known, US dollars."""
        return self._account(kind).at_worst

    @property
    def is_telling(self) -> bool:
        """True if a job is in flight whose end tells the first cost of its kind."""
        return any(account.in_flight and not account.is_seen for account in self._accounts.values())

    @property
    def spent(self) -> float:
        """The sum of the known costs, US dollars."""
        return math.fsum(self._spent)

    def balance(self, kind: Kind) -> Balance:
        """The current state, for messages; its `str` is a sentence."""
        account, accounts = self._account(kind), self._accounts.values()
        return Balance(
            kind=kind,
            cap=self.cap,
            spent=self.spent,
            reserved=self.reserved,
            reservation=account.reservation,
            in_flight=sum(one.in_flight for one in accounts),
            left=sum(one.left for one in accounts),
            unknown=sum(one.unknown for one in accounts),
            is_unseen=account.is_full,
            is_late=self._fits(self.reserved + account.reservation) and self._is_late(account),
        )

    # --- what happens ------------------------------------------------------------------------------------------------

    def sent(self, kind: Kind) -> None:
        """A job counts from now on: it is being sent."""
        self._account(kind).in_flight += 1

    def refused(self, kind: Kind) -> None:
        """A job that counted as sent was refused, or never sent: nothing is billed."""
        self._out(kind)

    def was_left(self, kind: Kind) -> None:
        """A job that runs, or may run, is not waited for any more."""
        self._out(kind).left += 1

    def taken_up(self, kind: Kind) -> None:
        """A job that was left, or whose cost is unknown, is waited for again: it is in flight, and its cost may become
        known. One that nothing was known of counts from now on.
        """
        account = self._account(kind)
        if account.left:
            account.left -= 1
        elif account.unknown:
            account.unknown -= 1
        account.in_flight += 1

    def settled(self, kind: Kind, cost: float | None) -> None:
        """A job ended.

        Args:
            kind: of the job.
            cost: US dollars as billed; None (or anything that is not an amount) if unknown.
        """
        account = self._out(kind)
        if cost is None or not _is_amount(cost):
            account.unknown += 1
            return
        self._add(cost)
        account.learn(cost)

    def _account(self, kind: Kind) -> _Account:
        account = self._accounts.get(kind)
        if account is None:
            account = self._accounts[kind] = _Account(self._expected(kind), self._quantile)
        return account

    def _fits(self, dollars: float) -> bool:
        return self.spent + dollars <= self.cap + _CENTI_CENT

    def _is_late(self, account: _Account) -> bool:
        """Whether a cost that is about to be told has to be waited for, before one more is sent."""
        if not self.is_telling:
            return False
        reserved = sum(one.reserved_at_worst for one in self._accounts.values())
        return not self._fits(reserved + account.at_worst)

    @property
    def reserved(self) -> float:
        """US dollars that are reserved for jobs whose cost is not known yet."""
        return sum(account.reserved for account in self._accounts.values())

    def _out(self, kind: Kind) -> _Account:
        account = self._account(kind)
        if not account.in_flight:
            raise ValueError("no job of this kind is in flight: each is settled once, after being sent")
        account.in_flight -= 1
        return account

    def _add(self, cost: float) -> None:
        # The sum and its rounding error, together as exact as one sum over all costs.
        self._spent.append(cost)
        if len(self._spent) >= 64:
            total = math.fsum(self._spent)
            self._spent = [total, math.fsum([*self._spent, -total])]


def _is_amount(dollars: float) -> bool:
    return math.isfinite(dollars) and dollars >= 0.0
