"""Limits of so many requests in any span of time, as a sliding window has them, and when one more fits.

Places
------
A bucket fills evenly, and so an even pace uses it best. A window does not: each request that was accepted takes a place
in it, and the place is free again when the span has passed, at once and not a little each second. Whoever leaves evenly
is refused where requests arrive unevenly, leaves more slowly because of that, and used three quarters of such a limit.
Whoever knows how many places there are and how long the span is sends each request when a place falls free.

How it is found
---------------
For a number of places every acceptance says that the span is no longer than a time: when one was accepted, as many
before it had been so in more than the span. Every refusal says that it is longer than another time. At the first
refusal all places were taken, so there are no more of them than were accepted by then. Once as many again have been
accepted, the numbers are tried: where all refusals and all acceptances agree, with some room, that is a window. Of a
bucket and of refusals at random no number does, or it is soon refused.

The span that was found is a little too long, since nobody asked the moment it had passed. It is tried like a rate
(`pace`): a little less, the longer all goes well.

It is believed as long as few are refused. What is then left is the rate. Where requests of another kind count towards
the same limit, they have taken places of which nothing is known here, and there is no way to tell how many there are.

This module knows nothing of what else decides when a request may leave. Arrivals are guessed: the middle of the time
between a departure and its answer, in monotonic seconds.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort

from aiopplx._policy.pace import SLOWEST

FEWEST, MOST = 3, 256
"""Places: a window with fewer is not told from chance; of more, an even pace uses nearly all."""
FEWER = 16
"""Of those that were accepted before the first refusal, at most so many had left the window again."""
REFUSALS = 3
"""Refusals that it takes to tell a window."""
ROOM = 0.98
"""The shortest span that refusals allow must be less than this share of the longest that acceptances allow."""
GROWS = 1.05
"""What a refusal makes of the span at most: those that are on their way may have taken the place."""
TRUST, MOST_TRUST, EARNED = 2.0, 4.0, 1.0 / 15.0
"""Refusals that end the belief: at first, at most, and how much of one each acceptance makes up for."""
IN_A_ROW = 2
"""Refusals without an acceptance between them that end it."""
BRIEFEST = 0.01
"""Seconds: no window is taken for shorter, however coarse a clock is."""
SPARE = 16
"""Places that are remembered beyond those of the window, since answers come in another order than requests arrive."""


class Span:
    """What is known of a limit of so many in any span of time.

    Attributes:
        most: places, 0 while no window was found.
        seconds: the span.
        is_over: nothing is looked for any more.
        taken: arrivals of requests that were accepted, in order but for those before the first refusal.
    """

    __slots__ = ("_in_a_row", "_look_at", "_refused", "_trust", "is_over", "most", "seconds", "taken")

    def __init__(self) -> None:
        self.is_over = False
        self.most = 0
        self.seconds = 0.0
        self.taken: list[float] = []
        self._refused: list[float] = []
        self._look_at = 0
        self._trust = TRUST
        self._in_a_row = 0

    def end(self) -> None:
        """It is no window, or there is a better way to know when one more fits."""
        self.is_over = True
        self.most = 0
        self.taken, self._refused = [], []

    def accept(self, at: float, settled: float) -> bool:
        """A request that arrived at `at` was accepted. True if a window has just been found.

        Args:
            at: when it arrived.
            settled: what arrived before this moment has been answered.
        """
        taken = self.taken
        if self.most:
            n = bisect_left(taken, at)
            if n >= self.most:
                self.seconds = max(BRIEFEST, min(self.seconds, at - taken[n - self.most]))
            self._in_a_row = 0
            self._trust = min(MOST_TRUST, self._trust + EARNED)
            if len(taken) > 2 * (self.most + SPARE):
                del taken[: len(taken) - self.most - SPARE]
        elif len(taken) > MOST and not self._refused:
            self.end()
            return False
        insort(taken, at)
        return bool(self._refused) and len(taken) >= self._look_at and self._look(settled)

    def refuse(self, at: float) -> bool:
        """A request that arrived at `at` was refused. True if the window that was found is still believed."""
        taken = self.taken
        if not self.most:
            if not self._refused:
                taken.sort()
                self._look_at = 2 * len(taken) + 2
                if not FEWEST <= len(taken) <= MOST:
                    self.end()
                    return False
            insort(self._refused, at)
            return False
        n = bisect_left(taken, at)
        shortest = at - taken[n - self.most] if n >= self.most else math.inf
        self.seconds = max(self.seconds, min(shortest, GROWS * self.seconds))
        self._trust -= 1.0
        self._in_a_row += 1
        if self._trust < 0.0 or self._in_a_row >= IN_A_ROW or self.most < SLOWEST * self.seconds:
            self.end()
        return not self.is_over

    def opens(self, in_flight: int, faster: float) -> float:
        """The moment from which one more that arrives finds a place, beside those that are on their way.

        Args:
            in_flight: requests that are on their way, each of which takes a place.
            faster: how many times as fast as the span allows.
        """
        taken = self.taken
        n = len(taken) - self.most + in_flight
        return taken[n] + self.seconds / faster if 0 <= n < len(taken) else -math.inf

    def _look(self, settled: float) -> bool:
        """Try the numbers of places. True if one of them explains all that was seen."""
        taken, refused = self.taken, [at for at in self._refused if at <= settled]
        most = bisect_left(taken, self._refused[0])
        if len(refused) < REFUSALS and len(taken) <= MOST:
            self._look_at = len(taken) + most
            return False
        nearest = ROOM
        for places in range(max(FEWEST, most - FEWER), most + 1):
            longest = min((after - before for before, after in zip(taken, taken[places:], strict=False)), default=0.0)
            before = [bisect_left(taken, at) for at in refused]
            lasted = (at - taken[n - places] for at, n in zip(refused, before, strict=True) if n >= places)
            shortest = max(lasted, default=math.inf)
            if BRIEFEST < shortest < nearest * longest and places >= SLOWEST * longest:
                nearest, self.most, self.seconds = shortest / longest, places, longest
        if not self.most:
            self.end()
        self._refused = []
        return self.most > 0
