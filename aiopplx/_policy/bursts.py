"""Where a burst probably ends: the limits that the service publishes, and when a full bucket of each is empty.

Where a refusal is expected
---------------------------
As long as nothing is known, any request may be the first that is refused, and those that are on their way then are
refused with it. How many these should be is a bargain: many make a server without a limit fast to use. But an account
that has not said its tier has one of a few published limits. Each is a bucket that is full at first, takes in its limit
each minute, and is empty after a number of requests that can be told at any moment. Only around these numbers few are
on their way. That costs a server without a limit a second or so in a thousand requests, and a bucket nothing, since
what is not used is there later.

A full bucket takes nothing in. So what came in while fewer left than that, at first, is lost; it is reckoned once, when
the window is wide. A client that pauses after that has more than is reckoned, and meets a limit as one that is not
published: with a wide window.

This module knows nothing of refusals, or of what else decides when a request may leave.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

PUBLISHED = (500.0, 1_000.0, 2_000.0)
"""Requests a minute that tiers of the Agent API allow, and as many at once. Where fewer are allowed, few are in flight
anyway."""
WIDE_AFTER = 112
"""Requests after which the window is wide."""
NEAR, NEAR_SHARE = 3.0, 0.01
"""So many requests around the end of a burst few are in flight, or such a share of the limit, if that is more."""
NARROW, FASTER = 4.0, 1.4
"""Requests in flight there: so many, or as many as leave so many times as fast as they come in, and one. With fewer the
end would never be passed."""


class Bursts:
    """The bursts that may end soon.

    Args:
        published: limits in requests a minute, lowest first.

    Attributes:
        after: requests that have to be sent before one may end.
    """

    __slots__ = ("_limits", "_wide_at", "_wide_sent", "after")

    def __init__(self, published: Sequence[float] = PUBLISHED) -> None:
        self._limits = list(published)
        self._wide_at: float | None = None
        self._wide_sent = 0
        self.after: float = WIDE_AFTER if published else math.inf

    def window(self, accepted: int, in_flight: int, seconds: float, rtt: float) -> float:
        """How many may be in flight: few where a burst probably ends; without end everywhere else.

        Args:
            accepted: requests, ever.
            in_flight: requests beside them.
            seconds: since the first of them was sent.
            rtt: seconds that one takes.
        """
        sent = accepted + in_flight
        if self._wide_at is None:
            self._wide_at, self._wide_sent = seconds, sent
        while self._limits:
            limit = self._limits[0]
            rate, near = limit / 60.0, max(NEAR, NEAR_SHARE * limit)
            end = limit + min(rate * self._wide_at, self._wide_sent) + rate * (seconds - self._wide_at)
            if sent < end - near:
                self.after = limit - near
                return math.inf
            if accepted <= end + near:
                return max(NARROW, 1.0 + FASTER * rate * rtt)
            del self._limits[0]
        self.after = math.inf
        return math.inf
