"""Whether the server's own counts are to be believed, and what they say of the requests that remain.

`x-ratelimit-limit` and `-remaining` give rate and burst at once, and save nearly every refusal, where they are true.
Some count something else, or another limit than the one that refuses. So they are believed until a request is refused
although more than a few were said to remain: that is a contradiction, and from the third one on they are ignored. One
that was contradicted, but is not ignored yet, only holds requests back.

This module knows nothing of rates, or of when requests leave.
"""

from __future__ import annotations

import math

FEW = 2.0
"""Requests: a refusal is a contradiction if more than so many were said to remain."""
OFTEN = 0.06
"""A share of refusals that true headers do not come with."""
MOST_CONTRADICTIONS = 3
"""Contradictions after which the headers are ignored."""


class Told:
    """The counts of the newest answer, and whether they hold.

    Attributes:
        remaining: requests that remain by the newest answer, less those that left since.
        contradictions: how often a refusal, or the counts themselves, have shown them to be wrong.
    """

    __slots__ = ("_newest", "_refused", "contradictions", "remaining")

    def __init__(self) -> None:
        self.remaining = 0.0
        self.contradictions = 0
        self._newest = -math.inf
        self._refused = 0

    @property
    def is_ignored(self) -> bool:
        """Whether nothing is believed any more."""
        return self.contradictions >= MOST_CONTRADICTIONS

    def is_old(self, sent_at: float) -> bool:
        """Whether a newer answer than one to a request of that moment was read."""
        return sent_at < self._newest

    def count(self, sent_at: float, limit: int, remaining: int, in_flight: int, *, accepted: bool) -> float | None:
        """Take the counts of an answer. How many remain for those who have not left; None if it contradicts itself."""
        self._newest = sent_at
        if remaining > limit or (remaining > FEW and not accepted):
            self.contradictions += 1
            return None
        self.remaining = max(0.0, remaining - in_flight)
        return self.remaining

    def refuse(self, share: float) -> bool:
        """A request was refused although the counts were kept. True if that is one more contradiction.

        Args:
            share: of the answers that are refusals.
        """
        self._refused += 1
        if self.remaining > FEW:
            self.contradictions += 1
            return True
        if self._refused > MOST_CONTRADICTIONS and share > OFTEN:
            # The rate that is told is too much, however true the count is: it is learnt from now on.
            self.contradictions = max(1, self.contradictions)
        return False
