"""Whether refusals mean a limit at all: some servers refuse at random, at whatever rate they are asked.

The test
--------
While no rate is known, refusals that are a small share of the answers show no limit: a bucket that is empty refuses
nearly everything. Once a rate was learnt from them, noise makes it fall without end, since each refusal ends an epoch
early. The only test of that is to ask faster. When the rate has fallen to `LOWERED` of what was once confirmed,
requests leave at `FASTER` times the rate. A limit refuses most of them, and the leap ends as soon as clearly more are
refused than at the lower rate. If they are not, after `LEAP` answers, refusals do not depend on the rate: a
third of that pace holds, and only more refusals than usual are counted from then on.

Only answers count. A server that refuses at random often fails in other ways too, so that some of what leapt never
comes back: others leave in its place.

This module knows nothing of how a rate is learnt, or of when requests leave.
"""

from __future__ import annotations

import math

NOISE = 0.18
"""While a lower share of the answers than this is a refusal, and no rate is known, a refusal shows no limit."""
MEMORY, SLOW_MEMORY = 0.9, 0.98
"""What an answer's weight in the share of refusals is multiplied by at the next answer; the second for the share that
is compared with the usual one."""
UNSURE = 2.0
"""Of the acceptances that a rate was learnt from, so many may have come by chance."""
LOWERED = 0.85
"""A rate that has fallen to this share of what was confirmed takes a leap to tell why."""
LOW, LOW_ANSWERS, LOW_REFUSED = 0.95, 8, 2
"""Answers at less than this share of it are what the leap is compared with: so many at least, and so many refusals. A
limit that was only measured a little low refuses hardly any there."""
LEAP = 24
"""Answers at the faster pace that tell a limit from noise."""
FASTER, HELD = 24.0, 8.0
"""How many times the rate the leap leaves at, and the pace that holds after it if refusals were noise. Where a limit is
shared by clients that know nothing of each other, a refusal is mostly due to the others: only a pace that is far above
the own part of the limit makes a difference that shows."""
NEARER = 1.0 / 3.0
"""How far a leap's share of refusals may be from that before it, towards what a limit of that rate would refuse."""
SURELY_MORE = 3.0
"""Standard deviations above the usual share of refusals, from which on they are more than usual, and are counted."""
PRIOR = 5.0
"""Answers that the share before is worth, where there were few at the lower rate."""
MOST_USUAL = 0.25
"""The highest share of refusals that is taken for noise. Several clients of one key look like noise to each other: the
higher it is, the more they are refused."""


class Noise:
    """The share of requests that is refused, and the leap that tells what it means.

    Attributes:
        usual: the share that is refused at any rate, 0.0 if refusals show a limit.
        confirmed: the highest rate that was learnt from two epochs, in requests a second.
        leapt_at: when the leap began, None if there is none.
        fell_to: the rate before the leap.
        held: the rate that holds after it if refusals were noise.
    """

    __slots__ = (
        "_back",
        "_before",
        "_low_answers",
        "_low_refused",
        "_out",
        "_recent",
        "_refused",
        "_share",
        "_weight",
        "confirmed",
        "fell_to",
        "leapt_at",
        "usual",
    )

    def __init__(self) -> None:
        self.usual = 0.0
        self.confirmed = 0.0
        self.leapt_at: float | None = None
        self.fell_to = 0.0
        self._low_answers = 0
        self._low_refused = 0
        self._recent = 0.0
        self._share = 0.0
        self._weight = 0.0
        self._before = 0.0
        self._out = 0
        self._back = 0
        self._refused = 0

    @property
    def share(self) -> float:
        """The share of answers that are refusals, over the last fifty or so."""
        return self._share / self._weight if self._weight else 0.0

    def start_from(self, usual: float) -> None:
        """This share is known to be refused at any rate."""
        self.usual = self._share = min(MOST_USUAL, max(0.0, usual))
        self._weight = 1.0 if self.usual else 0.0

    def accept(self, *, is_new: bool) -> None:
        """An answer was none. `is_new`: its request left after the last refusal that counts was known."""
        self._low_answers += is_new
        if self._weight:
            self._recent *= MEMORY
            self._share *= SLOW_MEMORY
            self._weight = self._weight * SLOW_MEMORY + (1.0 - SLOW_MEMORY)

    def refuse(self, accepted: int, *, is_new: bool) -> None:
        """An answer was a refusal; so many were accepted before it, ever. `is_new`: see `accept`."""
        self._low_answers += is_new
        self._low_refused += is_new
        if not self._weight:
            self._weight = 1.0 - SLOW_MEMORY**accepted
        self._recent = self._recent * MEMORY + (1.0 - MEMORY)
        self._share = self._share * SLOW_MEMORY + (1.0 - SLOW_MEMORY)
        self._weight = self._weight * SLOW_MEMORY + (1.0 - SLOW_MEMORY)

    def explains(self, *, is_rate_known: bool) -> bool:
        """Whether the latest refusal is one of those that mean nothing."""
        if self.usual:
            # Of independent answers the share has this variance, by its memory.
            variance = self.usual * (1.0 - self.usual) * (1.0 - SLOW_MEMORY) / (1.0 + SLOW_MEMORY)
            return self.share <= self.usual + SURELY_MORE * math.sqrt(variance)
        return not is_rate_known and self._recent < NOISE

    def may_have_lowered(self, rate: float, accepted: int) -> bool:
        """Whether a rate that was learnt from so many acceptances is so low that it takes a leap to tell why."""
        # The fewer they were, the less is sure of it.
        self.confirmed = max(self.confirmed, rate * (1.0 - UNSURE / (accepted + 0.5)))
        if rate > LOW * self.confirmed:
            self._low_answers = self._low_refused = 0
        is_low = rate < LOWERED * self.confirmed
        return is_low and self._low_answers >= LOW_ANSWERS and self._low_refused >= LOW_REFUSED

    @property
    def held(self) -> float:
        return HELD * self.fell_to

    # --- the leap ----------------------------------------------------------------------------------------------------

    def leap(self, now: float, fell_to: float) -> float:
        """Requests leave faster from now on: at the pace that is returned, in requests a second."""
        self.leapt_at, self.fell_to = now, fell_to
        self._before = (self._low_refused + PRIOR * self.share) / (self._low_answers + PRIOR)
        self._out = self._back = self._refused = 0
        return FASTER * fell_to

    @property
    def awaits(self) -> bool:
        """Whether as many have left in the leap as it takes, and not all of them are back."""
        return self.leapt_at is not None and self._out + self._back >= LEAP

    def leave(self) -> None:
        """One leaves in the leap. Where those that are out were given up, they count no more."""
        self._out = 1 if self.awaits else self._out + 1

    def back(self, sent_at: float) -> None:
        """One ended, in whatever way; an answer is told by `landed` too."""
        if self._out and self.leapt_at is not None and sent_at >= self.leapt_at:
            self._out -= 1

    def landed(self, sent_at: float, *, is_refused: bool) -> bool | None:
        """An answer came. Whether refusals are noise, once that is known; None before."""
        if self.leapt_at is None or sent_at < self.leapt_at:
            return None
        self._back += 1
        self._refused += is_refused
        by_limit = max(self._before, 1.0 - 1.0 / FASTER)
        if self._refused > LEAP * (self._before + NEARER * (by_limit - self._before)):
            return False
        return True if self._back >= LEAP else None

    def end_leap(self, *, is_noise: bool) -> None:
        """The leap is over. If it was noise, so many refusals are usual; if not, the lower rate is right."""
        self.leapt_at = None
        self._out = 0
        if is_noise:
            # Of all answers since the rate fell, the leap's among them.
            self.usual = min(MOST_USUAL, (self._low_refused + 1.0) / (self._low_answers + 2.0))
            self._share = self.usual * self._weight
            self.confirmed = 0.0
        else:
            self.confirmed = self.fell_to
