"""How far apart requests leave: a rate that is given or learnt (`Pace`), and a budget with a burst (`Bucket`).

Pace
----
The service limits how many submissions an account may make in a minute, and does not say how many. So the rate is
learnt from refusals. Without a refusal nothing is known and nothing is held back. Once refusals come in a row, what the
server accepted in the last minute is its rate. A bucket that was full and a bucket that was used evenly both lead to
the same count, if older departures count for less: the weight of a departure falls by the factor e in a minute.

After a refusal the rate is cut by a fifth. From there it follows the curve of CUBIC (RFC 9438): back up to the old
rate, nearly level there for a while (the plateau), and then upward, faster and faster, to find out whether the server
allows more by now. The plateau is short after a first estimate, because a bucket that was found empty (by the same
program, started again) looks like a slow one. It grows with each refusal that confirms the rate.

Several requests are always on their way at once, so refusals arrive in groups. Those that left before the last cut tell
nothing new about the rate: it is cut once for all of them. A rate that the user gave is an upper bound on all of this.

A departure is taken from a source that can be asked ahead: `delay` says when the next one may leave and changes
nothing, `leave` takes it. Whatever else is to limit departures later has to offer these two.

This module knows nothing of lanes, of Retry-After or of outages (that is `gate`), nor of tasks and clocks: `now` is an
argument, in monotonic seconds.
"""

from __future__ import annotations

import math


class Pace:
    """Evenly spaced departures.

    With `per_minute` given, no two departures are closer than 60 / per_minute seconds, so no minute sees more. Without
    it, departures are free until the server refuses.

    Attributes:
        interval: seconds between two departures at present, 0.0 while nothing limits them.
        next_at: the moment before which nothing leaves.
    """

    IN_A_ROW = 8
    """Refusals without an acceptance between them before a rate is learnt at all. A server that refuses now and then,
    at whatever rate it is asked, has no rate to learn."""
    CUT = 0.2
    """Share of the rate that a refusal takes away."""
    FIRST_PLATEAU, PLATEAU = 20.0, 180.0
    """Seconds after a cut at which the old rate is reached again: doubled from the first to the second."""
    MEMORY = 60.0
    """Seconds in which a departure loses all but 1/e of its weight in the count."""
    SLOWEST = 5.0 / 60.0
    """Requests a second: never learn a rate below the lowest published limit (tier 0). A moment in which everything is
    refused, with a dozen requests on their way, would otherwise look like a limit of next to nothing."""

    __slots__ = ("_counted_at", "_cut_at", "_floor", "_peak", "_plateau", "_recent", "_row", "interval", "next_at")

    def __init__(self, per_minute: float | None = None) -> None:
        self._floor = 60.0 / per_minute if per_minute else 0.0
        self.interval = self._floor
        self.next_at = 0.0
        self._peak = math.inf
        self._plateau = self.FIRST_PLATEAU
        self._cut_at = -math.inf
        self._recent = 0.0
        self._counted_at = 0.0
        self._row = 0

    def limit(self, per_minute: float | None) -> None:
        """The sessions of the account allow at most this from now on: the lowest of their limits, None if none has one.

        Where that is more than before, what was learnt from refusals still holds.
        """
        floor = 60.0 / per_minute if per_minute else 0.0
        if floor == self._floor:
            return
        before = self.interval
        self._floor = floor
        self.interval = self._floor if self._peak == math.inf else max(self._floor, 1.0 / self._peak)
        if self.interval < before and self._peak == math.inf:
            self.next_at -= before - self.interval  # the last departure counts, and not the gap that was to follow it

    def delay(self, now: float) -> float:
        """Seconds until the next departure. Asking changes nothing."""
        return max(0.0, self.next_at - now)

    def leave(self, now: float) -> None:
        """A request departs."""
        self._count(now, 1.0)
        if self._peak != math.inf:
            self.interval = self._interval_at(now)
        self.next_at = max(now, self.next_at) + self.interval

    def accepted(self) -> None:
        """The server accepted one."""
        self._row = 0

    def refused(self, now: float, left_at: float) -> None:
        """The server refused one that left at `left_at`, because there were too many."""
        self._count(now, -1.0)
        self._row += 1
        if self._peak == math.inf and self._row < self.IN_A_ROW:
            return
        # One more than was accepted: the refusal shows that less than one fitted, not that none did.
        accepted = max(self.SLOWEST, (max(0.0, self._recent) + 1.0) / self.MEMORY)
        if left_at < self._cut_at:
            # It says nothing new about the rate, but one fewer was accepted than the cut supposed.
            self._peak = min(self._peak, accepted)
        else:
            known = 1.0 / self.interval if self.interval else math.inf
            self._peak = max(self.SLOWEST, min(accepted, known))
            # Less than half of what was believed does not confirm it: it is a new estimate.
            self._plateau = self.FIRST_PLATEAU if accepted < known / 2.0 else min(self.PLATEAU, self._plateau * 2.0)
            self._cut_at = now
        self.interval = self._interval_at(now)
        self.next_at = max(self.next_at, self._cut_at + self.interval)

    def _count(self, now: float, change: float) -> None:
        self._recent = self._recent * math.exp((self._counted_at - now) / self.MEMORY) + change
        self._counted_at = now

    def _interval_at(self, now: float) -> float:
        if self._peak == math.inf:
            return self._floor
        swing = (now - self._cut_at) / self._plateau - 1.0
        return max(self._floor, 1.0 / (self._peak * (1.0 + self.CUT * swing**3)))


class Bucket:
    """A budget with a burst: `per_minute` in the long run, and a second's worth (at least `burst`) at once.

    For polls, of which the service allows far more than are needed: their budget is known and not learnt.
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, per_minute: float, burst: float = 10.0) -> None:
        self._rate = per_minute / 60.0
        # At least one, or a budget of less than one a minute would never let anything leave.
        self._burst = max(min(burst, per_minute), self._rate, 1.0)
        self._tokens = self._burst
        self._at: float | None = None

    def delay(self, now: float) -> float:
        """Seconds until one more may leave."""
        self._fill(now)
        return 0.0 if self._tokens >= 1.0 else (1.0 - self._tokens) / self._rate

    def leave(self, now: float) -> None:
        """One leaves."""
        self._fill(now)
        self._tokens -= 1.0

    def _fill(self, now: float) -> None:
        if self._at == now:
            return
        if self._at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
