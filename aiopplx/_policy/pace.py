"""The budget of polls: so many a minute, with a burst.

It is what the user allows, and known; what the server allows is found out by `limiter`. This module knows nothing of
tasks and clocks: `now` is an argument, in monotonic seconds.
"""

from __future__ import annotations


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
