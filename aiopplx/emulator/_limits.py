"""The rate limits of an account, as leaky buckets that refill continuously and allow a burst of their capacity.

Pure: `now` is passed in. This module knows nothing of HTTP or of what is being limited.
"""

from __future__ import annotations

from typing import NamedTuple

TIERS = (5, 10, 20, 40, 60, 100)
AGENT_TIERS = (50, 150, 500, 1000, 2000, 2000)
GET_RPM = 6000.0
LIST_RPM = 3000.0


class Room(NamedTuple):
    """The state of a bucket after one request: `wait` is emulated seconds until there is room, 0.0 if there was."""

    wait: float
    limit: int
    remaining: int


class Bucket:
    """One bucket of `rpm` requests a minute."""

    def __init__(self, rpm: float, now: float) -> None:
        self._rpm = rpm
        self._capacity = max(rpm, 1.0)
        self._tokens = self._capacity
        self._at = now

    def take(self, now: float) -> Room:
        """Takes a token if there is one. A refused request costs none, as with the service's leaky bucket."""
        self._tokens = min(self._capacity, self._tokens + max(0.0, now - self._at) * self._rpm / 60)
        self._at = now
        # The margin: a client that waits exactly as long as asked must not be refused because of a rounding error.
        if self._tokens >= 1 - 1e-6:
            self._tokens -= 1
            return Room(0.0, round(self._rpm), int(max(0.0, self._tokens)))
        return Room((1 - self._tokens) * 60 / self._rpm, round(self._rpm), 0)


class Limits:
    """The buckets of all accounts.

    `rates` gives requests a minute by kind of request; a kind that it lacks has no limit.
    """

    def __init__(self, rates: dict[str, float]) -> None:
        self._rates = rates
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def take(self, account: str, on: str, now: float) -> Room | None:
        """Counts one request; None if that kind has no limit."""
        rate = self._rates.get(on)
        if rate is None:
            return None
        bucket = self._buckets.get((account, on))
        if bucket is None:
            bucket = self._buckets[account, on] = Bucket(rate, now)
        return bucket.take(now)


def rates(tier: int | None, rpm: float | None) -> dict[str, float]:
    """The rates of a usage tier; `rpm` replaces the tier's own number.

    For sonar `rpm` is submissions a minute; for the Agent API, which has one limit for everything, requests a minute.
    """
    if tier is not None and not 0 <= tier < len(TIERS):
        raise ValueError(f"tier must be 0 to {len(TIERS) - 1}")
    if rpm is not None and not rpm > 0:
        raise ValueError("rpm must be more than 0: submissions a minute")
    found: dict[str, float] = {}
    if tier is not None:
        found = {"submit": float(TIERS[tier]), "get": GET_RPM, "list": LIST_RPM, "agent": float(AGENT_TIERS[tier])}
    if rpm is not None:
        found["submit"] = found["agent"] = float(rpm)
    return found
