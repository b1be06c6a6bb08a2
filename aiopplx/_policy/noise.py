"""Whether refusals mean a limit at all: some servers refuse at random, at whatever rate they are asked.

The test
--------
While no rate is known, refusals that are a small share of the answers show no limit: a bucket that is empty refuses
nearly everything. Once a rate was learnt from them, noise makes it fall without end, since each refusal ends an epoch
early. The only test of that is to ask faster. When the rate has fallen to less than half of what was once confirmed,
`LEAP` requests leave at the old pace. If no more of them are refused than usual, refusals do not depend on the rate:
the old rate holds again, and only more refusals than usual are counted from then on. If more are, it was a limit.

This module knows nothing of how a rate is learnt, or of when requests leave.
"""

from __future__ import annotations

NOISE = 0.18
"""While a lower share of the answers than this is a refusal, and no rate is known, a refusal shows no limit."""
MEMORY, SLOW_MEMORY = 0.9, 0.98
"""What an answer's weight in the share of refusals is multiplied by at the next answer; the second for the share that
is usual."""
LEAP = 12
"""Requests that leave at the old pace to tell a limit from noise."""
MOST_USUAL = 0.12
"""The highest share of refusals that is taken for noise: above twice as much, refusals are counted again."""


class Noise:
    """The share of requests that is refused, and the leap that tells what it means.

    Attributes:
        share: the share of answers that are refusals, over the last fifty or so.
        usual: the share that is refused at any rate, 0.0 if refusals show a limit.
        confirmed: the highest rate that was learnt from two epochs, in requests a second.
        leapt_at: when the leap began, None if there is none.
        fell_to: the rate before the leap.
    """

    __slots__ = ("_back", "_before", "_recent", "_refused", "confirmed", "fell_to", "leapt_at", "share", "usual")

    def __init__(self) -> None:
        self.share = 0.0
        self.usual = 0.0
        self.confirmed = 0.0
        self.leapt_at: float | None = None
        self.fell_to = 0.0
        self._recent = 0.0
        self._before = 0.0
        self._back = 0
        self._refused = 0

    def accept(self) -> None:
        """An answer was none."""
        if self.share:
            self._recent *= MEMORY
            self.share *= SLOW_MEMORY

    def refuse(self) -> None:
        """An answer was a refusal."""
        self._recent = self._recent * MEMORY + (1.0 - MEMORY)
        self.share = self.share * SLOW_MEMORY + (1.0 - SLOW_MEMORY)

    def explains(self, *, is_rate_known: bool) -> bool:
        """Whether the latest refusal is one of those that mean nothing."""
        if self.usual:
            return self.share < 2.0 * self.usual
        return not is_rate_known and self._recent < NOISE

    def may_have_lowered(self, rate: float) -> bool:
        """Whether a rate that was learnt from two epochs is so low that it takes a leap to tell why."""
        if rate > self.confirmed:
            self.confirmed = rate
        return rate < self.confirmed / 2.0

    def leap(self, now: float, fell_to: float) -> None:
        """Requests leave at the old pace from now on."""
        self.leapt_at, self.fell_to = now, fell_to
        self._before = self.share
        self._back = self._refused = 0

    def landed(self, sent_at: float, *, is_refused: bool) -> bool | None:
        """A request came back. Whether refusals are noise, once enough are back that left in the leap; None before."""
        if self.leapt_at is None or sent_at < self.leapt_at:
            return None
        self._back += 1
        self._refused += is_refused
        return None if self._back < LEAP else self._refused <= 1.0 + 1.2 * LEAP * self._before

    def end_leap(self, *, is_noise: bool) -> None:
        """The leap is over. If it was noise, as many refusals as before are usual; if not, the lower rate is right."""
        self.leapt_at = None
        if is_noise:
            self.usual = min(MOST_USUAL, max(self._before, self._refused / LEAP))
        else:
            self.confirmed = self.fell_to
