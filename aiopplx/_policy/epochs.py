"""What is accepted between refusals, from which the rate and the burst of a limit are learnt.

A refusal is a mark
-------------------
At a refusal the bucket is empty. What is accepted from this moment until it is empty again has come in at the rate,
whatever the capacity: between two refusals the capacity cancels out. That is an *epoch*, and the rate is what was
accepted in the last one, two or three of them, whichever gives most, so that one unlucky epoch does not slow a client
down. A rate is never learnt from a single acceptance: a closed window of a minute would look like one request a minute.

Requests are on their way when the first is refused. Their refusals say the same thing again, so a refusal of a request
that was sent before the last one was known is not counted.

The burst is what was accepted before the first refusal, without what came in at the rate meanwhile.

A limit that stays closed for long, and is not open again then, is no bucket: refusals may count as well. An epoch with
few acceptances after that is no measure of the rate.

This module knows nothing of when requests leave, or of what else a refusal may mean.
"""

from __future__ import annotations

import math
from collections import deque

import msgspec

LONG_CLOSED, LONG_GAP = 5, 2.0
"""Requests alone that were refused in a row, and seconds that the gap between them came to, after which an epoch with
few acceptances is no measure of the rate."""
BRIEFEST = 1e-3
"""Seconds: no epoch is taken for shorter."""


class Measured(msgspec.Struct, frozen=True, gc=False):
    """What an epoch has shown.

    Attributes:
        rate: requests a second.
        accepted: how many of them the rate was learnt from.
        first: requests that were accepted before this epoch.
        began: when this epoch began.
        is_repeated: there was another before it, so that the two can be compared.
    """

    rate: float
    accepted: int
    first: int
    began: float
    is_repeated: bool


class Epochs:
    """Counts what is accepted from refusal to refusal.

    Attributes:
        accepted: requests that were accepted, ever.
        known_at: when the last refusal that counts was known.
        is_closed: the request that left alone after the last refusal was refused too.
    """

    __slots__ = (
        "_closed",
        "_full_accepted",
        "_full_at",
        "_in_epoch",
        "_in_last",
        "_last",
        "_mark",
        "_refused_alone",
        "accepted",
        "known_at",
    )

    def __init__(self) -> None:
        self.accepted = 0
        self.known_at = -math.inf
        self._mark: float | None = None
        self._in_epoch = 0
        self._in_last = 0
        self._last: deque[tuple[int, float]] = deque(maxlen=3)
        self._refused_alone: float | None = None
        self._closed = 0
        self._full_at: float | None = None
        self._full_accepted = 0

    @property
    def is_closed(self) -> bool:
        return self._refused_alone is not None

    @property
    def is_empty(self) -> bool:
        """Nothing was accepted since the last refusal that counts."""
        return not self._in_epoch

    def accept(self, sent_at: float) -> None:
        """A request that was sent at `sent_at` was accepted; `accepted` has it already."""
        if self._mark is not None and sent_at > self._mark:
            self._in_epoch += 1

    def refuse_alone(self, sent_at: float) -> None:
        """The request that left alone was refused."""
        self._refused_alone = sent_at
        self._closed += 1

    def measures_nothing(self, sent_at: float, gap: float) -> bool:
        """Whether the limit was closed for long before this refusal, and is not open again: then it is no mark."""
        if gap < LONG_GAP or self._closed < LONG_CLOSED or self._in_epoch >= self._in_last / 4.0:
            return False
        self._refused_alone = sent_at
        return True

    def is_full(self, now: float) -> None:
        """The burst is there, whole: what is accepted from here to the next refusal is of it."""
        self._mark = None
        self._full_at, self._full_accepted = now, self.accepted

    def forget(self, mark: float | None = None) -> None:
        """What was accepted so far is no measure of what comes in from now on; with a mark, an epoch begins there."""
        self._last.clear()
        self._mark = mark
        if mark is not None:
            self._in_epoch = 0

    def spent(self, sent_at: float, rate: float) -> float | None:
        """What was accepted of a whole burst up to this refusal, apart from what came in at the rate."""
        if self._mark is not None or self._full_at is None:
            return None
        return self.accepted - self._full_accepted - rate * (sent_at - self._full_at)

    def mark(self, sent_at: float) -> Measured | None:
        """A refusal: an epoch ends and another begins. What the one that ended has shown; None if that is nothing."""
        began, accepted, refused_alone = self._mark, self._in_epoch, self._refused_alone
        self._mark, self._in_epoch, self._closed, self._refused_alone = sent_at, 0, 0, None
        if began is None:
            self._in_last = self.accepted - self._full_accepted
            return None
        self._in_last = accepted
        if not accepted:
            return None
        is_first, seconds = not self._last, max(sent_at - began, BRIEFEST)
        self._last.append((accepted, seconds))
        rate, learnt_from = self._best()
        if is_first and refused_alone is not None:
            rate = max(rate, (accepted - 1) / max(sent_at - refused_alone, BRIEFEST))
        return Measured(rate, learnt_from, self.accepted - accepted, sent_at - seconds, not is_first)

    def _best(self) -> tuple[float, int]:
        """The highest rate of the last epochs together, and from how many acceptances it was learnt."""
        best, learnt_from = 0.0, 0
        accepted, seconds = 0, 0.0
        for one, lasted in reversed(self._last):
            accepted += one
            seconds += lasted
            rate = (accepted + 0.5) / seconds
            if rate > best:
                best, learnt_from = rate, accepted
        return best, learnt_from
