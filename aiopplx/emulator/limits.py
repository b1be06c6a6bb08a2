"""Limits on requests as servers and the gateways in front of them have them, as values: `Emulator(limits=...)`.

    Emulator(limits=limits.Leaky(per_second=5, burst=2))                    # one limit that all requests share
    Emulator(limits={"submit": limits.Bucket(50), "get": limits.Bucket(6000)})    # one for each kind

A kind is `submit`, `get`, `list` or `cancel`; several kinds that share a limit are written with commas between them
(`"submit,get"`), and `"*"` is all that the others do not name. A kind without a limit is never refused. All times are
emulated seconds. What a limit is depends on the account only, not on the API.

This module knows nothing of HTTP, or of how a refusal is answered.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import msgspec

__all__ = [
    "AtWork",
    "Bucket",
    "FixedWindow",
    "InFlight",
    "Leaky",
    "Limit",
    "Room",
    "SlidingWindow",
]


class Room(NamedTuple):
    """The state of a limit after one request: `wait` is emulated seconds until there is room, 0.0 if there was.

    `work` is the emulated seconds for which the request is at work, and its answer is held back.
    """

    wait: float
    limit: int
    remaining: int
    work: float = 0.0


AtWork: TypeAlias = Callable[[float], Room]
"""A limit at work: a request arrives at this moment."""


class Bucket(msgspec.Struct, frozen=True):
    """A token bucket, as the service has: refilled all the time; a refused request costs nothing.

    Attributes:
        rpm: requests a minute.
        burst: requests at once, after a pause. Default: `rpm`.
        full: the share of the burst that is there at the start. Default 1.0.
    """

    rpm: float
    burst: float | None = None
    full: float = 1.0

    def begin(self, now: float) -> AtWork:
        """A new one at work."""
        rate = self.rpm / 60.0
        capacity = max(1.0, self.rpm if self.burst is None else self.burst)
        tokens, at = capacity * self.full, now

        def take(now: float) -> Room:
            nonlocal tokens, at
            tokens = min(capacity, tokens + max(0.0, now - at) * rate)
            at = now
            # The margin: a client that waits exactly as long as asked must not be refused because of a rounding error.
            if tokens >= 1 - 1e-6:
                tokens -= 1
                return Room(0.0, round(self.rpm), int(max(0.0, tokens)))
            return Room((1 - tokens) / rate, round(self.rpm), 0)

        return take


class Leaky(msgspec.Struct, frozen=True):
    """nginx's `limit_req ... nodelay`: an excess that drains evenly, and is refused above `burst`.

    Attributes:
        per_second: requests a second.
        burst: requests above that, at once. Default 0.
    """

    per_second: float
    burst: int = 0

    def begin(self, now: float) -> AtWork:
        """A new one at work."""
        excess, at = -1.0, now

        def take(now: float) -> Room:
            nonlocal excess, at
            more = max(0.0, excess - (now - at) * self.per_second + 1.0) if excess >= 0.0 else 0.0
            limit = round(self.per_second * 60)
            if more > self.burst + 1e-6:
                return Room((more - self.burst) / self.per_second, limit, 0)
            excess, at = more, now
            return Room(0.0, limit, int(self.burst - more))

        return take


class FixedWindow(msgspec.Struct, frozen=True):
    """So many in each window of the clock. A refused request costs nothing.

    Attributes:
        most: requests in a window.
        seconds: the length of a window. Default 60.
    """

    most: int
    seconds: float = 60.0

    def begin(self, now: float) -> AtWork:
        """A new one at work."""
        window, taken = math.floor(now / self.seconds), 0

        def take(now: float) -> Room:
            nonlocal window, taken
            if (current := math.floor(now / self.seconds)) != window:
                window, taken = current, 0
            if taken >= self.most:
                return Room(max(1e-3, (window + 1) * self.seconds - now), self.most, 0)
            taken += 1
            return Room(0.0, self.most, self.most - taken)

        return take


class SlidingWindow(msgspec.Struct, frozen=True):
    """So many accepted in any span of `seconds`.

    Attributes:
        most: requests in a span.
        seconds: the length of the span. Default 60.
        counts_refusals: refused requests count as well, as in HAProxy's `http_req_rate`: a client that goes on asking
            is refused for ever. Default False.
    """

    most: int
    seconds: float = 60.0
    counts_refusals: bool = False

    def begin(self, now: float) -> AtWork:
        """A new one at work."""
        times: deque[float] = deque()

        def take(now: float) -> Room:
            while times and times[0] <= now - self.seconds:
                times.popleft()
            refused = len(times) >= self.most
            if not refused or self.counts_refusals:
                times.append(now)
            if not refused:
                return Room(0.0, self.most, self.most - len(times))
            # Those beyond the limit have to leave the span first, and then one more.
            return Room(max(1e-3, times[len(times) - self.most] + self.seconds - now), self.most, 0)

        return take


class InFlight(msgspec.Struct, frozen=True):
    """So many at work at one time.

    Attributes:
        most: requests at work.
        seconds: how long each is at work, after which its answer comes. Default 1.
    """

    most: int
    seconds: float = 1.0

    def begin(self, now: float) -> AtWork:
        """A new one at work."""
        ends: deque[float] = deque()

        def take(now: float) -> Room:
            while ends and ends[0] <= now:
                ends.popleft()
            if len(ends) >= self.most:
                return Room(max(1e-3, ends[0] - now), self.most, 0)
            ends.append(now + self.seconds)
            return Room(0.0, self.most, self.most - len(ends), self.seconds)

        return take


Limit: TypeAlias = Bucket | Leaky | FixedWindow | SlidingWindow | InFlight
"""A limit on requests, as `Emulator(limits=...)` takes it."""
