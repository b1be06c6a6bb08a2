"""Buckets that fill: the budget of polls, whose rate is given, and the pace at which a limit is used, and tried.

How a rate is tried
-------------------
A rate that was learnt from refusals is the rate of a moment ago, and a client that keeps to it never learns that there
is more. Whether there is more can only be asked by leaving faster, and the answer may be a refusal. So the pace is the
rate for `flat` departures, and rises after that: in a straight line at first, which uses a window for which an average
rate is too little, and then as a cube, as CUBIC does in seconds, so that a limit that has become much higher is found.
It is counted in departures, because a refusal costs one request: asking must cost one request in so many, whatever the
rate. Where `flat` is small, little is known of the rate, and the rise is stretched over at least `STRETCH` departures,
or a pace many times the rate would be reached at once. Only departures that had to wait are counted, since a client
with nothing to send finds nothing out.

What comes in while nothing leaves is saved, up to the burst, or while there is more to be found out than the burst
only what a late timer has missed.

This module knows nothing of refusals, of what is sent, or of tasks and clocks: `now` is an argument, in monotonic
seconds.
"""

from __future__ import annotations

import math

SLOWEST = 5.0 / 60.0
"""Requests a second: the lowest published limit (tier 0). No rate is learnt below it."""
LINE, CUBE, STEEPEST = 0.2, 0.1, 8.0
"""How fast the pace rises once `flat` departures went well: so much of the rate for each further `flat`, and for its
cube; so many `flat` long."""
STRETCH = 16.0
"""The fewest departures that count as one `flat` in the rise."""
DOUBLES, MOST_DOUBLED = 24.0, 8.0
"""Departures with which the pace doubles where refusals come at any rate, and how often it does."""
LEAST_FLAT = 4.0
"""The fewest departures until the pace is back at the rate."""
LATE = 0.06
"""Seconds: timers are late by so much, and the departures that were missed are made up."""
SHORTEST = 1e-7
"""Seconds: what is due within them is due."""


class Bucket:
    """A budget with a burst: `per_minute` in the long run, and a second's worth (at least `burst`) at once.

    The service allows far more polls than are needed.
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
        if self._at != now:
            self._fill(now)
        return 0.0 if self._tokens >= 1.0 else (1.0 - self._tokens) / self._rate

    def leave(self, now: float) -> None:
        """One leaves."""
        if self._at != now:
            self._fill(now)
        self._tokens -= 1.0

    def _fill(self, now: float) -> None:
        if self._at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now


class Pace:
    """What comes in at a rate, and leaves at a pace around it.

    Args:
        rate: requests a second that the user gave; None: it is learnt, or told.
        burst: what is saved of a given rate.

    Attributes:
        rate: requests a second, None while no limit is known.
        burst: requests at once, after a pause.
        flat: departures that had to wait until the pace is back at the rate.
        waited: departures that had to wait since the last refusal.
        is_even: departures leave at the rate itself, whatever has waited.
        doubles: the pace doubles with each `DOUBLES` departures: nothing says that there is a limit.
        is_told: the server tells the rate, so that nothing has to be found out.
    """

    __slots__ = (
        "_filled_at",
        "_is_given",
        "_saved",
        "burst",
        "doubles",
        "flat",
        "is_even",
        "is_told",
        "rate",
        "waited",
    )

    def __init__(self, rate: float | None, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self.flat = LEAST_FLAT
        self.waited = 0
        self.is_even = False
        self.doubles = False
        self.is_told = False
        self._is_given = rate is not None
        self._saved = max(1.0, burst)
        self._filled_at = -math.inf

    @property
    def is_tried(self) -> bool:
        """Whether requests leave faster than at the rate, to find out whether that is too low."""
        return self.waited > self.flat and not (self._is_given or self.is_even or self.doubles or self.is_told)

    @property
    def faster(self) -> float:
        """How many times the rate the pace is at present."""
        return self._pace() / (self.rate or SLOWEST)

    def delay(self, now: float) -> float:
        """Seconds until one more has come in; 0 where less remains than a clock can tell."""
        wait = (1.0 - self.saved(now)) / self._pace()
        return wait if wait > SHORTEST else 0.0

    def leave(self, now: float, idle: float) -> bool:
        """One leaves, `idle` seconds after the one before it. True if the burst was there, whole, after a pause."""
        saved, pace = self.saved(now), self._pace()
        is_full = saved >= self._most(pace) and idle > 1.0 + 1.0 / pace and not self._is_given
        if saved < 1.5 + LATE * pace:
            self.waited += 1
        self.save(now, saved - 1.0)
        return is_full

    def save(self, now: float, saved: float) -> None:
        """So much is there at this moment."""
        self._saved, self._filled_at = saved, now

    def hold(self, now: float, most: float) -> None:
        """No more than this is there."""
        self.save(now, self._saved if self.rate is None else min(self.saved(now), most))

    def saved(self, now: float) -> float:
        """What has come in and was not used."""
        pace, before = self._pace(), self._saved
        saved = before + (now - self._filled_at) * pace
        if saved > 1.0 and pace > (rate := self.rate or SLOWEST):
            # What is saved came in at the rate; only what leaves is tried at more.
            before = max(1.0, before)
            saved = before + (saved - before) * rate / pace
        return min(saved, max(self._most(pace), 1.0))

    def _pace(self) -> float:
        """Requests a second at present."""
        rate = self.rate or SLOWEST
        if self._is_given or self.is_even:
            return rate
        if self.doubles:
            return rate * math.pow(2.0, min(MOST_DOUBLED, self.waited / DOUBLES))
        if self.waited <= self.flat:
            return rate
        s = min(STEEPEST, (self.waited - self.flat) / max(STRETCH, self.flat))
        return rate * (1.0 + LINE * s + CUBE * s**3)

    def _most(self, pace: float) -> float:
        """What is saved at most."""
        if self._is_given:
            return self.burst
        late = 1.0 + LATE * pace
        return late if self.waited > self.flat and not self.is_told else max(late, self.burst)
